"""Sequence and channel mixers: one file a family."""

from archlab.layers.base import LayerConfig, Recurrent, divides, is_path, layer, positive, register, registry, unknown_layer

__all__ = ["LayerConfig", "Recurrent", "divides", "is_path", "layer", "positive", "register", "registry", "unknown_layer"]
