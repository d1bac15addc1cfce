"""archlab: a laboratory for sequence-model architectures."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archlab.api import open, preview, report, run
    from archlab.architectures import Architecture, architecture
    from archlab.errors import ArchlabError

__all__ = ["Architecture", "ArchlabError", "architecture", "open", "preview", "report", "run"]

_HOMES = {
    "Architecture": "architectures",
    "ArchlabError": "errors",
    "architecture": "architectures",
    "open": "api",
    "preview": "api",
    "report": "api",
    "run": "api",
}
_ROOMS = ("architectures", "figures", "layers", "scaling", "tasks", "testing")


def __getattr__(name: str) -> Any:
    # Loaded on first use: `import archlab` must stay cheap, for the command line's --help does it.
    import importlib

    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("archlab")
    if name in _HOMES:
        return getattr(importlib.import_module(f"archlab.{_HOMES[name]}"), name)
    if name in _ROOMS:
        return importlib.import_module(f"archlab.{name}")
    raise AttributeError(f"module 'archlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS})
