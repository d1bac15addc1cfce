"""A job cannot change the result of another: what it leaves changed is seen, and its worker serves no other."""

import ctypes
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from archlab.errors import ArchlabError
from archlab.isolation import changed, restore, snapshot, undone
from archlab.jobs.local import LocalExecutor
from archlab.training import optimiser


def set_signal(handler):
    return lambda: signal.signal(signal.SIGUSR1, handler)


def round_up(up: bool) -> None:
    """Change how the processor rounds: to the next larger float, or the nearest."""
    ctypes.CDLL(None).fesetround(0x800 if up else 0)


class Mode(TorchFunctionMode):
    """Changes what functions of torch compute."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


MODE, INFERENCE, EINSUM = Mode(), torch.inference_mode(), torch.backends.opt_einsum.enabled
DRAWN: list[torch.Tensor] = []

CHANGES = {
    "torch's default dtype": (lambda: torch.set_default_dtype(torch.float64), lambda: torch.set_default_dtype(torch.float32)),
    "torch's default device": (lambda: torch.set_default_device("meta"), lambda: torch.set_default_device(None)),
    "torch's number of threads": (lambda: torch.set_num_threads(3), lambda: torch.set_num_threads(1)),
    "torch's grad mode": (lambda: torch.set_grad_enabled(False), lambda: torch.set_grad_enabled(True)),
    "torch's deterministic algorithms": (
        lambda: torch.use_deterministic_algorithms(True),
        lambda: torch.use_deterministic_algorithms(False),
    ),
    "torch's filling of new memory": (
        lambda: setattr(torch.utils.deterministic, "fill_uninitialized_memory", False),
        lambda: setattr(torch.utils.deterministic, "fill_uninitialized_memory", True),
    ),
    "torch's matmul precision": (
        lambda: torch.set_float32_matmul_precision("medium"),
        lambda: torch.set_float32_matmul_precision("highest"),
    ),
    "torch's anomaly mode": (
        lambda: torch.autograd.set_detect_anomaly(True),
        lambda: torch.autograd.set_detect_anomaly(False),
    ),
    "torch's autocast on the CPU": (
        lambda: torch.set_autocast_enabled("cpu", True),
        lambda: torch.set_autocast_enabled("cpu", False),
    ),
    "torch.backends.mkldnn": (
        lambda: torch.backends.mkldnn.set_flags(False),
        lambda: torch.backends.mkldnn.set_flags(True),
    ),
    "torch's inference mode": (
        lambda: INFERENCE.__enter__(),
        lambda: INFERENCE.__exit__(None, None, None),
    ),
    "torch's autocast dtypes": (
        lambda: torch.set_autocast_dtype("cpu", torch.float16),
        lambda: torch.set_autocast_dtype("cpu", torch.bfloat16),
    ),
    "torch.backends.mkldnn's precision": (
        lambda: setattr(torch.backends.mkldnn.conv, "fp32_precision", "bf16"),
        lambda: setattr(torch.backends.mkldnn.conv, "fp32_precision", "none"),
    ),
    "torch.backends.fp32_precision": (
        lambda: setattr(torch.backends, "fp32_precision", "tf32"),
        lambda: setattr(torch.backends, "fp32_precision", "none"),
    ),
    "torch.backends.cudnn": (
        lambda: setattr(torch.backends.cudnn, "benchmark", True),
        lambda: setattr(torch.backends.cudnn, "benchmark", False),
    ),
    "torch.backends.cudnn's precision": (
        lambda: setattr(torch.backends.cudnn.conv, "fp32_precision", "ieee"),
        lambda: setattr(torch.backends.cudnn.conv, "fp32_precision", "tf32"),
    ),
    "torch.backends.cuda.matmul's precision": (
        lambda: setattr(torch.backends.cuda.matmul, "allow_fp16_accumulation", True),
        lambda: setattr(torch.backends.cuda.matmul, "allow_fp16_accumulation", False),
    ),
    "torch's attention kernels": (
        lambda: torch.backends.cuda.enable_cudnn_sdp(False),
        lambda: torch.backends.cuda.enable_cudnn_sdp(True),
    ),
    "torch's modes": (lambda: MODE.__enter__(), lambda: MODE.__exit__(None, None, None)),
    "torch's hooks on all modules": (
        lambda: torch.nn.modules.module.register_module_forward_hook(lambda *_: None),
        lambda: torch.nn.modules.module._global_forward_hooks.clear(),
    ),
    "torch's random numbers": (
        lambda: (DRAWN.append(torch.get_rng_state()), torch.rand(1)),
        lambda: torch.set_rng_state(DRAWN.pop()),
    ),
    "the rounding of floats": (lambda: round_up(True), lambda: round_up(False)),
    "torch's autocast on the GPU": (
        lambda: torch.set_autocast_enabled("cuda", True),
        lambda: torch.set_autocast_enabled("cuda", False),
    ),
    "torch.backends.nnpack": (
        lambda: torch.backends.nnpack.set_flags(False),
        lambda: torch.backends.nnpack.set_flags(True),
    ),
    "torch.backends.opt_einsum": (
        lambda: setattr(torch.backends.opt_einsum, "enabled", not EINSUM),
        lambda: setattr(torch.backends.opt_einsum, "enabled", EINSUM),
    ),
    "torch.backends.cudnn.allow_tf32": (
        lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
        lambda: setattr(torch.backends.cudnn, "allow_tf32", True),
    ),
    "torch.backends.cuda.matmul.allow_tf32": (
        lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
        lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", False),
    ),
    "torch.nn.functional": (
        lambda: setattr(torch.nn.functional, "softmax_of_mine", torch.relu),
        lambda: delattr(torch.nn.functional, "softmax_of_mine"),
    ),
    "the rounding of denormal numbers": (lambda: torch.set_flush_denormal(True), lambda: torch.set_flush_denormal(False)),
    "NumPy's handling of errors": (lambda: np.seterr(over="raise"), lambda: np.seterr(over="warn")),
    "the environment's variables": (lambda: os.environ.update(MINE="1"), lambda: os.environ.pop("MINE")),
    "the working directory": (lambda: os.chdir("/"), None),
    "signal handlers": (set_signal(signal.SIG_IGN), set_signal(signal.SIG_DFL)),
}


def test_every_state_has_a_change_that_shows_it():
    assert set(snapshot()) - set(CHANGES) == {"running threads", "child processes", "torch, which was not loaded before"}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_state_is_named(name, monkeypatch, tmp_path):
    if name == "the rounding of floats" and platform.machine() != "x86_64":
        pytest.skip("the number of the rounding mode is that of x86-64")
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    change, change_back = CHANGES[name]
    before = snapshot()
    try:
        change()
        assert name in changed(before).split(", ")
    finally:
        if change_back:
            change_back()
    monkeypatch.chdir(tmp_path)
    assert name not in changed(before).split(", ")


LASTING = {
    "torch's default device",
    "torch's inference mode",
    "torch's modes",
    "torch's hooks on all modules",
    "torch.nn.functional",
    "the rounding of floats",
}


@pytest.mark.parametrize("name", sorted(set(CHANGES) - LASTING))
def test_what_is_undone_is_as_it_was_before(name):
    torch.set_num_threads(1)
    change, change_back = CHANGES[name]
    before = snapshot()
    try:
        with undone():
            change()
            assert name in changed(before).split(", ")
        assert changed(before) == ""
    finally:
        restore(before)
        if changed(before) and change_back:
            change_back()


def test_what_cannot_be_undone_is_named():
    change, change_back = CHANGES["torch's hooks on all modules"]
    try:
        with pytest.raises(ArchlabError, match=r"^it changes torch's hooks on all modules of this process"), undone():
            change()
    finally:
        change_back()


def test_a_thread_and_a_child_that_go_on_are_named():
    before, ends = snapshot(), threading.Event()
    thread = threading.Thread(target=ends.wait)
    thread.start()
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    try:
        assert changed(before) == "running threads, child processes"
        assert changed(before, started=False) == ""
    finally:
        ends.set()
        thread.join()
        child.kill()
        child.join()
        child.close()


def test_what_is_not_loaded_is_not_loaded_for_it():
    assert printed("import sys; changed(snapshot()); print('torch' in sys.modules)") == "False\n"


def printed(code: str) -> str:
    """Output of a program that starts with the two functions imported."""
    program = f"from archlab.isolation import changed, snapshot; {code}"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


def test_what_is_loaded_is_named_and_read_and_what_torch_refuses_to_name_is_changed():
    loaded, errors, refused = printed(
        "before = snapshot(); import torch; print(changed(before)); before = snapshot(); "
        "print([v for v in before.values() if isinstance(v, str) and 'Error: ' in v]); "
        "torch.backends.cuda.matmul.fp32_precision = 'tf32'; print(changed(before))"
    ).splitlines()
    assert "torch, which was not loaded before" in loaded  # it may have been changed
    assert errors == "[]"
    assert "torch's matmul precision" in refused.split(", ")


def test_a_snapshot_takes_little_time():
    taken = []
    for _ in range(5):
        started = time.process_time()
        for _ in range(100):
            snapshot()
        taken.append((time.process_time() - started) / 100)
    assert min(taken) < 2e-3


@dataclass(frozen=True)
class Job:
    """A job that tells its process, and may spoil it."""

    kind: str
    origin: str = ""


def work(jobs, on_progress, thresholds):
    for index, job in enumerate(jobs):
        if job.kind == "changes the rounding":
            torch.set_flush_denormal(True)
        elif job.kind == "raises" or job.kind == "forks and dies":
            np.seterr(over="raise")
            if job.kind == "raises":
                raise ValueError("spoilt")
            if os.fork() == 0:
                time.sleep(600)
                os._exit(0)
            os._exit(1)
        yield index, os.getpid()


def run(executor, kind, origin=""):
    (future,) = executor.submit([Job(kind, origin)], lambda *_: None)
    return future


@pytest.fixture(scope="module")
def executor():
    with LocalExecutor(partial(work), 1) as opened:
        yield opened


def test_a_worker_whose_state_a_job_has_changed_serves_no_other(executor):
    first = run(executor, "answers").result(60)
    assert run(executor, "answers").result(60) == first
    assert run(executor, "changes the rounding").result(60) == first
    second = run(executor, "answers").result(60)
    assert second != first
    with pytest.raises(Exception, match="spoilt"):
        run(executor, "raises").result(60)
    assert run(executor, "answers").result(60) not in (first, second)


@pytest.mark.slow
def test_jobs_of_different_origins_share_no_process(executor):
    ours, theirs = run(executor, "answers").result(60), run(executor, "answers", "their_layers").result(60)
    assert ours != theirs
    assert run(executor, "answers", "their_layers").result(60) == theirs
    assert run(executor, "answers").result(60) not in (ours, theirs)


@pytest.mark.slow
def test_a_forked_child_that_holds_the_pipe_does_not_hold_up_the_run(executor):
    with pytest.raises(Exception, match="ended with status 1"):
        run(executor, "forks and dies").result(240)
    assert run(executor, "answers").result(240)


def compute(jobs, on_progress, thresholds):
    """Answer with what a training would compute with."""
    functions = (torch.nn.functional.silu, torch.optim.AdamW.step, optimiser.update)
    for index, _ in enumerate(jobs):
        yield index, [str(torch.get_default_dtype()), torch.get_float32_matmul_precision(), *(f.__name__ for f in functions)]


SCRIPT = """
import os, sys
from dataclasses import dataclass
import archlab.training.optimiser as ours
import torch
from archlab.jobs.local import LocalExecutor
from archlab.testing.executors import Wish
from tests.test_isolation import compute

exec(os.environ.get("CHANGE", ""))

@dataclass(frozen=True)
class Mine(Wish):
    origin: str = "__main__"

if __name__ == "__main__":
    with LocalExecutor(compute, 1) as executor:
        for job in (Wish(sys.argv[1]), *map(Mine, sys.argv[1:])):
            os.environ["CHANGE"] = job.kind
            (future,) = executor.submit([job], lambda *_: None)
            print(future.exception() or future.result())
"""
CLEAN = "['torch.float32', 'highest', 'silu', 'step', 'update']"
OF_A_SCRIPT = {
    "torch.set_default_dtype(torch.float64); torch.set_float32_matmul_precision('medium')": (
        "torch's default dtype, torch's matmul precision"
    ),
    "torch.nn.functional.silu = torch.relu": "torch.nn.functional",
    "torch.optim.AdamW.step = print": "torch.optim.adamw.AdamW.step",
    "ours.update = print": "archlab.training.optimiser.update",
    "torch.manual_seed(5), torch.set_num_threads(2), os.environ.update(MINE='1')": None,
}


@pytest.mark.slow
def test_what_a_script_sets_reaches_no_job_and_is_refused_where_a_job_needs_the_script(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py", *OF_A_SCRIPT],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    ours, *theirs = done.stdout.splitlines()
    assert ours == CLEAN
    for line, found in zip(theirs, OF_A_SCRIPT.values(), strict=True):
        assert line.startswith(f"the script changes {found}, " if found else CLEAN)
