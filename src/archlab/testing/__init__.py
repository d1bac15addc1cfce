"""Contract suites that third parties run on their own layers, tasks, executors and stores."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archlab.testing.executors import ExecutorContract, ProcessExecutorContract
    from archlab.testing.layers import LayerContract
    from archlab.testing.stores import StoreContract
    from archlab.testing.tasks import TaskContract

__all__ = ["ExecutorContract", "LayerContract", "ProcessExecutorContract", "StoreContract", "TaskContract"]

_HOMES = {
    "ExecutorContract": "executors",
    "LayerContract": "layers",
    "ProcessExecutorContract": "executors",
    "StoreContract": "stores",
    "TaskContract": "tasks",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use: the workers of an executor under test need none of the layers' checks, nor torch.
    import importlib

    if name in _HOMES:
        return getattr(importlib.import_module(f"archlab.testing.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'archlab.testing' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
