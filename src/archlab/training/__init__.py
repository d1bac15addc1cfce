"""Trains and evaluates one trial."""

from archlab.training.recipe import Recipe
from archlab.training.trial import CurvePoint, Metrics, Progress, Trial, TrialResult

__all__ = ["CurvePoint", "Metrics", "Progress", "Recipe", "Trial", "TrialResult"]
