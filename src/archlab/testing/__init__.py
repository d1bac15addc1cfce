"""Contract suites that third parties run on their own layers and executors."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archlab.testing.executors import ExecutorContract
    from archlab.testing.layers import LayerContract

__all__ = ["ExecutorContract", "LayerContract"]


def __getattr__(name: str) -> Any:
    # Loaded on first use: the workers of an executor under test need none of the layers' checks, nor torch.
    import importlib

    homes = {"ExecutorContract": "executors", "LayerContract": "layers"}
    if name in homes:
        return getattr(importlib.import_module(f"archlab.testing.{homes[name]}"), name)
    raise AttributeError(f"module 'archlab.testing' has no attribute {name!r}")
