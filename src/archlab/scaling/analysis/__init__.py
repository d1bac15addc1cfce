"""Analyses of a study beyond its laws: comparisons, other sizes, the fraction of attention."""
