"""Facts of the machine: its cores, memory, GPUs and names, its processes, and the speed that it reaches at most."""

import math
import os
import platform
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

Device = Literal["cpu", "cuda"]

_GEMM = 1024
_COPIED_BYTES = {"cpu": 64 << 20, "cuda": 1 << 30}  # a GPU's cache holds half of the former


def available_cores() -> int:
    """Cores that this process may use: its affinity, and the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for version, folder in _control_groups("cpu"):
        if version == 2:
            quota, _, period = _read(f"{folder}/cpu.max").strip().partition(" ")
        else:
            quota, period = (_read(f"{folder}/cpu.cfs_{what}_us").strip() for what in ("quota", "period"))
        if quota.isdigit() and period.isdigit():
            cores = min(cores, max(1, math.ceil(int(quota) / int(period))))
    return cores


def available_bytes() -> int:
    """Memory that this machine, or the container that this process runs in, has to give."""
    limits = [int(line.split()[1]) << 10 for line in _read("/proc/meminfo").splitlines() if line.startswith("MemAvailable:")]
    for version, folder in _control_groups("memory"):
        names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        limit, used = (_read(f"{folder}/{name}").strip() for name in names)
        if limit.isdigit() and used.isdigit():
            # given up when asked for
            cached = re.search(r"^(?:total_)?inactive_file (\d+)", _read(f"{folder}/memory.stat"), re.MULTILINE)
            limits.append(int(limit) - int(used) + (int(cached[1]) if cached else 0))
    if not limits:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(limits)


def _control_groups(controller: str) -> Iterator[tuple[Literal[1, 2], str]]:
    """The version and the folder of the control group of this process and of every one around it, each of which may limit it.

    Slurm and systemd nest them; a container sees its own as the root, whatever ``/proc/self/cgroup`` calls it.
    """
    mounted = "/sys/fs/cgroup"
    groups = {"": "/"}
    for line in _read("/proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        names, _, group = rest.partition(":")
        groups |= dict.fromkeys(names.split(","), group)
    first = f"{mounted}/{controller}"
    places: list[tuple[Literal[1, 2], str, str]] = [(2, mounted, groups[""]), (2, f"{mounted}/unified", groups[""])]
    places += [(1, first, groups[controller])] if controller in groups else []
    for version, root, group in places:
        parts = [part for part in group.split("/") if part]
        for depth in range(len(parts) if ".." not in parts else 0, -1, -1):
            yield version, "/".join([root, *parts[:depth]])


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, by the names that ``CUDA_VISIBLE_DEVICES`` takes."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def query_gpus(field: str) -> list[str]:
    """A field of nvidia-smi, such as "name" or "memory.free", for each GPU that this process may use; empty without any."""
    # Not through torch: a CUDA context in this process would take memory from the workers.
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = [] if visible is None else [f"--id={visible}"]
    return output_of("nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits", *chosen).splitlines()


def cpu_name() -> str:
    """The model of the processor."""
    model = re.search(r"^model name\s*: (.*)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return model[1].strip() if model else platform.processor() or platform.machine()


@cache
def process_space() -> str:
    """Host, boot and process namespace: within one of these, process ids mean the same."""
    boot, namespace = _read("/proc/sys/kernel/random/boot_id").strip(), Path("/proc/self/ns/pid")
    return " ".join((socket.gethostname(), boot, str(namespace.readlink()) if namespace.is_symlink() else "")).strip()


def process_started(pid: int) -> str | None:
    """When a process started, in the system's own words; None if there is no such process or it is a zombie."""
    if Path("/proc/self/stat").exists():
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        state, *values = stat.rpartition(")")[2].split()  # the name before it may hold anything
        return None if state in "ZX" else values[18]
    state, _, started = output_of("ps", "-o", "state=,lstart=", "-p", str(pid)).partition(" ")
    return None if not started or state.startswith("Z") else started.strip()


def output_of(*command: str) -> str:
    """Text that a command prints; empty where it cannot run or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


@dataclass(frozen=True)
class Ceilings:
    """The highest speeds of one worker while the others are as busy."""

    gemm: float
    """FLOP/s of a float32 product of square matrices, in bfloat16 on a GPU."""
    copy: float
    """Bytes read and written per second by a copy that no cache holds."""


def ceilings(device: str, clock: Callable[[], float] = time.perf_counter) -> Ceilings:
    """Measure the ceilings of this process's threads, or of its GPU, by a clock that counts seconds."""
    import torch

    size = _GEMM if device == "cpu" else 8 * _GEMM
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    a, b = (torch.linspace(-1, 1, size * size, device=device).view(size, size).to(dtype) for _ in range(2))
    copied = _COPIED_BYTES[device]
    source = torch.ones(copied // 4, device=device)
    target = torch.empty_like(source)

    def best(run: Callable[[], object]) -> float:
        def wait() -> None:
            run()
            if device == "cuda":
                torch.cuda.synchronize()

        return min(seconds_of(wait, 6, clock)[1:])

    return Ceilings(2 * size**3 / best(lambda: torch.mm(a, b)), 2 * copied / best(lambda: target.copy_(source)))


def seconds_of(call: Callable[[], object], times: int, clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Seconds that each of several calls in a row takes. The first is not like the others: it allocates, and may compile."""
    found = []
    for _ in range(times):
        started = clock()
        call()
        found.append(clock() - started)
    return found


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Multiply and factor matrices on one thread: for those of a few numbers, several only wait for each other."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        yield


@contextmanager
def single_thread() -> Iterator[None]:
    """Compute on one thread, as a worker does."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _read(path: str) -> str:
    """The text of a file of the system; empty where there is none."""
    return Path(path).read_text(errors="replace") if Path(path).exists() else ""
