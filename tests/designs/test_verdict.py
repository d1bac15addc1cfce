"""The verdict says no more than an interval allows."""

from math import inf

import numpy as np
import pytest

from archlab.designs.verdict import UNKNOWN, Quantity, Region, over_seeds, together

EXPERIMENTS = 2000
MARGIN = 1.0
SEQUENCES = 256
RNG = np.random.default_rng


def scores(kind: str, rate: float, seeds: int, rng: np.random.Generator) -> np.ndarray:
    """Scores in points of many experiments, over the seeds and the test sequences of each: (experiments, seeds)."""
    spread = {
        "normal": lambda: rate + 0.05 * rng.standard_normal((EXPERIMENTS, seeds)),
        "solved or not": lambda: np.where(rng.random((EXPERIMENTS, seeds)) < rate, 0.98, 0.1),
        "skewed": lambda: 1 - (1 - rate) * rng.exponential(size=(EXPERIMENTS, seeds)),
    }[kind]()
    return 100 * rng.binomial(SEQUENCES, np.clip(spread, 0, 1)) / SEQUENCES


def said(differences: np.ndarray, verdict: str) -> float:
    return float(np.mean([over_seeds("", row.tolist(), Region(MARGIN)).verdict == verdict for row in differences]))


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("kind", ["normal", "solved or not", "skewed"])
def test_without_an_effect_supported_is_said_in_at_most_5_percent(kind: str, seeds: int):
    rng = RNG(seeds)
    assert said(scores(kind, 0.5, seeds, rng) - scores(kind, 0.5, seeds, rng), "supported") <= 0.05


@pytest.mark.parametrize("seeds", [3, 5])
def test_at_the_margin_both_verdicts_are_as_rare(seeds: int):
    differences = MARGIN + RNG(0).standard_normal((EXPERIMENTS, seeds))
    for verdict in ("supported", "not supported"):
        assert said(differences, verdict) == pytest.approx(0.025, abs=0.01)


def test_with_an_effect_beyond_the_margin_not_supported_is_rare_and_a_clear_effect_is_seen():
    differences = RNG(0).standard_normal((EXPERIMENTS, 4))
    assert said(differences + 2 * MARGIN, "not supported") <= 0.025
    assert said(differences + 10 * MARGIN, "supported") > 0.95


def test_several_quantities_make_supported_no_more_frequent():
    rng = RNG(1)
    pairs = rng.standard_normal((EXPERIMENTS, 2, 3))
    verdicts = [together(over_seeds("", values.tolist(), Region(0.0)).verdict for values in pair) for pair in pairs]
    assert np.mean([verdict == "supported" for verdict in verdicts]) <= 0.025


def test_the_interval_is_students():
    found = over_seeds("difference", [1.0, 2.0, 3.0], Region(0.0), unit="points")
    assert (found.value, found.by_seed) == (2.0, (1.0, 2.0, 3.0))
    assert found.low == pytest.approx(2 - 4.302653 / 3**0.5)
    assert found.high == pytest.approx(2 + 4.302653 / 3**0.5)


@pytest.mark.parametrize(
    ("above", "below", "verdict"),
    [
        (1.5, inf, "supported"),
        (2.5, inf, UNKNOWN),
        (3.5, inf, "not supported"),
        (-inf, 3.5, "supported"),
        (-inf, 1.5, "not supported"),
        (1.5, 3.5, "supported"),
        (1.5, 2.5, UNKNOWN),
        (4.0, 5.0, "not supported"),
    ],
)
def test_the_whole_interval_must_lie_in_the_region_or_outside(above: float, below: float, verdict: str):
    assert Quantity(name="", unit="", value=2.5, low=2.0, high=3.0, region=Region(above, below)).verdict == verdict


def test_two_seeds_a_doubt_or_nothing_measured_give_no_verdict():
    two = over_seeds("", [10.0, 10.1], Region(0.0))
    assert two.low is not None
    assert (two.verdict, two.doubt) == (UNKNOWN, "2 of at least 3 seeds")
    assert over_seeds("", [10.0, 10.1, 10.2], Region(0.0), doubt="both solve the task").verdict == UNKNOWN
    nothing = over_seeds("", [], Region(0.0))
    assert (nothing.value, nothing.verdict, nothing.doubt) == (None, UNKNOWN, "nothing could be measured")


def test_one_part_that_is_not_supported_decides():
    assert together(["supported", "supported"]) == "supported"
    assert together(["supported", UNKNOWN]) == UNKNOWN
    assert together(["supported", UNKNOWN, "not supported"]) == "not supported"
