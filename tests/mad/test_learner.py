"""The data of a trial: that of its setting and seed, drawn once."""

import torch
from tests.mad.trials import COPYING, RECALL

from archlab.mad import learner
from archlab.mad.learner import Examples, split_tensors
from archlab.tasks import IGNORE, sample


def test_tensors_are_what_the_task_draws_and_are_drawn_once(monkeypatch):
    split_tensors.cache_clear()
    draws = []
    monkeypatch.setattr(learner, "sample", lambda *what: draws.append(what) or sample(*what))
    for _ in range(2):
        for split in ("train", "validation", "test"):
            found = split_tensors(COPYING, split, 8, 3, "cpu")
            for tensor, array in zip(found, sample(COPYING, split, 8, 3), strict=True):
                assert torch.equal(tensor, torch.from_numpy(array))
    assert len(draws) == 3
    split_tensors(RECALL, "train", 8, 3, "cpu")
    split_tensors(COPYING, "train", 8, 4, "cpu")
    assert len(draws) == 5


def test_short_rows_are_padded_with_labels_that_no_loss_counts():
    inputs = torch.arange(8).reshape(2, 4)
    targets = torch.tensor([[IGNORE, 5, IGNORE, 7], [IGNORE, IGNORE, 0, IGNORE]])
    examples = Examples.of(inputs, targets)
    assert examples.labels.tolist() == [[5, 7], [0, IGNORE]]
    assert examples.positions.tolist()[0] == [1, 3]
    assert examples.positions.tolist()[1][0] == 2
    wider = examples.padded(4)
    assert wider.labels.tolist() == [[5, 7, IGNORE, IGNORE], [0, IGNORE, IGNORE, IGNORE]]
    assert wider.positions.shape == (2, 4)
    assert wider.positions.max() < 4
    assert torch.equal(wider.inputs, inputs)
    logits = torch.randn(2, 4, 11, generator=torch.Generator().manual_seed(0))
    losses = [torch.nn.functional.cross_entropy(logits[:, : x.labels.shape[1]].flatten(0, 1), x.labels.flatten(), reduction="sum")
              for x in (examples, wider)]  # fmt: skip
    assert torch.equal(*losses)


def test_rows_are_taken_with_their_answers():
    examples = Examples.of(torch.arange(8).reshape(2, 4), torch.tensor([[1, IGNORE, IGNORE, 2], [IGNORE, 3, 4, IGNORE]]))
    taken = examples.take(torch.tensor([1]))
    assert [x.tolist() for x in taken] == [[[4, 5, 6, 7]], [[1, 2]], [[3, 4]]]
