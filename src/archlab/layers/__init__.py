"""Sequence and channel mixers: one file a family."""

from archlab.layers.contract import Composite, LayerConfig, Recurrent, divides
from archlab.layers.registry import composites, is_path, layer, register, registry, unknown_layer

__all__ = [
    "Composite",
    "LayerConfig",
    "Recurrent",
    "composites",
    "divides",
    "is_path",
    "layer",
    "register",
    "registry",
    "unknown_layer",
]
