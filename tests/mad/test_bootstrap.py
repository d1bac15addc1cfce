"""Bootstrap samples, exact where they can be worked out on paper."""

import numpy as np
import pytest

from archlab.mad.bootstrap import Units, percentile_interval, resampled_means


def even(score: float, num_units: int = 4) -> Units:
    """A seed whose test units all score alike: resampling them changes nothing."""
    denominators = np.full(num_units, 4, dtype=np.float32)
    return Units(np.float32(score) * denominators, denominators)


def samples_of(*cells: list[Units], resamples: int = 4000, seed: int = 0, stream: str = "a task") -> np.ndarray:
    return resampled_means(cells, resamples=resamples, seed=seed, stream=stream)


def test_two_seeds_give_three_values_as_far_apart_as_the_widening_says():
    """The mean of two draws from {0.4, 0.6} is 0.4, 0.5 or 0.6; sqrt(S / (S - 1)) is sqrt(2)."""
    (samples,) = samples_of([even(0.4), even(0.6)])
    values, counts = np.unique(samples.round(6), return_counts=True)
    assert values == pytest.approx([0.5 - 0.1 * np.sqrt(2), 0.5, 0.5 + 0.1 * np.sqrt(2)], abs=1e-6)
    assert counts / 4000 == pytest.approx([1 / 4, 1 / 2, 1 / 4], abs=0.03)


@pytest.mark.parametrize("scores", [(0.4, 0.6), (0.45, 0.5, 0.6), (0.5, 0.52, 0.54, 0.56, 0.7)])
def test_the_variance_is_that_of_a_mean_without_bias(scores: tuple[float, ...]):
    (samples,) = samples_of([even(score) for score in scores], resamples=100_000)
    assert samples.mean() == pytest.approx(np.mean(scores), abs=1e-3)
    assert samples.var() == pytest.approx(np.var(scores, ddof=1) / len(scores), rel=0.03)


def test_one_seed_varies_by_its_test_units_alone():
    units = Units(np.array([0, 1, 2, 4], dtype=np.float32), np.full(4, 4, dtype=np.float32))
    (samples,) = samples_of([units], resamples=100_000)
    assert np.allclose(samples * 16, (samples * 16).round()), "four units of four answers each are drawn"
    assert samples.mean() == pytest.approx(units.score, abs=2e-3)
    assert samples.var() == pytest.approx(np.var(units.numerators / 4) / 4, rel=0.03)


def test_seeds_and_units_vary_together():
    """Each seed's units add their variance over S, whichever seeds are drawn."""
    seeds = [
        Units(np.array([a, b] * 50, dtype=np.float32), np.full(100, 4, dtype=np.float32)) for a, b in ((1, 2), (2, 4), (0, 3))
    ]
    (samples,) = samples_of(seeds, resamples=100_000)
    between = np.var([units.score for units in seeds], ddof=1) / 3
    within = np.mean([np.var(units.numerators / 4) / 100 for units in seeds]) / 3
    assert samples.var() == pytest.approx(between + within, rel=0.03)


def test_the_units_of_every_drawn_seed_are_resampled():
    """Three seeds of one score: what is left is the variance of the units of all three draws."""
    answers = np.full(100, 4, dtype=np.float32)
    seeds = [Units(np.array(pair * 50, dtype=np.float32), answers) for pair in ([1, 3], [0, 4], [2, 2])]
    (samples,) = samples_of(seeds, resamples=30_000)
    assert samples.mean() == pytest.approx(0.5, abs=1e-3)
    assert samples.var() == pytest.approx(np.mean([np.var(units.numerators / 4) / 100 for units in seeds]) / 3, rel=0.05)


def test_the_score_of_units_is_answers_over_answers_not_a_mean_of_means():
    units = Units(np.array([1, 4], dtype=np.float32), np.array([1, 8], dtype=np.float32))
    assert units.score == pytest.approx(5 / 9)
    (samples,) = samples_of([units])
    assert sorted(set(samples.round(6))) == pytest.approx([0.5, 5 / 9, 1.0], abs=1e-6)


def test_samples_are_cut_to_what_a_score_can_be():
    (samples,) = samples_of([even(0.0), even(1.0)])
    assert sorted(set(samples.round(6))) == [0.0, 0.5, 1.0]
    skewed = samples_of([even(0.0), even(0.0), even(1.0)], resamples=20_000)[0]
    assert np.mean(skewed == 0.0) == pytest.approx(8 / 27, abs=0.02), "all three draws from the two that score nothing"


def test_a_resample_without_an_answer_gives_the_score_itself():
    units = Units(np.array([1, 0], dtype=np.float32), np.array([4, 0], dtype=np.float32))
    (samples,) = samples_of([units], resamples=200)
    assert samples == pytest.approx(np.full(200, 0.25))


def test_a_resample_with_a_single_answer_counts():
    units = Units(np.array([1, 0, 0], dtype=np.float32), np.array([1, 1, 0], dtype=np.float32))
    (samples,) = samples_of([units])
    assert sorted(set(samples.round(6))) == pytest.approx([0, 1 / 3, 1 / 2, 2 / 3, 1], abs=1e-6)


def test_answers_may_weigh_less_than_one():
    """Macro accuracy has such denominators."""
    units = Units(np.array([0.1, 0.3], dtype=np.float32), np.array([0.2, 0.4], dtype=np.float32))
    (samples,) = samples_of([units])
    assert sorted(set(samples.round(6))) == pytest.approx([0.5, 2 / 3, 0.75], abs=1e-6)


def test_draws_depend_on_the_seed_and_the_stream_and_on_nothing_else():
    cell = [even(0.4), even(0.5), even(0.6)]
    first = samples_of(cell)
    assert np.array_equal(first, samples_of(cell))
    assert np.array_equal(first[0], samples_of([even(0.1), even(0.2)], cell, [even(0.4)] * 3)[1]), "other cells change nothing"
    assert not np.array_equal(first, samples_of(cell, seed=1))
    assert not np.array_equal(first, samples_of(cell, stream="another task"))


def test_cells_of_one_shape_share_their_draws_and_streams_do_not():
    low, high = [even(0.3), even(0.4)], [even(0.6), even(0.7)]
    a, b = samples_of(low, high)
    assert b - a == pytest.approx(np.full(4000, 0.3), abs=1e-6)
    other = samples_of(low, stream="another task")[0]
    assert abs(np.corrcoef(a, other)[0, 1]) < 0.05


def test_an_interval_holds_the_middle_of_the_samples():
    interval = percentile_interval(np.linspace(0.0, 1.0, 1001), 0.9)
    assert (interval.low, interval.high) == pytest.approx((0.05, 0.95))
