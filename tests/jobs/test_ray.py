"""Ray keeps the contract of executors whose workers are processes; skipped where it is not installed."""

import os
from functools import partial

import pytest
from tests.jobs.test_limits import Job, misbehave

from archlab.jobs.executor import JobError, WorkerDiedError
from archlab.jobs.ray import RayExecutor, shipped
from archlab.testing.executors import ProcessExecutorContract

ray = pytest.importorskip("ray", reason="Ray is not installed (the extra ray)")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module", autouse=True)
def cluster():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    started = {"num_cpus": 3, "object_store_memory": 100 << 20, "include_dashboard": False}
    ray.init(**started, runtime_env={"py_modules": shipped()}, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


class TestRayExecutor(ProcessExecutorContract):
    timeout = 300.0

    @classmethod
    def make(cls, work, num_workers):
        return RayExecutor(work, num_workers)


def test_limits_hold_on_ray(tmp_path):
    with RayExecutor(partial(misbehave, tmp_path), 1, time_limit=0.05) as executor:
        hangs, prints, crashes, answers = (
            executor.submit([Job(kind)], lambda *_: None)[0] for kind in ("hangs", "prints", "segmentation fault", "answers")
        )
        with pytest.raises(JobError, match=r"it has not ended within 0.05 minutes, its time limit"):
            hangs.result(300)
        assert prints.result(300)
        with pytest.raises(WorkerDiedError, match="SIGSEGV in forward"):
            crashes.result(300)
        assert answers.result(300)
