"""Trains and evaluates one trial."""
