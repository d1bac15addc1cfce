"""Sequence and channel mixers: one file a family."""

from archlab.layers.base import LayerConfig, Recurrent, divides, layer, positive, register, registry

__all__ = ["LayerConfig", "Recurrent", "divides", "layer", "positive", "register", "registry"]
