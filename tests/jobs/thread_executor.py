"""A worked example of an executor: threads. One file, and one line in :data:`archlab.jobs.executor.EXECUTORS`."""

import traceback
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Self

from archlab.errors import in_one_line
from archlab.jobs.executor import JobError


class ThreadExecutor:
    """An executor without processes. A job that has begun goes on in its thread even if nobody waits for it any more."""

    def __init__(self, work, num_workers: int | None = None, *, device: str = "cpu") -> None:
        self.work, self.num_workers = work, num_workers or 2
        self.threads = ThreadPoolExecutor(self.num_workers)
        self.futures: set[Future] = set()

    def submit(self, jobs, on_progress, thresholds=None) -> list[Future]:
        futures = [Future() for _ in jobs]
        self.futures.update(futures)
        begun = self.threads.submit(self._run, jobs, on_progress, thresholds or [{}] * len(jobs), futures)
        begun.add_done_callback(lambda run: run.cancelled() and [future.cancel() for future in futures])
        return futures

    def stop(self, future) -> None:
        future.cancel()

    def _run(self, jobs, on_progress, thresholds, futures) -> None:
        left = [index for index, future in enumerate(futures) if not future.done()]
        raised = []

        def tell(index, progress):
            try:
                on_progress(jobs[left[index]], progress)
            except Exception as error:
                raised.append(error)
                raise

        try:
            for index, result in self.work([jobs[i] for i in left], tell, [thresholds[i] for i in left]):
                future = futures[left[index]]
                if not future.done() and future.set_running_or_notify_cancel():
                    future.set_result(result)
                if all(future.done() for future in futures):
                    return
        except Exception as error:
            reason = error if error in raised else JobError(in_one_line(error), traceback.format_exc())
            for future in futures:
                if not future.done() and future.set_running_or_notify_cancel():
                    future.set_exception(reason)

    def shutdown(self, grace: float = 0.0) -> None:
        self.threads.shutdown(wait=False, cancel_futures=True)
        wait([future for future in self.futures if not future.done()], grace)
        for future in self.futures:
            future.cancel()
        self.threads.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.shutdown()
