"""Ray keeps the contract of executors whose workers are processes; skipped where it is not installed."""

import os

import pytest

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
