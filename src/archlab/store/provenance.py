"""Provenance of numbers: machine, versions, commit."""

import platform
import socket
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

from archlab.machine import cpu_name, output_of, query_gpus
from archlab.store.fingerprint import chosen_kernels


@cache
def environment(device: str = "cpu") -> dict[str, Any]:
    """The machine and the versions that this process computes with.

    ``gpu`` is None unless the device is ``"cuda"``, ``fla`` where it is not installed, and ``commit``, archlab's git commit,
    where it does not run from a checkout; it ends in ``-dirty`` if the package differs from it. ``kernels`` are the variables
    of the environment that choose them (:func:`archlab.store.fingerprint.chosen_kernels`).
    """
    return {
        "host": socket.gethostname(),
        "cpu": cpu_name(),
        "gpu": next(iter(query_gpus("name")), None) if device == "cuda" else None,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "numpy": version("numpy"),
        "archlab": version("archlab"),
        "fla": next((found.version for found in distributions(name="fla-core")), None),
        "kernels": chosen_kernels(),
        "commit": _commit(),
    }


def provenance(device: str, started: datetime) -> dict[str, Any]:
    """Provenance of work that ends now: :func:`environment`, ``started``, ``finished`` (ISO 8601) and ``wall_seconds``."""
    finished = datetime.now(UTC)
    return environment(device) | {
        "started": started.isoformat(timespec="milliseconds"),
        "finished": finished.isoformat(timespec="milliseconds"),
        "wall_seconds": round((finished - started).total_seconds(), 3),
    }


def _commit(package: Path = Path(__file__).parents[1]) -> str | None:
    git = ("git", "-C", str(package))
    if not output_of(*git, "ls-files", "__init__.py"):  # installed inside somebody else's checkout
        return None
    commit = output_of(*git, "rev-parse", "HEAD")
    dirty = output_of(*git, "status", "--porcelain", "--", ".")
    return f"{commit}-dirty" if dirty else commit
