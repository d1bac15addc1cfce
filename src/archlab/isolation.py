"""The state of a process that a job, or a script, could leave changed: what it computes with, and what it has started."""

import faulthandler
import os
import pickle
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TypeVar

from archlab.errors import ArchlabError, in_one_line

Value = TypeVar("Value")

_STARTED = ("the environment's variables", "signal handlers", "running threads", "child processes")
_COMPUTES = ("archlab", "torch.nn", "torch.optim", "torch.autograd", "torch.functional", "torch._tensor")
_SIGNALS = sorted(signal.valid_signals())
_LOADED = "torch, which was not loaded before"
_ONE, _HALF_A_STEP = 1.0, 2.0**-53


_is_child = False
_spoilt: list[str] = []


def spoil(why: str) -> None:
    """Note what has happened in this process that no one can undo, so that it should serve no other job."""
    _spoilt.append(why)


def spoilt() -> str:
    """The first thing that has happened in this process and no one can undo; empty if there is none."""
    return next(iter(_spoilt), "")


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
        state |= {name: _read(read) for name, (read, _) in _torch_state(torch).items()}
    if numpy is not None:
        state["NumPy's handling of errors"] = numpy.geterr()
    return state


_State = tuple[Callable[[], Any], Callable[[Any], Any] | None]
"""A function that reads a state, and one that sets what was read; None where nothing sets it."""


def _torch_state(torch: Any) -> dict[str, _State]:
    """The state of torch, by words for messages."""
    mkldnn, cudnn, cuda, matmul = torch.backends.mkldnn, torch.backends.cudnn, torch.backends.cuda, torch.backends.cuda.matmul
    hooks = [found for name, found in vars(torch.nn.modules.module).items() if name.startswith("_global_") and "hooks" in name]
    generator = torch.default_generator

    def set_sdp(enabled: tuple[bool, ...]) -> None:
        for kernel, value in zip(("flash", "math", "mem_efficient", "cudnn"), enabled, strict=True):
            getattr(cuda, f"enable_{kernel}_sdp")(value)

    def set_autocast_dtypes(dtypes: tuple[Any, ...]) -> None:
        for device, dtype in zip(("cpu", "cuda"), dtypes, strict=True):
            torch.set_autocast_dtype(device, dtype)

    return {
        "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
        "torch's default device": (torch.get_default_device, None),
        "torch's number of threads": (torch.get_num_threads, torch.set_num_threads),
        "torch's grad mode": (torch.is_grad_enabled, torch.set_grad_enabled),
        "torch's inference mode": (torch.is_inference_mode_enabled, None),
        "torch's anomaly mode": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
        "torch's modes": (lambda: (torch._C._len_torch_function_stack(), torch._C._len_torch_dispatch_stack()), None),
        "torch's deterministic algorithms": (
            torch.are_deterministic_algorithms_enabled,
            torch.use_deterministic_algorithms,
        ),
        "torch's filling of new memory": _attributes((torch.utils.deterministic, "fill_uninitialized_memory")),
        "torch's matmul precision": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        "torch's autocast on the CPU": (
            lambda: torch.is_autocast_enabled("cpu"),
            lambda enabled: torch.set_autocast_enabled("cpu", enabled),
        ),
        "torch's autocast on the GPU": (
            lambda: torch.is_autocast_enabled("cuda"),
            lambda enabled: torch.set_autocast_enabled("cuda", enabled),
        ),
        "torch's autocast dtypes": (
            lambda: (torch.get_autocast_dtype("cpu"), torch.get_autocast_dtype("cuda")),
            set_autocast_dtypes,
        ),
        "torch's random numbers": (
            lambda: generator.get_state().numpy().tobytes(),
            lambda state: generator.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8)),
        ),
        "torch's hooks on all modules": (lambda: list(map(len, hooks)), None),
        "torch.nn.functional": (lambda: hash(tuple(map(id, vars(torch.nn.functional).values()))), None),
        "torch.backends.fp32_precision": _attributes((torch.backends, "fp32_precision")),
        "torch.backends.mkldnn": _attributes((mkldnn, "enabled"), (mkldnn, "deterministic")),
        "torch.backends.mkldnn's precision": _attributes(
            *((getattr(mkldnn, op), "fp32_precision") for op in ("matmul", "conv", "rnn"))
        ),
        "torch.backends.nnpack": (torch._C._get_nnpack_enabled, torch.backends.nnpack.set_flags),
        "torch.backends.opt_einsum": _attributes((torch.backends.opt_einsum, "enabled"), (torch.backends.opt_einsum, "strategy")),
        "torch.backends.cudnn": _attributes(*((cudnn, name) for name in ("enabled", "benchmark", "deterministic"))),
        "torch.backends.cudnn's precision": _attributes(*((getattr(cudnn, op), "fp32_precision") for op in ("conv", "rnn"))),
        "torch.backends.cudnn.allow_tf32": _attributes((cudnn, "allow_tf32")),
        "torch.backends.cuda.matmul.allow_tf32": _attributes((matmul, "allow_tf32")),
        "torch.backends.cuda.matmul's precision": _attributes(
            (matmul, "fp32_precision"),
            (matmul, "allow_fp16_accumulation"),
            (matmul, "allow_fp16_reduced_precision_reduction"),
            (matmul, "allow_bf16_reduced_precision_reduction"),
        ),
        "torch's attention kernels": (
            lambda: (
                cuda.flash_sdp_enabled(),
                cuda.math_sdp_enabled(),
                cuda.mem_efficient_sdp_enabled(),
                cuda.cudnn_sdp_enabled(),
            ),
            set_sdp,
        ),
        "the rounding of denormal numbers": (lambda: sys.float_info.min / 2 == 0.0, torch.set_flush_denormal),
    }


def _attributes(*places: tuple[Any, str]) -> _State:
    """Attributes of objects as one state."""

    def write(values: list[Any]) -> None:
        for (owner, name), value in zip(places, values, strict=True):
            setattr(owner, name, value)

    return (lambda: [getattr(owner, name) for owner, name in places]), write


def restore(before: dict[str, Any]) -> None:
    """Set the state as a snapshot has it, as far as that can be set; what was started goes on."""
    variables = before["the environment's variables"]
    for name in {*variables, *os.environ}:
        if name not in variables:
            del os.environ[name]
        elif os.environ.get(name) != variables[name]:
            os.environ[name] = variables[name]
    with suppress(OSError):
        os.chdir(before["the working directory"])
    for number, handler in zip(_SIGNALS, before["signal handlers"], strict=True):
        if handler is not None and signal.getsignal(number) is not handler:
            with suppress(ValueError):  # only the main thread may
                signal.signal(number, handler)
    if before[_LOADED]:
        for name, (read, write) in _torch_state(sys.modules["torch"]).items():
            if write and _read(read) != before[name]:
                with suppress(Exception):  # then it stays named as changed
                    write(before[name])
    if "NumPy's handling of errors" in before:
        sys.modules["numpy"].seterr(**before["NumPy's handling of errors"])


@contextmanager
def undone() -> Iterator[None]:
    """Undo all that code from outside archlab changes of this process, so that it reaches no other code, key or worker.

    Raises:
        ArchlabError: something is changed that nothing can undo; names it.
    """
    before = snapshot()
    try:
        yield
    finally:
        restore(before)
    if found := changed(before, started=False):
        raise ArchlabError(f"it changes {found} of this process, for all code after it: leave that to whoever calls it")


MOST_SECONDS = 120.0
"""Code from outside archlab may take so long to be imported, or to be tried once."""


def in_child(compute: Callable[[], Value], *, quiet: bool = False) -> Value:
    """The result of code from outside archlab, run in a copy of this process: it may hang, print, or end its process.

    Only under Linux without a GPU, which the copy of a process cannot use; elsewhere it runs in this process.

    Args:
        compute: gives the result, which can be pickled.
        quiet: what the copy prints is left out.

    Raises:
        ArchlabError: it raises anything, has not ended within :data:`MOST_SECONDS`, or ends its process; says how, and where.
    """
    torch = sys.modules.get("torch")
    if _is_child or sys.platform != "linux" or torch is None or torch.cuda.is_available():
        return compute()
    sys.stdout.flush()
    sys.stderr.flush()
    with TemporaryFile() as answer:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which the copy does not have
            child = os.fork()
        if not child:
            try:
                _begin_child(answer.fileno(), quiet)
                torch.set_num_threads(1)  # the threads of the parent are not here
                answer.write(pickle.dumps(_value_or_error(compute)))
                answer.flush()
                sys.stderr.flush()
            finally:
                os._exit(0)
        status = _end_of(child)
        answer.seek(0)
        said = answer.read()
    if not status and said:
        value, error = pickle.loads(said)
        if error is not None:
            raise ArchlabError(error)
        return value  # type: ignore[no-any-return]
    if not os.WIFSIGNALED(status):
        raise ArchlabError(f"ends the process, with status {os.waitstatus_to_exitcode(status)}")
    place, name = place_of_signal(said.decode(errors="replace")), signal.Signals(os.WTERMSIG(status)).name
    if name == "SIGALRM":
        raise ArchlabError(f"has not ended within {MOST_SECONDS:g} seconds{place}")
    raise ArchlabError(f"ends the process by {name}" + (" (out of memory?)" if name == "SIGKILL" else place))


def _value_or_error(compute: Callable[[], Value]) -> tuple[Value | None, str | None]:
    try:
        return compute(), None
    except BaseException as error:  # SystemExit and KeyboardInterrupt too: the code may raise anything
        return None, in_one_line(error)


def _begin_child(answer: int, quiet: bool) -> None:
    """Set a copy of this process to end after :data:`MOST_SECONDS`, and to write where Python stood if a signal ends it."""
    global _is_child
    _is_child = True
    os.setsid()  # so that what it starts can be ended with it, and Ctrl-C is left to the parent
    if quiet:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    for number in (signal.SIGALRM, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    faulthandler.enable(answer, all_threads=False)
    faulthandler.register(signal.SIGALRM, answer, all_threads=False, chain=True)
    signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)


def _end_of(child: int) -> int:
    """Wait for the status with which a copy of this process ends, with all that it started."""
    try:
        return os.waitpid(child, 0)[1]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        with suppress(ProcessLookupError, ChildProcessError):  # it has ended
            os.waitpid(child, os.WNOHANG)


def place_of_signal(printed: str) -> str:
    """Where in the code a signal came, as Python has printed it; empty if it has not."""
    found = re.search(r'most recent call first\):\n  File "(.*)", line (\d+) in (.*)', printed)
    return f" in {found[3]} ({found[1]}, line {found[2]})" if found else ""


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
