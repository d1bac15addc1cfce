"""The executor of this machine: processes that are reused, watched and ended."""

import ast
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import wait
from functools import partial

import pytest
import torch
from tests.fake_training import PoliteTraining, make_trials
from tests.jobs.toys import leave, look_around, quit_program, until_stopped
from tests.mad.trials import train

from archlab.architectures import architecture
from archlab.errors import ArchlabError
from archlab.jobs.executor import JobError, WorkerDiedError
from archlab.jobs.local import LocalExecutor
from archlab.machine import available_cores, process_started
from archlab.mad.recipe import Recipe
from archlab.mad.train import train_together
from archlab.mad.trial import Metrics, Trial
from archlab.tasks import setting
from archlab.testing.executors import Wish, obey_all, submit


def what_a_worker_sees(executor) -> dict:
    with pytest.raises(JobError) as caught:
        submit(executor, Wish("answer")).result(60)
    return ast.literal_eval(str(caught.value))


def test_a_worker_has_one_thread_ignores_ctrl_c_and_loads_only_what_it_needs(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    before = dict(os.environ)
    with LocalExecutor(look_around, 4) as executor:
        seen = what_a_worker_sees(executor)
        assert seen.pop("pid") == multiprocessing.active_children()[0].pid
        assert seen == {"torch": False, "threads": {"1"}, "gpus": None, "interrupt": True, "blocked": False}
        assert len(multiprocessing.active_children()) == 1, "workers start when trials need them"
    assert multiprocessing.active_children() == []
    assert dict(os.environ) == before
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_gpu_worker_sees_its_gpu_alone(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    with LocalExecutor(look_around, device="cuda") as executor:
        assert executor.num_workers == 2
        assert what_a_worker_sees(executor)["gpus"] == "5"


def test_a_job_that_is_stopped_too_late_stops_none_of_the_next_group():
    workers = set()
    with LocalExecutor(until_stopped, 1) as executor:
        for _ in range(2):  # the second time behind a message that came too late for the first
            begun = {"first": threading.Event(), "second": threading.Event()}
            jobs = [Wish("first"), Wish("second"), Wish("third", 0.25)]
            *stopped, last = executor.submit(jobs, lambda job, step: begun[job.kind].set())  # noqa: B023 - it is over before the next
            for future, event in zip(stopped, begun.values(), strict=True):
                assert event.wait(60)
                executor.stop(future)
            assert last.result(60) == 0.25
            workers |= {child.pid for child in multiprocessing.active_children()}
    assert len(workers) == 1


def test_impossible_requests_are_refused(monkeypatch):
    with pytest.raises(ArchlabError, match=r"^workers=0: must be at least 1$"):
        LocalExecutor(leave, 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ArchlabError, match=r"no GPU is visible"):
        LocalExecutor(leave, device="cuda")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no processor affinity on this system")
def test_only_the_cores_that_this_process_may_use_count():
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        assert available_cores() == 1
        with LocalExecutor(leave) as executor:
            assert executor.num_workers == 1
    finally:
        os.sched_setaffinity(0, cores)


def test_a_worker_that_exits_says_with_which_status():
    with LocalExecutor(leave, 1) as executor, pytest.raises(WorkerDiedError, match="ended with status 3 on each of 2"):
        submit(executor, Wish("answer")).result(60)


def test_a_worker_that_dies_idle_costs_no_attempt(tmp_path):
    with LocalExecutor(partial(obey_all, tmp_path), 1) as executor:
        submit(executor, Wish("answer")).result(60)
        (worker,) = multiprocessing.active_children()
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        # "die once" takes the first of two attempts.
        assert submit(executor, Wish("die once")).result(60).status == "finished"


def test_a_trial_that_cannot_be_pickled_fails_alone(tmp_path):
    with LocalExecutor(partial(obey_all, tmp_path), 1) as executor:
        futures = [submit(executor, trial) for trial in (lambda: None, Wish("answer"))]
        wait(futures, 60)
        assert isinstance(futures[0].exception(), pickle.PicklingError | AttributeError)
        assert futures[1].result().status == "finished"


UNGUARDED = """
from functools import partial
from archlab.jobs.local import LocalExecutor
from archlab.testing.executors import Wish, obey_all, submit

class Mine(Wish):
    pass

print("started")
with LocalExecutor(partial(obey_all, "folder"), 1) as executor:
    print(submit(executor, Wish("answer")).result().status)
    print(submit(executor, Mine("answer")).exception())
"""


def test_only_a_script_whose_own_classes_are_computed_needs_a_guard_and_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=True)
    first, answer, *rest = done.stdout.splitlines()
    assert (first, answer) == ("started", "finished")
    assert "run jobs under `if __name__ == '__main__':`" in rest[-1]


def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    code = f"""
from functools import partial
from pathlib import Path
import multiprocessing
from archlab.jobs.local import LocalExecutor
from archlab.testing.executors import Wish, obey_all, submit
folder = Path({str(tmp_path)!r})
executor = LocalExecutor(partial(obey_all, folder), 2)
submit(executor, Wish("answer")).result()
submit(executor, Wish("hang"))
while not (folder / "hangs").exists():
    pass
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
input()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert workers
        parent.kill()
        deadline = time.monotonic() + 3
        while alive := [pid for pid in workers if is_running(pid)]:
            assert time.monotonic() < deadline, alive
            time.sleep(0.02)


def is_running(pid: int) -> bool:
    return process_started(pid) is not None


def test_a_real_training_gives_the_same_bits_in_a_worker_as_here():
    trial = Trial(
        architecture=architecture("attention swiglu"),
        setting=setting("compression", length=8, num_train_examples=64),
        recipe=Recipe(steps=20, batch_size=16, evaluations=2, num_evaluation=32),
        dim=16,
        learning_rate=1e-3,
        weight_decay=0.1,
        seed=1,
    )
    progress = []
    with LocalExecutor(train_together, 1) as executor:
        there = submit(executor, trial, lambda _, heard: progress.append(heard)).result(120)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        here = train(trial)
    finally:
        torch.set_num_threads(threads)
    assert isinstance(there.test, Metrics)
    assert there.curve == here.curve
    assert there.score == here.score
    assert [seen.step for seen in progress][-1] == 20


def test_a_grace_lets_a_trial_end_by_itself_but_waits_no_longer(tmp_path):
    note, begun = tmp_path / "note", threading.Event()
    executor = LocalExecutor(PoliteTraining(note), 1)
    (future,) = executor.submit(make_trials(1), lambda *_: begun.set())
    assert begun.wait(60)
    executor.shutdown(grace=60)
    assert note.read_text() == "kept"
    assert str(future.exception()) == "asked to end"
    assert multiprocessing.active_children() == []


def test_ctrl_c_while_a_thread_starts_leaves_nothing_behind(monkeypatch):
    start = threading.Thread.start

    def interrupted(thread):
        start(thread)
        if thread.name.startswith("archlab-worker"):
            raise KeyboardInterrupt

    executor = LocalExecutor(leave, 1)
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        submit(executor, Wish("answer"))
    monkeypatch.undo()
    executor.shutdown()
    assert multiprocessing.active_children() == []


def test_a_job_that_ends_its_program_leaves_the_reason():
    with LocalExecutor(quit_program, 1) as executor:
        for wish, reason in (("exit", "SystemExit: 3"), ("interrupt", "KeyboardInterrupt")):
            (future,) = executor.submit([wish], lambda job, progress: None)
            with pytest.raises(JobError) as told:
                future.result(60)
            assert str(told.value) == reason
            assert "quit_program" in told.value.traceback
