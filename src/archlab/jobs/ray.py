"""Runs jobs on a Ray cluster: each slot is an actor on some node, which hosts a local executor with one worker."""

import os
import pickle
import queue
import signal
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from typing_extensions import override

from archlab.errors import ArchlabError
from archlab.jobs.executor import J, P, R, Work, WorkerDiedError
from archlab.jobs.local import LocalExecutor
from archlab.jobs.slots import Group, SlotExecutor, Worker
from archlab.machine import Device, available_cores
from archlab.sources import imported, without_output
from archlab.store.provenance import environment


class RayExecutor(SlotExecutor[J, P, R]):
    """One worker a CPU of the cluster, or one a GPU; more workers than GPUs share them. Workers wait until a node has room.

    A worker is the process that :class:`archlab.jobs.local.LocalExecutor` starts, on the actor's node: the same bits on the
    same kind of CPU. The nodes need archlab's dependencies in the driver's versions; its code, and the files of layers and
    tasks, are shipped. A node that is lost is a worker that died.
    """

    def __init__(
        self,
        work: Work[J, P, R],
        num_workers: int | None = None,
        *,
        device: Device = "cpu",
        time_limit: float | None = None,
        address: str | None = None,
    ) -> None:
        """Connect to the cluster at an address as ``ray.init`` takes it, by default that of ``RAY_ADDRESS``, else start Ray here.

        Refuses where Ray is not installed or cannot be reached, and ``"cuda"`` where the cluster has no GPU.
        """
        self._ray = _connected(address)
        resources = self._ray.cluster_resources()
        units = int(resources.get("GPU" if device == "cuda" else "CPU", 0))
        if num_workers is not None and num_workers < 1:
            raise ArchlabError(f"workers={num_workers}: must be at least 1")
        if device == "cuda" and not units:
            raise ArchlabError("device='cuda': the Ray cluster has no GPU: choose device='cpu'")
        super().__init__(num_workers or max(units, 1))
        self._largest = max((node["Resources"].get("memory", 0.0) for node in self._ray.nodes() if node["Alive"]), default=0.0)
        self._gpus = min(1.0, units / self.num_workers) if device == "cuda" else 0.0
        self._work, self._device, self._time_limit = pickle.dumps(work), device, time_limit

    @override
    def start(self, slot: int, origin: str) -> Worker[J, P, R]:
        if self.memory and self.memory > self._largest:
            needed, free = self.memory / 2**30, self._largest / 2**30
            raise ArchlabError(f"a worker needs {needed:.1f} GiB, no node of the Ray cluster has more than {free:.1f}")
        options = {"num_cpus": 1, "num_gpus": self._gpus, "max_concurrency": 2, "max_restarts": 0}
        if self.memory:
            options["memory"] = self.memory
        arguments = (self._work, self._device, self._time_limit, self.memory or 0)
        actor = self._ray.remote(_Host).options(**options).remote(*arguments)
        return _Actor(self._ray, actor, origin)


class _Host:
    """The actor: a local executor with one worker on the node of a slot."""

    def __init__(self, work: bytes, device: Device, time_limit: float | None, memory: int) -> None:
        for name in ("OMP_NUM_THREADS", "ARCHLAB_WORKER"):  # Ray's own choice for its workers
            os.environ.pop(name, None)
        self.device = device
        self.executor: LocalExecutor[Any, Any, Any] = LocalExecutor(
            pickle.loads(work), 1, device=device, time_limit=time_limit, share=1 / available_cores(), memory=memory
        )
        self.futures: list[Future[Any]] = []

    def run(self, request: bytes) -> Iterator[tuple[str, Any]]:
        """Progress and results of a group of jobs as they come, each with the index of its job."""
        jobs, thresholds = without_output(partial(pickle.loads, request))
        yield "environment", environment(self.device)
        messages: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        index = {id(job): number for number, job in enumerate(jobs)}
        self.futures = futures = self.executor.submit(
            jobs, lambda job, progress: messages.put(("progress", (index[id(job)], progress))), thresholds
        )
        for number, future in enumerate(futures):
            future.add_done_callback(partial(_put, messages, number))
        left = len(futures)
        while left:
            kind, (number, value) = messages.get()
            if kind == "progress":
                yield kind, (number, value)
                continue
            left -= 1
            if not value.cancelled():
                error = value.exception()
                yield ("result", (number, value.result())) if error is None else ("raised", (number, error))

    def stop(self, number: int) -> None:
        """End one of the jobs that run."""
        self.executor.stop(self.futures[number])

    def terminate(self, grace: float) -> None:
        """Ask the running job to end."""
        self.executor.shutdown(grace)


def _put(messages: "queue.SimpleQueue[tuple[str, Any]]", number: int, future: Future[Any]) -> None:
    messages.put(("ended", (number, future)))


class _Actor(Worker[J, P, R]):
    """The driver's end of an actor."""

    def __init__(self, ray: Any, actor: Any, origin: str) -> None:
        self._ray, self._actor, self.origin = ray, actor, origin
        self._dead = ""

    @override
    def run(self, group: Group[J, P, R]) -> None:
        left = [number for number, future in enumerate(group.futures) if not future.done()]
        request = pickle.dumps(([group.jobs[number] for number in left], [dict(group.thresholds[number]) for number in left]))
        where: dict[str, Any] = {}
        told: set[int] = set()
        done = False
        try:
            for reference in self._actor.run.options(num_returns="streaming").remote(request):
                kind, value = self._ray.get(reference)
                stopped = {number for number, index in enumerate(left) if group.futures[index].cancelled()} - told
                for number in stopped:
                    self._actor.stop.remote(number)
                told |= stopped
                if kind == "environment":
                    where = value
                    continue
                job, future = group.jobs[left[value[0]]], group.futures[left[value[0]]]
                if kind == "progress":
                    group.on_progress(job, value[1])
                elif not future.done() and future.set_running_or_notify_cancel():
                    vars(future)["environment"] = where
                    if kind == "result":
                        future.set_result(value[1])
                    else:
                        future.set_exception(value[1])
            done = True
        except self._ray.exceptions.RayActorError as error:
            self._dead = f"was lost with its node or actor ({' '.join(str(error).split())[:200]})"
            raise EOFError from error
        except self._ray.exceptions.RayTaskError as error:
            raise WorkerDiedError(f"the worker's host refused the job: {' '.join(str(error.cause).split())}", "") from error
        finally:
            if not done:
                self.kill()
        if not group.is_over():  # what runs there was asked to end
            raise CancelledError

    @override
    def is_alive(self) -> bool:
        return not self._dead

    @override
    def cause_of_death(self) -> tuple[str, str]:
        return self._dead, ""

    @override
    def terminate(self) -> None:
        self._actor.terminate.remote(3600.0)  # whoever asks kills it after a grace of its own

    @override
    def kill(self) -> None:
        self._dead = self._dead or "was killed"
        with suppress(Exception):  # Ray has been shut down, by its own signal handler or at the end of the program
            self._ray.kill(self._actor)

    @override
    def close(self) -> None:
        pass


def _connected(address: str | None) -> Any:
    """Ray, connected to a cluster; an ArchlabError says why not."""
    try:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ray
    except ModuleNotFoundError:
        raise ArchlabError(
            "executor='ray': Ray is not installed: install archlab with the extra ray, or `pip install ray`"
        ) from None
    if not ray.is_initialized():
        handler = signal.getsignal(signal.SIGTERM)
        options = {"include_dashboard": False} if address is None and "RAY_ADDRESS" not in os.environ else {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ray.init(address, runtime_env={"py_modules": shipped()}, log_to_driver=False, logging_level="ERROR", **options)
        except Exception as error:
            line = " ".join(str(error).split())[:300]
            raise ArchlabError(f"executor='ray': no Ray cluster can be reached at {address or 'RAY_ADDRESS'}: {line}") from None
        finally:
            with suppress(ValueError):  # only the main thread may: then Ray has not changed it either
                signal.signal(signal.SIGTERM, handler)
    return ray


def shipped() -> list[str]:
    """The folders and files that nodes need: archlab, and what was imported by --layers and --tasks-file."""
    places = {str(Path(__file__).parents[1])}
    for name in imported:
        top = sys.modules[name.partition(".")[0]]
        file = Path(str(top.__file__))
        places.add(str(file.parent if file.name == "__init__.py" else file))
    return sorted(places)
