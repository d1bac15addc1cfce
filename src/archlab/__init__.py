"""archlab: a laboratory for sequence-model architectures."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archlab.api import describe, preview, rerun_trials, run, search
    from archlab.architectures import Architecture, architecture
    from archlab.architectures.normalise import normalise
    from archlab.designs.correlation import correlate
    from archlab.errors import ArchlabError
    from archlab.exports.export import export
    from archlab.exports.kept import load_model
    from archlab.findings import reproduce
    from archlab.jobs.events import JobFailed, JobFinished
    from archlab.layers import layer
    from archlab.mad.bench import bench
    from archlab.pipeline import design
    from archlab.reading import open, report
    from archlab.reports.loggers import logger
    from archlab.stores import check_store, merge_stores, rekey_store
    from archlab.tasks import sample
    from archlab.tasks import setting as task

_HOMES = {
    "Architecture": "architectures",
    "ArchlabError": "errors",
    "JobFailed": "jobs.events",
    "JobFinished": "jobs.events",
    "architecture": "architectures",
    "bench": "mad.bench",
    "check_store": "stores",
    "correlate": "designs.correlation",
    "describe": "api",
    "design": "pipeline",
    "export": "exports.export",
    "layer": "layers",
    "load_model": "exports.kept",
    "logger": "reports.loggers",
    "merge_stores": "stores",
    "normalise": "architectures.normalise",
    "open": "reading",
    "preview": "api",
    "rekey_store": "stores",
    "report": "reading",
    "reproduce": "findings",
    "rerun_trials": "api",
    "run": "api",
    "sample": "tasks",
    "search": "api",
    "task": "tasks",
}
_MODULES = ("figures", "layers", "scaling", "tasks", "testing")
__all__ = [
    "Architecture",
    "ArchlabError",
    "JobFailed",
    "JobFinished",
    "architecture",
    "bench",
    "check_store",
    "correlate",
    "describe",
    "design",
    "export",
    "layer",
    "load_model",
    "logger",
    "merge_stores",
    "normalise",
    "open",
    "preview",
    "rekey_store",
    "report",
    "reproduce",
    "rerun_trials",
    "run",
    "sample",
    "search",
    "task",
]


def __getattr__(name: str) -> Any:
    # Loaded on first use: `import archlab` must stay cheap, for the command line's --help does it.
    import importlib

    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("archlab")
    if name in _HOMES:
        return getattr(importlib.import_module(f"archlab.{_HOMES[name]}"), "setting" if name == "task" else name)
    if name in _MODULES:
        return importlib.import_module(f"archlab.{name}")
    raise AttributeError(f"module 'archlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES, "__version__"})
