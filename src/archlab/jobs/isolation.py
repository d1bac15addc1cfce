"""The state of a process that one job could leave changed for the next: what it computes with, and what it has started."""

import multiprocessing
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

_STARTED = ("the environment's variables", "signal handlers", "running threads", "child processes")
_TORCH: dict[str, str] = {
    "torch's default dtype": "get_default_dtype()",
    "torch's default device": "get_default_device()",
    "torch's number of threads": "get_num_threads()",
    "torch's grad mode": "is_grad_enabled()",
    "torch's inference mode": "is_inference_mode_enabled()",
    "torch's deterministic algorithms": "are_deterministic_algorithms_enabled()",
    "torch's matmul precision": "get_float32_matmul_precision()",
    "torch's anomaly mode": "is_anomaly_enabled()",
    "torch's autocast on the CPU": "is_autocast_enabled('cpu')",
    "torch's autocast on the GPU": "is_autocast_enabled('cuda')",
    "torch's autocast dtype on the CPU": "get_autocast_dtype('cpu')",
    "torch.backends.mkldnn.enabled": "backends.mkldnn.enabled",
    "torch.backends.mkldnn.deterministic": "backends.mkldnn.deterministic",
    "torch.backends.nnpack": "_C._get_nnpack_enabled()",
    "torch.backends.cudnn": "(backends.cudnn.enabled, backends.cudnn.benchmark, backends.cudnn.deterministic)",
    "torch.backends.cuda.matmul.allow_tf32": "backends.cuda.matmul.allow_tf32",
    "torch.backends.cudnn.allow_tf32": "backends.cudnn.allow_tf32",
    "torch's attention kernels": "(backends.cuda.flash_sdp_enabled(), backends.cuda.math_sdp_enabled(), "
    "backends.cuda.mem_efficient_sdp_enabled())",
    "torch.nn.functional": "hash(tuple(map(id, vars(nn.functional).values())))",
}
"""Expressions of the state of torch."""


def snapshot() -> dict[str, Any]:
    """The present state, by words for messages. Imports nothing: torch and NumPy count only if they are loaded."""
    state: dict[str, Any] = {
        "the environment's variables": dict(os.environ),
        "the working directory": os.getcwd(),
        "signal handlers": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "running threads": {thread.ident for thread in threading.enumerate()},
        "child processes": _children(),
        "the rounding of denormal numbers": sys.float_info.min / 2 == 0.0,
        "the rounding of floats": (1.0 + 2.0**-53, -1.0 - 2.0**-53),
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        state |= {name: eval(expression, {}, vars(torch)) for name, expression in _TORCH.items()}
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        state["NumPy's handling of errors"] = numpy.geterr()
    return state


def changed(before: dict[str, Any], *, started: bool = True) -> str:
    """The names of the state that differs from a snapshot, in one line; empty if none does.

    With ``started`` threads, child processes, signal handlers and variables count too; PyTorch's compiler leaves some of them.
    """
    now = snapshot()
    return ", ".join(name for name, value in before.items() if now[name] != value and (started or name not in _STARTED))


def _children() -> set[int]:
    """Process ids of the children of this process."""
    tasks = Path("/proc/self/task")
    if not tasks.exists():
        return {child.pid for child in multiprocessing.active_children() if child.pid is not None}
    found = set()
    for listing in tasks.glob("*/children"):
        found |= {int(pid) for pid in listing.read_text().split()}
    return found
