"""Sequence and channel mixers: one file a family."""

from archlab.layers.base import Composite, LayerConfig, Recurrent, composites, divides, layer, positive, register, registry

__all__ = ["Composite", "LayerConfig", "Recurrent", "composites", "divides", "layer", "positive", "register", "registry"]
