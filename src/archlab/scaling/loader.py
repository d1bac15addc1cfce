"""The batches of a training run: each process reads its own rows only, and beside a GPU ahead of time."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor

from archlab.corpora import Corpus
from archlab.scaling.processes import Processes
from archlab.scaling.training_plan import LMRun

Pieces = list[tuple[Tensor, float]]
"""A process's part of a batch: ``(sequences, length + 1)`` tokens that it computes at once, with their weights."""


class Loader:
    """Reads a batch on a thread of its own while a GPU computes the step before; a CPU has no time to spare meanwhile."""

    def __init__(self, corpus: Corpus, run: LMRun, processes: Processes, micro_batch: int, thread: ThreadPoolExecutor) -> None:
        self._corpus, self._run, self._thread = corpus, run, thread
        self._last_ahead = 0 if processes.device.type == "cpu" else run.steps
        self._shares = list(processes.shares(torch.arange(run.batch_size), micro_batch))
        self._ahead: tuple[int, Future[Pieces]] | None = None

    @classmethod
    @contextmanager
    def open(cls, corpus: Corpus, run: LMRun, processes: Processes, micro_batch: int) -> Iterator["Loader"]:
        """A loader, whose thread ends with the context."""
        with ThreadPoolExecutor(1, thread_name_prefix="archlab-loader") as thread:
            yield cls(corpus, run, processes, micro_batch, thread)

    def pieces(self, step: int) -> Pieces:
        """This process's part of the batch of a step (from 1)."""
        pieces = self._ahead[1].result() if self._ahead is not None and self._ahead[0] == step else self._read(step)
        self._ahead = (step + 1, self._thread.submit(self._read, step + 1)) if step < self._last_ahead else None
        return pieces

    def _read(self, step: int) -> Pieces:
        run = self._run
        where = (step - 1, run.batch_size, run.length, run.seed)
        return [(torch.from_numpy(self._corpus.batch(*where, rows.numpy())), weight) for rows, weight in self._shares]
