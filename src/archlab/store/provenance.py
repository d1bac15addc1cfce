"""Where numbers come from: machine, versions, commit."""

import os
import platform
import socket
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


@cache
def environment(device: str = "cpu") -> dict[str, Any]:
    """What this process computes on and with.

    Returns:
        ``host``, ``cpu``, ``gpu`` (None unless ``device`` is ``"cuda"``), ``platform``, the versions of ``python``,
        ``torch``, ``numpy``, ``archlab`` and ``fla`` (None where it is not installed), and ``commit``: archlab's git commit
        if it runs from a checkout, with ``-dirty`` appended if the package differs from it, else None.
    """
    return {
        "host": socket.gethostname(),
        "cpu": _cpu_name(),
        "gpu": next(iter(query_gpus("name")), None) if device == "cuda" else None,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "numpy": version("numpy"),
        "archlab": version("archlab"),
        "fla": _fla_version(),
        "commit": _commit(),
    }


def provenance(device: str, started: datetime) -> dict[str, Any]:
    """Of work that ends now: :func:`environment`, ``started``, ``finished`` (ISO 8601) and ``wall_seconds``."""
    finished = datetime.now(UTC)
    return environment(device) | {
        "started": started.isoformat(timespec="milliseconds"),
        "finished": finished.isoformat(timespec="milliseconds"),
        "wall_seconds": round((finished - started).total_seconds(), 3),
    }


def _fla_version() -> str | None:
    try:
        return version("fla-core")
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def query_gpus(what: str) -> list[str]:
    """A field of nvidia-smi for each GPU that this process may use; empty where there is none."""
    # Not through torch: a CUDA context in this process would take memory from the workers.
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = [] if visible is None else [f"--id={visible}"]
    return _output("nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits", *chosen).splitlines()


def _commit() -> str | None:
    package = Path(__file__).parents[1]
    git = ("git", "-C", str(package))
    if not _output(*git, "ls-files", "__init__.py"):  # installed inside somebody else's checkout
        return None
    commit = _output(*git, "rev-parse", "HEAD")
    dirty = _output(*git, "status", "--porcelain", "--", ".")
    return f"{commit}-dirty" if dirty else commit


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
