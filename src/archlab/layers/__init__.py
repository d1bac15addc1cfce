"""Sequence and channel mixers: one file a family."""

from archlab.layers.contract import Composite, LayerConfig, Recurrent, divides, positive
from archlab.layers.registry import layer, register, registry

__all__ = ["Composite", "LayerConfig", "Recurrent", "divides", "layer", "positive", "register", "registry"]
