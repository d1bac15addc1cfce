"""Trains language models: one process, or many that share a model."""

from archlab.scaling.training.recipe import LMRecipe
from archlab.scaling.training.result import CurvePoint, Interrupted, LMProgress, LMResult
from archlab.scaling.training.trial import LMTrial

__all__ = ["CurvePoint", "Interrupted", "LMProgress", "LMRecipe", "LMResult", "LMTrial"]
