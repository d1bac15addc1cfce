"""Scaling laws of architectures: plan studies of language models, train them, fit and compare their losses."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archlab.scaling import fits
    from archlab.scaling.api import compare, fit, plan, predict, train, tune
    from archlab.scaling.evaluation import evaluate
    from archlab.scaling.imports import read_runs
    from archlab.scaling.sampling import sample

_HOMES = {
    "compare": "archlab.scaling.api",
    "evaluate": "archlab.scaling.evaluation",
    "fit": "archlab.scaling.api",
    "plan": "archlab.scaling.api",
    "predict": "archlab.scaling.api",
    "read_runs": "archlab.scaling.imports",
    "report": "archlab.reports.scaling_page",
    "sample": "archlab.scaling.sampling",
    "train": "archlab.scaling.api",
    "tune": "archlab.scaling.api",
}
__all__ = [
    "compare",
    "evaluate",
    "fit",
    "fits",
    "plan",
    "predict",
    "read_runs",
    "report",
    "sample",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    # loaded on first use: fits need no torch, and `--help` nothing at all
    if name == "fits":
        return import_module("archlab.scaling.fits")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'archlab.scaling' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
