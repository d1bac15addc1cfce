"""Every layer as a plain float64 recurrence, written apart from the layer's own operations.

A module defines ``ORACLES`` (layer name to function of the layer's module and ``(batch, length, dim)``
float64), and may define ``CONFIGS`` (further knobs to test: name, knobs) and ``TOLERANCES`` and
``CAUSALITY_TOLERANCES`` (by text form; see :class:`archlab.testing.LayerContract`).
"""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

_MODULES = [importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)]


def _merged(attribute: str) -> dict[str, Any]:
    return {name: value for module in _MODULES for name, value in getattr(module, attribute, {}).items()}


ORACLES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = _merged("ORACLES")
TOLERANCES: dict[str, float] = _merged("TOLERANCES")
CAUSALITY_TOLERANCES: dict[str, float] = _merged("CAUSALITY_TOLERANCES")
CONFIGS: list[tuple[str, dict[str, Any]]] = [config for module in _MODULES for config in getattr(module, "CONFIGS", [])]
