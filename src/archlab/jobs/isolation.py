"""The state of a process that a job, or a script, could leave changed: what it computes with, and what it has started."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

_STARTED = ("the environment's variables", "signal handlers", "running threads", "child processes")
_COMPUTES = ("archlab", "torch.nn", "torch.optim", "torch.autograd", "torch.functional", "torch._tensor")
_SIGNALS = sorted(signal.valid_signals())
_LOADED = "torch, which was not loaded before"
_ONE, _HALF_A_STEP = 1.0, 2.0**-53


def snapshot() -> dict[str, Any]:
    """The present state, by words for messages. Imports nothing: torch and NumPy count only if they are loaded."""
    state: dict[str, Any] = {
        "the environment's variables": dict(os.environ),
        "the working directory": _read(os.getcwd),
        "signal handlers": [signal.getsignal(number) for number in _SIGNALS],
        "running threads": {thread.ident for thread in threading.enumerate()},
        "child processes": _children(),
        "the rounding of denormal numbers": sys.float_info.min / 2 == 0.0,
        "the rounding of floats": (_ONE + _HALF_A_STEP, -_ONE - _HALF_A_STEP),
    }
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    state[_LOADED] = torch is not None
    if torch is not None:
        state |= {name: _read(value) for name, value in _torch_state(torch).items()}
    if numpy is not None:
        state["NumPy's handling of errors"] = numpy.geterr()
    return state


def _torch_state(torch: Any) -> dict[str, Callable[[], Any]]:
    """Functions that read the state of torch, by words for messages."""
    mkldnn, cudnn, opt_einsum = torch.backends.mkldnn, torch.backends.cudnn, torch.backends.opt_einsum
    cuda, matmul = torch.backends.cuda, torch.backends.cuda.matmul
    hooks = [found for name, found in vars(torch.nn.modules.module).items() if name.startswith("_global_") and "hooks" in name]
    return {
        "torch's default dtype": torch.get_default_dtype,
        "torch's default device": torch.get_default_device,
        "torch's number of threads": torch.get_num_threads,
        "torch's grad mode": torch.is_grad_enabled,
        "torch's inference mode": torch.is_inference_mode_enabled,
        "torch's anomaly mode": torch.is_anomaly_enabled,
        "torch's modes": lambda: (torch._C._len_torch_function_stack(), torch._C._len_torch_dispatch_stack()),
        "torch's deterministic algorithms": lambda: (
            torch.are_deterministic_algorithms_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,
        ),
        "torch's matmul precision": torch.get_float32_matmul_precision,
        "torch's autocast on the CPU": lambda: torch.is_autocast_enabled("cpu"),
        "torch's autocast on the GPU": lambda: torch.is_autocast_enabled("cuda"),
        "torch's autocast dtypes": lambda: (torch.get_autocast_dtype("cpu"), torch.get_autocast_dtype("cuda")),
        "torch's random numbers": lambda: torch.default_generator.get_state().numpy().tobytes(),
        "torch's hooks on all modules": lambda: list(map(len, hooks)),
        "torch.nn.functional": lambda: hash(tuple(map(id, vars(torch.nn.functional).values()))),
        "torch.backends.fp32_precision": lambda: torch.backends.fp32_precision,
        "torch.backends.mkldnn": lambda: (mkldnn.enabled, mkldnn.deterministic),
        "torch.backends.mkldnn's precision": lambda: [getattr(mkldnn, op).fp32_precision for op in ("matmul", "conv", "rnn")],
        "torch.backends.nnpack": torch._C._get_nnpack_enabled,
        "torch.backends.opt_einsum": lambda: (opt_einsum.enabled, opt_einsum.strategy),
        "torch.backends.cudnn": lambda: (cudnn.enabled, cudnn.benchmark, cudnn.deterministic),
        "torch.backends.cudnn's precision": lambda: [getattr(cudnn, op).fp32_precision for op in ("conv", "rnn")],
        "torch.backends.cudnn.allow_tf32": lambda: cudnn.allow_tf32,
        "torch.backends.cuda.matmul.allow_tf32": lambda: matmul.allow_tf32,
        "torch.backends.cuda.matmul's precision": lambda: (
            matmul.fp32_precision,
            matmul.allow_fp16_accumulation,
            matmul.allow_fp16_reduced_precision_reduction,
            matmul.allow_bf16_reduced_precision_reduction,
        ),
        "torch's attention kernels": lambda: (
            cuda.flash_sdp_enabled(),
            cuda.math_sdp_enabled(),
            cuda.mem_efficient_sdp_enabled(),
            cuda.cudnn_sdp_enabled(),
        ),
    }


def changed(before: dict[str, Any], *, started: bool = True) -> str:
    """The names of the state that differs from a snapshot, in one line; empty if none does.

    With ``started`` threads, child processes, signal handlers and variables count too; PyTorch's compiler leaves some of them.
    """
    now = snapshot()
    return ", ".join(name for name, value in before.items() if now[name] != value and (started or name not in _STARTED))


def definitions() -> dict[str, Any]:
    """The functions, classes and constants that numbers come from, by their full names: those of archlab and torch."""
    found: dict[str, Any] = {}
    for name, module in list(sys.modules.items()):
        if name == "torch" or name.startswith(_COMPUTES):
            for key, value in list(vars(module).items()):
                found[f"{name}.{key}"] = value
                if isinstance(value, type) and value.__module__ == name:
                    for base in reversed(value.__mro__):
                        found |= {f"{name}.{key}.{attribute}": held for attribute, held in list(vars(base).items())}
    return found


def replaced(before: dict[str, Any]) -> str:
    """The name of a definition that is no longer that of before; empty if there is none."""
    now = definitions()
    return next((name for name, value in before.items() if now.get(name) is not value), "")


def _read(value: Callable[[], Any]) -> Any:
    """A state, or why it cannot be read: PyTorch refuses to name precisions that were set in two ways."""
    try:
        return value()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _children() -> set[int]:
    """Process ids of the children of this process; 0 stands for some where the system does not list them."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return set()
    found = set()
    for listing in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended meanwhile
            found |= {int(pid) for pid in listing.read_text().split()}
    return found or {0}
