"""archlab: a laboratory for sequence-model architectures."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archlab.architectures import Architecture, architecture
    from archlab.errors import ArchlabError

__all__ = ["Architecture", "ArchlabError", "architecture"]


def __getattr__(name: str) -> Any:
    # Loaded on first use: `import archlab` must stay cheap, for the command line's --help does it.
    import importlib

    homes = {"Architecture": "architectures", "architecture": "architectures", "ArchlabError": "errors"}
    if name in homes:
        return getattr(importlib.import_module(f"archlab.{homes[name]}"), name)
    if name in {"architectures", "benchmark", "layers", "tasks", "testing", "training"}:
        return importlib.import_module(f"archlab.{name}")
    raise AttributeError(f"module 'archlab' has no attribute {name!r}")
