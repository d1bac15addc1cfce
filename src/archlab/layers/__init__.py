"""Sequence and channel mixers: one file a family."""

from archlab.fields import at_least
from archlab.layers.contract import Composite, LayerConfig, Recurrent, divides
from archlab.layers.registry import layer, register, registry

__all__ = ["Composite", "LayerConfig", "Recurrent", "at_least", "divides", "layer", "register", "registry"]


def __dir__() -> list[str]:
    return __all__
