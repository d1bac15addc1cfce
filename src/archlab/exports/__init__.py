"""Kept models for other programs: with the code that computes them, or their weights alone."""
