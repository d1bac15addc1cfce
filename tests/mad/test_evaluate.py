import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from archlab.mad.evaluate import BATCH, evaluate, macro_accuracy
from archlab.mad.recipe import Recipe
from archlab.tasks import IGNORE


class Fixed(torch.nn.Module):
    """Answers each sequence with the logits that stand for its first token, at every position alike."""

    def __init__(self, logits_by_id):
        super().__init__()
        self.logits_by_id = logits_by_id

    def features(self, ids_bl):
        return ids_bl[..., None]

    def logits(self, features):
        return self.logits_by_id[features[..., 0]]


@pytest.fixture(name="case")
def fixture_case():
    """300 sequences over 7 classes, of which one is never a target; each sequence has 1 to 5 answers."""
    rng = np.random.default_rng(0)
    inputs = torch.from_numpy(rng.integers(7, size=(300, 5)))
    targets = torch.from_numpy(rng.integers(6, size=(300, 5)))
    answered = torch.from_numpy(rng.random((300, 5)) < 0.6)
    answered[:, -1] = True
    targets[~answered] = IGNORE
    torch.manual_seed(0)
    logits_by_id = torch.randn(7, 7)
    return Fixed(logits_by_id), inputs, targets


def reference_macro(predicted, labels, num_classes):
    """Class by class: the share of its answers that are right; 0 if it was only predicted; left out if neither."""
    recalls = []
    for c in range(num_classes):
        of_class = [p for p, label in zip(predicted, labels, strict=True) if label == c]
        if of_class:
            recalls.append(sum(p == c for p in of_class) / len(of_class))
        elif c in predicted:
            recalls.append(0.0)
    return sum(recalls) / len(recalls)


@pytest.mark.parametrize(
    ("predicted", "labels", "expected"),
    [
        ([0, 0, 1, 1], [0, 0, 1, 1], 1.0),
        ([0, 0, 0, 1], [0, 0, 1, 1], 0.75),
        ([0, 0, 0, 0], [0, 0, 0, 1], 0.5),  # three of four tokens right, but one of two classes
        ([0, 2], [0, 1], 1 / 3),  # class 2, predicted though absent, counts 0
        ([5], [5], 1.0),
        ([4], [5], 0.0),
    ],
)
def test_macro_accuracy_by_hand(predicted, labels, expected):
    assert macro_accuracy(torch.tensor(predicted), torch.tensor(labels), 6) == pytest.approx(expected)
    assert reference_macro(predicted, labels, 6) == pytest.approx(expected)


def test_macro_accuracy_at_random():
    rng = np.random.default_rng(0)
    for _ in range(50):
        n, classes = rng.integers(1, 40), rng.integers(1, 12)
        predicted, labels = rng.integers(classes, size=(2, n))
        found = macro_accuracy(torch.from_numpy(predicted), torch.from_numpy(labels), int(classes))
        assert found == pytest.approx(reference_macro(predicted.tolist(), labels.tolist(), classes))


def test_metrics_are_those_of_all_answers(case):
    model, inputs, targets = case
    found = evaluate(model, inputs, targets, Recipe()).metrics
    logits = model.logits(model.features(inputs))
    answered = targets != IGNORE
    assert found.accuracy == pytest.approx((logits.argmax(-1) == targets)[answered].double().mean().item())
    assert found.loss == pytest.approx(F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE).item())
    macros, sizes = [], []
    for start in range(0, 300, BATCH):
        part = answered[start : start + BATCH]
        predicted = logits.argmax(-1)[start : start + BATCH][part].tolist()
        macros.append(reference_macro(predicted, targets[start : start + BATCH][part].tolist(), 7))
        sizes.append(len(part))
    assert found.macro_accuracy == pytest.approx(np.average(macros, weights=sizes))


@pytest.mark.parametrize(("metric", "units"), [("accuracy", 300), ("macro-accuracy", 3)])
def test_the_units_add_up_to_the_score(case, metric, units):
    model, inputs, targets = case
    found = evaluate(model, inputs, targets, Recipe(metric=metric))
    expected = found.metrics.accuracy if metric == "accuracy" else found.metrics.macro_accuracy
    assert found.numerators.shape == found.denominators.shape == (units,)
    assert found.numerators.sum() / found.denominators.sum() == pytest.approx(expected, abs=1e-6)
    assert found.score == pytest.approx(expected, abs=1e-6)
    assert found.numerators.dtype == found.denominators.dtype == np.float32


def test_perplexity_is_averaged_over_batches_of_the_reference_code(case):
    model, inputs, targets = case
    batches = [slice(start, start + BATCH) for start in range(0, 300, BATCH)]
    one_by_one = [math.exp(evaluate(model, inputs[rows], targets[rows], Recipe()).metrics.loss) for rows in batches]
    expected = np.average(one_by_one, weights=[len(inputs[rows]) for rows in batches])
    assert math.exp(evaluate(model, inputs, targets, Recipe()).log_perplexity) == pytest.approx(expected)


def test_the_recipes_precision_is_that_of_the_evaluation(case):
    _, inputs, targets = case
    torch.manual_seed(0)
    model = torch.nn.Linear(7, 7)
    model.features = lambda ids: F.one_hot(ids, 7).float()
    model.logits = model.__call__
    seen = [evaluate(model, inputs, targets, Recipe(precision=precision)).metrics.loss for precision in ("fp32", "bf16")]
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(F.one_hot(inputs, 7).float()).float()
    assert logits.eq(logits.bfloat16()).all()
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE).item()
    assert seen[1] == pytest.approx(expected, rel=1e-6)
    assert seen[0] != pytest.approx(expected, rel=1e-6)


def test_the_host_reads_nothing_of_the_device_before_all_batches_are_under_way(case, monkeypatch):
    model, inputs, targets = case
    log = []

    class Log(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            log.append(operation._schema.name)
            return operation(*args, **(kwargs or {}))

    logits = Fixed.logits
    monkeypatch.setattr(Fixed, "logits", lambda self, features: (log.append("batch"), logits(self, features))[1])
    with Log():
        evaluate(model, inputs, targets, Recipe())
    first, last = log.index("batch"), len(log) - log[::-1].index("batch")
    assert log.count("batch") == 3
    assert "aten::_local_scalar_dense" in log[last:]
    assert not {"aten::_local_scalar_dense", "aten::equal", "aten::is_nonzero", "aten::bincount"} & {*log[first:last]}


def test_a_sequence_is_a_unit(case):
    model, inputs, targets = case
    found = evaluate(model, inputs, targets, Recipe())
    predicted = model.logits(model.features(inputs)).argmax(-1)
    for i in (0, 127, 128, 299):
        answered = targets[i] != IGNORE
        assert found.denominators[i] == answered.sum()
        assert found.numerators[i] == (predicted[i] == targets[i])[answered].sum()


def test_evaluation_leaves_the_model_in_training_mode_without_gradients(case):
    model, inputs, targets = case
    model.logits_by_id.requires_grad_()
    model.train()
    evaluate(model, inputs, targets, Recipe())
    assert model.training
    assert model.logits_by_id.grad is None


def test_the_loss_of_huge_logits_is_huge_but_the_perplexity_finite(case):
    model, inputs, targets = case
    model.logits_by_id.mul_(1e6)
    found = evaluate(model, inputs, targets, Recipe())
    assert found.metrics.loss > 1e5
    assert math.isfinite(found.metrics.loss)
    assert math.isfinite(found.log_perplexity)
