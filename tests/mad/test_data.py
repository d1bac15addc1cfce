"""The data of a trial: that of its setting and seed, drawn once."""

import torch
from tests.mad.trials import COPYING, RECALL

from archlab.mad import data
from archlab.mad.data import split_tensors
from archlab.tasks import sample


def test_tensors_are_what_the_task_draws_and_are_drawn_once(monkeypatch):
    split_tensors.cache_clear()
    draws = []
    monkeypatch.setattr(data, "sample", lambda *what: draws.append(what) or sample(*what))
    for _ in range(2):
        for split in ("train", "validation", "test"):
            found = split_tensors(COPYING, split, 8, 3, "cpu")
            for tensor, array in zip(found, sample(COPYING, split, 8, 3), strict=True):
                assert torch.equal(tensor, torch.from_numpy(array))
    assert len(draws) == 3
    split_tensors(RECALL, "train", 8, 3, "cpu")
    split_tensors(COPYING, "train", 8, 4, "cpu")
    assert len(draws) == 5
