"""Sequence and channel mixers: one file a family."""

from archlab.layers.base import (
    Composite,
    LayerConfig,
    Recurrent,
    composites,
    divides,
    is_path,
    layer,
    positive,
    register,
    registry,
    unknown_layer,
)

__all__ = [
    "Composite",
    "LayerConfig",
    "Recurrent",
    "composites",
    "divides",
    "is_path",
    "layer",
    "positive",
    "register",
    "registry",
    "unknown_layer",
]
