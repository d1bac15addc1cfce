"""Contract suites that third parties run on their own layers, tasks and executors."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archlab.testing.executors import ExecutorContract
    from archlab.testing.layers import LayerContract
    from archlab.testing.tasks import TaskContract

__all__ = ["ExecutorContract", "LayerContract", "TaskContract"]


def __getattr__(name: str) -> Any:
    # Loaded on first use: the workers of an executor under test need none of the layers' checks, nor torch.
    import importlib

    homes = {"ExecutorContract": "executors", "LayerContract": "layers", "TaskContract": "tasks"}
    if name in homes:
        return getattr(importlib.import_module(f"archlab.testing.{homes[name]}"), name)
    raise AttributeError(f"module 'archlab.testing' has no attribute {name!r}")
