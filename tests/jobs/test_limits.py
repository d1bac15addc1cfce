"""What a job may take: its time, memory and printed text end with the limit, and all that it has started ends with it."""

import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from archlab.errors import ArchlabError
from archlab.jobs import limits
from archlab.jobs.executor import JobError, WorkerDiedError, make_executor
from archlab.jobs.limits import seconds_for
from archlab.jobs.local import LocalExecutor
from archlab.jobs.ray import _Host
from archlab.machine import process_started


@dataclass(frozen=True)
class Job:
    """A job that misbehaves in some way."""

    kind: str
    origin: str = "theirs"
    flops: float = 0.0
    device: str = "cpu"


def forward(kind: str) -> None:
    """Misbehave as a layer may."""
    if kind == "segmentation fault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif kind == "abort":
        os.abort()
    elif kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "raises what cannot be said":
        raise type("Mute", (Exception,), {"__str__": lambda _: 1 / 0})
    elif kind == "says too much":
        raise ValueError("m" * 5_000_000)


def misbehave(folder: Path, jobs, on_progress, thresholds):
    for index, job in enumerate(jobs):
        if job.kind == "hangs":
            time.sleep(3600)
        elif job.kind == "grows":
            hoard = []
            while True:
                hoard.append(bytearray(64 << 20))
        elif job.kind == "prints":
            print("to be seen")
            os.write(2, b"as well\n")
            for _ in range(3 << 10):
                print("x" * 1023)
        elif job.kind == "closes its output":
            os.close(1)
            os.close(2)
        elif job.kind == "starts others":
            code = f"import os, time; open('{folder}/pid', 'w').write(str(os.getpid())); time.sleep(600)"
            subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
            while not (folder / "pid").exists() or not (folder / "pid").read_text():
                time.sleep(0.01)
        else:
            forward(job.kind)
        yield index, os.getpid()


def run(executor, *jobs: Job):
    return executor.submit(jobs, lambda *_: None)


@pytest.fixture
def executor(tmp_path):
    with LocalExecutor(partial(misbehave, tmp_path), 1) as opened:
        yield opened


def test_a_job_beyond_its_time_limit_fails_once_and_the_next_is_computed(tmp_path):
    with LocalExecutor(partial(misbehave, tmp_path), 1, time_limit=0.05) as executor:
        hangs, answers = run(executor, Job("hangs"))[0], run(executor, Job("answers"))[0]
        with pytest.raises(JobError, match=r"^it has not ended within 0.05 minutes, its time limit: --time-limit"):
            hangs.result(60)
        assert answers.result(60)


def test_the_time_limit_follows_from_flops_and_jobs_computed_together_share_theirs():
    hour = Job("", flops=3600 * limits.USUAL_SPEED["cpu"])
    assert seconds_for([hour], None) == 3600 * limits.TIME_FACTOR
    assert seconds_for([Job(""), hour], None) == limits.LEAST_SECONDS + 3600 * limits.TIME_FACTOR
    assert seconds_for([hour, hour], 5.0) == 600
    assert seconds_for(["cpu"], None) is None
    on_gpu = Job("", flops=3600 * limits.USUAL_SPEED["cuda"], device="cuda")
    assert seconds_for([on_gpu], None) == seconds_for([hour], None)


def test_a_time_limit_is_given_where_the_workers_are():
    with pytest.raises(ArchlabError, match=r"^time_limit=5 \(--time-limit\): give it to `archlab work`$"):
        make_executor(print, name="workers", submits=True, time_limit=5.0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits data")
def test_a_job_that_takes_more_than_its_workers_part_of_the_memory_fails_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("archlab.jobs.local.available_bytes", lambda: 3 << 30)
    with LocalExecutor(partial(misbehave, tmp_path), 2) as executor:
        grows, answers = run(executor, Job("grows"))[0], run(executor, Job("answers"))[0]
        with pytest.raises(JobError, match=r"^it needs more than the 1.5 GiB that a worker may take, .*: MemoryError$"):
            grows.result(60)
        assert answers.result(60)


def test_what_a_job_prints_goes_to_standard_error_up_to_a_limit(executor, capsys):
    assert run(executor, Job("prints"))[0].result(60)
    assert run(executor, Job("closes its output"))[0].result(60)
    assert run(executor, Job("answers"))[0].result(60)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("to be seen\nas well\nxxx")
    assert err.endswith("\n[what this job prints beyond 64 KiB is left out]\n")
    assert len(err) < limits.PRINTED_BYTES + 100


@pytest.mark.parametrize("kind", ["segmentation fault", "abort", "kill"])
def test_a_signal_leaves_its_name_and_where_the_job_was(kind, executor, capsys):
    with pytest.raises(WorkerDiedError) as told:
        run(executor, Job(kind))[0].result(60)
    name = {"segmentation fault": "SIGSEGV", "abort": "SIGABRT", "kill": "SIGKILL"}[kind]
    assert str(told.value).startswith(f"the worker was killed by {name}")
    assert (f"in forward ({__file__}, line " in str(told.value)) == (kind != "kill")  # nobody hears that one
    assert ("most recent call first" in told.value.traceback) == (kind != "kill")


def test_a_message_that_cannot_be_had_or_is_huge_fails_its_job_alone(executor):
    with pytest.raises(JobError, match=r"^Mute: its message cannot be had$"):
        run(executor, Job("raises what cannot be said"))[0].result(60)
    with pytest.raises(JobError, match=r"^ValueError: mmm") as told:
        run(executor, Job("says too much"))[0].result(60)
    assert len(str(told.value)) + len(told.value.traceback) < 20_000


def test_what_a_job_has_started_ends_with_it_whatever_session_it_is_in(executor, tmp_path):
    first = run(executor, Job("starts others"))[0].result(60)
    assert run(executor, Job("answers"))[0].result(60) != first
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 5
    while process_started(pid) is not None:
        assert time.monotonic() < deadline, "it goes on"
        time.sleep(0.02)


class TestOnRay:
    """The limits on the node of a Ray worker, where its host runs what the local executor runs."""

    @pytest.fixture(autouse=True)
    def variables(self, monkeypatch):
        monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which the host takes away

    @pytest.fixture
    def ends(self, tmp_path):
        """How jobs that are computed together end."""
        hosts = []

        def run_on_host(*jobs, time_limit=None, memory=0):
            hosts.append(_Host(pickle.dumps(partial(misbehave, tmp_path)), "cpu", time_limit, memory))
            request = pickle.dumps((jobs, [{}] * len(jobs)))
            return [value for kind, (_, value) in list(hosts[-1].run(request))[1:]]

        yield run_on_host
        for host in hosts:
            host.executor.shutdown()

    def test_time(self, ends):
        (error,) = ends(Job("hangs"), time_limit=0.02)
        assert str(error).startswith("it has not ended within 0.02 minutes, its time limit")

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits data")
    @pytest.mark.parametrize(("memory", "most"), [(0, 1.0), (512 << 20, 1.5)])
    def test_memory_is_a_part_of_the_node_or_what_the_cluster_has_set_aside(self, ends, monkeypatch, memory, most):
        monkeypatch.setattr("archlab.jobs.local.available_bytes", lambda: 4 << 30)
        monkeypatch.setattr("archlab.jobs.ray.available_cores", lambda: 8)
        (error,) = ends(Job("grows"), memory=memory)
        assert str(error).startswith(f"it needs more than the {most} GiB that a worker may take")

    def test_printed_text(self, ends, capsys):
        (pid,) = ends(Job("prints"))
        assert isinstance(pid, int)
        assert len(capsys.readouterr().err) < limits.PRINTED_BYTES + 100

    def test_a_signal_is_named_with_its_place(self, ends):
        (error,) = ends(Job("segmentation fault"))
        assert isinstance(error, WorkerDiedError)
        assert f"SIGSEGV in forward ({__file__}, line " in str(error)

    def test_what_a_job_has_started_ends_with_it(self, ends, tmp_path):
        ends(Job("starts others"))
        ends(Job("answers"))
        deadline = time.monotonic() + 5
        while process_started(int((tmp_path / "pid").read_text())) is not None:
            assert time.monotonic() < deadline, "it goes on"
            time.sleep(0.02)
