"""Batches are read ahead, and each process reads its own rows only."""

import threading

import numpy as np
import pytest
import torch
from tests.scaling.language_models import tiny_corpus, tiny_run

from archlab.corpora import Corpus
from archlab.scaling.loader import Loader
from archlab.scaling.processes import Processes


@pytest.fixture
def read(monkeypatch):
    """The number of sequences that were read at a time."""
    numbers, sequences = [], Corpus._sequences

    def noted(self, split, which, length):
        numbers.append(len(which))
        return sequences(self, split, which, length)

    monkeypatch.setattr(Corpus, "_sequences", noted)
    return numbers


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(("size", "most"), [(1, 0), (2, 0), (4, 1), (8, 0)])
def test_all_processes_read_the_batch_and_each_its_rows_only(tmp_path, read, size, most, device):
    corpus = tiny_corpus(tmp_path)
    run = tiny_run(corpus, batch_size=6, steps=1)
    found = []
    for rank in range(size):
        with Loader.open(corpus, run, Processes(torch.device(device), rank, size), most) as loader:
            found += loader.pieces(1)
    assert sum(read) == 6 + sum(weight == 0 for _, weight in found)  # pieces that keep all in step
    counted = torch.cat([piece for piece, weight in found if weight])
    assert np.array_equal(counted, corpus.batch(0, 6, run.length, run.seed))
    assert sum(weight for _, weight in found) == pytest.approx(1)


def test_the_next_batch_is_read_while_a_gpu_computes_and_none_beyond_the_last(tmp_path, monkeypatch):
    corpus, read, batch = tiny_corpus(tmp_path), [], Corpus.batch
    second = threading.Event()

    def noted(self, step, *rest):
        read.append((step, threading.current_thread() is threading.main_thread()))
        if step == 1:
            second.set()
        return batch(self, step, *rest)

    monkeypatch.setattr(Corpus, "batch", noted)
    run = tiny_run(corpus, batch_size=6, steps=3)
    with Loader.open(corpus, run, Processes(torch.device("cuda")), 0) as loader:
        loader.pieces(1)
        assert second.wait(60)
        pieces = [loader.pieces(step) for step in (2, 3)]
    assert read == [(0, True), (1, False), (2, False)]
    for step, ((rows, _),) in zip((1, 2), pieces, strict=True):
        assert np.array_equal(rows, batch(corpus, step, 6, run.length, run.seed))


def test_a_run_that_goes_on_begins_anywhere(tmp_path):
    corpus = tiny_corpus(tmp_path)
    run = tiny_run(corpus, batch_size=6, steps=9)
    with Loader.open(corpus, run, Processes(torch.device("cpu")), 0) as loader:
        ((rows, _),) = loader.pieces(8)
    assert np.array_equal(rows, corpus.batch(7, 6, run.length, run.seed))
