"""The parts of a trial's processor time, by a clock that counts how often it is read."""

from itertools import count, groupby

import pytest
from tests.mad.trials import trial

from archlab.mad import profile as module
from archlab.mad.profile import PARTS, Stopwatch, part_seconds, profile_trials
from archlab.tasks import setting

COMPRESSION = setting("compression", length=8, num_train_examples=32)


@pytest.fixture
def ticks(monkeypatch):
    """Every reading of the clock is a second after the one before."""
    readings = count()
    monkeypatch.setattr(module.time, "process_time", lambda: float(next(readings)))


@pytest.fixture
def started(monkeypatch):
    """The parts in the order in which they are started."""
    found: list[str] = []

    class Recording(Stopwatch):
        def start(self, part):
            found.append(part)
            super().start(part)

    monkeypatch.setattr(module, "Stopwatch", Recording)
    return found


def test_a_step_goes_through_the_layers_and_back(started):
    part_seconds(trial("mh-attention(heads=2) swiglu", COMPRESSION))
    last = len(started) - 1 - started[::-1].index("data")
    step = started[last : started.index("evaluation", last)]
    forward = ["embeddings", "norms", "sequence mixers", "norms", "channel mixers", "embeddings", "norms", "embeddings"]
    passed = [part for part, _ in groupby(part for part in step if part != "rest")]
    assert passed == ["data", *forward, "loss", *forward[::-1], "optimiser"]


def test_steps_and_evaluations_are_extended_to_the_whole_trial(ticks):
    short, long = (part_seconds(trial(steps=steps, evaluations=evaluations)) for steps, evaluations in ((5, 4), (10, 9)))
    for part in ("sequence mixers", "channel mixers", "norms", "embeddings", "loss", "optimiser", "evaluation"):
        assert long[part] == pytest.approx(2 * short[part]), part
    assert short["data"] < long["data"] < 2 * short["data"]  # drawn once


def test_no_time_is_lost_or_counted_twice(ticks):
    watch = Stopwatch()
    watch.start("loss")
    watch.start("norms")
    watch.stop("loss")
    watch.stop("norms")
    assert {part: own for part, own in watch.read().items() if own} == {"rest": 2, "loss": 1, "norms": 1}
    watch.start("data")
    assert sum(watch.read().values()) == 2


@pytest.mark.parametrize("task", [COMPRESSION, setting("memorization", vocab_size=16, length=8)])
def test_every_part_takes_a_share(task):
    found = profile_trials("mine", "both", [trial("hyena swiglu", task)])
    assert (found.protocol, found.architecture, tuple(found.fractions)) == ("mine", "both", PARTS)
    assert min(found.fractions.values()) > 0
    assert sum(found.fractions.values()) == pytest.approx(1)
