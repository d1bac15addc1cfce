"""A job cannot change the result of another: what it leaves changed is seen, and its worker serves no other."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch

from archlab.jobs.isolation import changed, snapshot
from archlab.jobs.local import LocalExecutor


def set_signal(handler):
    return lambda: signal.signal(signal.SIGUSR1, handler)


CHANGES = {
    "torch's default dtype": (lambda: torch.set_default_dtype(torch.float64), lambda: torch.set_default_dtype(torch.float32)),
    "torch's default device": (lambda: torch.set_default_device("meta"), lambda: torch.set_default_device(None)),
    "torch's number of threads": (lambda: torch.set_num_threads(3), lambda: torch.set_num_threads(1)),
    "torch's grad mode": (lambda: torch.set_grad_enabled(False), lambda: torch.set_grad_enabled(True)),
    "torch's deterministic algorithms": (
        lambda: torch.use_deterministic_algorithms(True),
        lambda: torch.use_deterministic_algorithms(False),
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
    "torch.backends.mkldnn.enabled": (
        lambda: torch.backends.mkldnn.set_flags(False),
        lambda: torch.backends.mkldnn.set_flags(True),
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


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_state_is_named(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    change, restore = CHANGES[name]
    before = snapshot()
    try:
        change()
        assert name in changed(before).split(", ")
    finally:
        if restore:
            restore()
    monkeypatch.chdir(tmp_path)
    assert name not in changed(before).split(", ")


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
    import subprocess

    code = "import sys; from archlab.jobs.isolation import changed, snapshot; changed(snapshot()); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


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


@pytest.fixture
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


def test_jobs_of_different_origins_share_no_process(executor):
    ours, theirs = run(executor, "answers").result(60), run(executor, "answers", "their_layers").result(60)
    assert ours != theirs
    assert run(executor, "answers", "their_layers").result(60) == theirs
    assert run(executor, "answers").result(60) not in (ours, theirs)


def test_a_forked_child_that_holds_the_pipe_does_not_hold_up_the_run(executor):
    with pytest.raises(Exception, match="ended with status 1"):
        run(executor, "forks and dies").result(240)
    assert run(executor, "answers").result(240)
