"""Scaling laws: how loss falls with size, data and compute, and which size a budget is best spent on."""
