"""Every layer as a plain float64 recurrence, written apart from the layer's own operations.

A module defines ``ORACLES`` (layer name to function of the layer's module and ``(batch, length, dim)``
float64), and may define ``CONFIGS`` (further knobs to test: name, knobs) and ``TOLERANCES`` and
``CAUSALITY_TOLERANCES`` (by text form; see :class:`archlab.testing.LayerContract`), and ``NO_DECAY`` (layer name to patterns
of the matrices that weight decay must not act on). Of layers that are made of
layers, ``COMPOSITES`` has the oracles (name to function of the oracles of these layers, module and input), and
``SPECS`` what to test.
"""

import importlib
import pkgutil
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from archlab.layers import Composite, LayerConfig

_MODULES = [importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)]


def _merged(attribute: str) -> dict[str, Any]:
    return {name: value for module in _MODULES for name, value in getattr(module, attribute, {}).items()}


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = _merged("ORACLES")
TOLERANCES: dict[str, float] = _merged("TOLERANCES")
CAUSALITY_TOLERANCES: dict[str, float] = _merged("CAUSALITY_TOLERANCES")
CONFIGS: list[tuple[str, dict[str, Any]]] = [config for module in _MODULES for config in getattr(module, "CONFIGS", [])]
NO_DECAY: dict[str, tuple[str, ...]] = _merged("NO_DECAY")
COMPOSITES: dict[str, Callable[..., Tensor]] = _merged("COMPOSITES")
SPECS: list[str] = [spec for module in _MODULES for spec in getattr(module, "SPECS", [])]


def oracle_of(config: LayerConfig) -> Callable[[nn.Module, Tensor], Tensor]:
    """The oracle of a layer; that of a composite is made of its layers' oracles."""
    if isinstance(config, Composite):
        return partial(COMPOSITES[config.name], [oracle_of(x) for x in config.layers])
    return ORACLES[config.name]


def no_decay_of(config: LayerConfig) -> tuple[str, ...]:
    """Patterns of the matrices of a layer that weight decay must not act on; those of a composite are its layers'."""
    if isinstance(config, Composite):
        return tuple(f"*.{pattern}" for part in config.layers for pattern in no_decay_of(part))
    return NO_DECAY.get(config.name, ())
