import dataclasses
import json
import re
import time
from importlib.metadata import version

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.synthetic_records import RECIPE, plan, record, result, score, simulate

from archlab.architectures import Architecture
from archlab.architectures.stored import UnavailableLayers
from archlab.errors import ArchlabError
from archlab.mad import scoring
from archlab.mad.architecture_score import SeedScore
from archlab.mad.bootstrap import Units, percentile_interval, resampled_means
from archlab.mad.scoring import score as score_records
from archlab.mad.trial import Kind
from archlab.tasks import setting
from archlab.tasks.stored import stored_setting

SPECS = ["mh-attention swiglu", "swiglu", "mlp"]
RECALL, COMPRESSION = setting("in-context-recall"), setting("compression")


def test_hand_computed_scores() -> None:
    """Two grid points, two seeds, two settings of one task and one of another, worked out on paper."""
    wide = setting("in-context-recall", vocab_size=32)
    trials = plan(["mlp"], [RECALL, wide, COMPRESSION], seeds=(0, 1), learning_rates=(1e-3, 2e-3))
    # (setting, seed, learning rate): score on the selection split, right answers of 4 on two test sequences.
    table = {
        (RECALL, 0, 1e-3): (0.9, [4, 2]),  # chosen: 6/8
        (RECALL, 0, 2e-3): (0.8, [4, 4]),  # better on the test split, but that does not count
        (RECALL, 1, 1e-3): (0.1, [0, 0]),
        (RECALL, 1, 2e-3): (0.7, [2, 2]),  # chosen: 4/8
        (wide, 0, 1e-3): (0.5, [1, 1]),  # chosen: 2/8
        (wide, 0, 2e-3): (0.4, [4, 4]),
        (wide, 1, 1e-3): (0.5, [0, 0]),  # chosen: 0/8
        (wide, 1, 2e-3): (0.4, [4, 4]),
        (COMPRESSION, 0, 1e-3): (1.0, [4, 4]),  # chosen: 1
        (COMPRESSION, 0, 2e-3): (0.0, [0, 0]),
        (COMPRESSION, 1, 1e-3): (1.0, [4, 4]),  # chosen: 1
        (COMPRESSION, 1, 2e-3): (0.0, [0, 0]),
    }
    records = {}
    for trial in trials:
        selected, right = table[trial.setting, trial.seed, trial.learning_rate]
        records[trial.key] = record(trial, result(trial, right, selected=selected))
    scores = score(trials, records)
    (only,) = scores.architectures
    recall, compression = only.tasks
    assert scores.tasks == ("in-context-recall", "compression")
    assert [s.score for s in recall.settings] == [pytest.approx((6 / 8 + 4 / 8) / 2), pytest.approx(1 / 8)]
    assert recall.score == pytest.approx((5 / 8 + 1 / 8) / 2)
    assert compression.score == 1.0
    assert only.score == pytest.approx((3 / 8 + 1) / 2)
    assert [s.learning_rate for s in recall.settings[0].seeds] == [1e-3, 2e-3]
    assert only.complete
    assert scores.interval_over == "seeds and test instances"


def test_ties_go_to_the_lower_selection_loss() -> None:
    trials = plan(["mlp"], [RECALL], seeds=(0,), learning_rates=(1e-3, 2e-3))
    records = {
        t.key: record(t, result(t, right, selected=0.5, loss=loss))
        for t, right, loss in zip(trials, ([0, 0], [4, 4]), (0.9, 0.2), strict=True)
    }
    assert score(trials, records).architectures[0].score == 1.0


def test_the_recipes_metric_selects() -> None:
    recipe = dataclasses.replace(RECIPE, metric="macro-accuracy")
    trials = plan(["mlp"], [RECALL], seeds=(0,), learning_rates=(1e-3, 2e-3), recipe=recipe)
    outcomes = [result(trials[0], [0, 0], selected=0.9), result(trials[1], [4, 4], selected=0.1)]
    swapped = [0.1, 0.9]
    outcomes = [
        dataclasses.replace(o, selected=dataclasses.replace(o.selected, macro_accuracy=m))
        for o, m in zip(outcomes, swapped, strict=True)
    ]
    records = {t.key: record(t, o) for t, o in zip(trials, outcomes, strict=True)}
    assert score(trials, records).architectures[0].score == 1.0


def test_what_is_missing_is_named_and_marked() -> None:
    trials = plan(["mlp", "swiglu"], [RECALL, COMPRESSION], seeds=(0, 1), learning_rates=(1e-3, 2e-3))
    records = simulate(trials, lambda _: 0.6)
    mlp = [t for t in trials if str(t.architecture) == "mlp"]
    failed = next(t for t in mlp if t.setting == RECALL and t.seed == 0)
    records[failed.key] = record(failed, None, status="failed", error="RuntimeError: out of memory\ntraceback")
    for trial in mlp:
        if trial.setting == COMPRESSION:
            del records[trial.key]
    scores = score(trials, records)
    whole, partial = scores.architectures  # partial ones come last whatever their score
    assert (whole.label, partial.label) == ("swiglu", "mlp")
    assert whole.complete
    assert not partial.complete
    assert (partial.num_complete, partial.num_settings) == (0, 2)
    recall, compression = partial.tasks
    assert recall.settings[0].seeds[0].missing == "1 of 2 trials failed (RuntimeError: out of memory)"
    assert recall.score == recall.settings[0].seeds[1].score
    assert compression.score is None
    assert compression.interval is None
    assert partial.score == recall.score
    assert len(partial.gaps) == 3
    assert "mlp: compression, seed 1: 2 of 2 trials not run" in partial.gaps
    json.dumps(scores.to_dict(), allow_nan=False)


def test_a_running_trial_is_missing_and_a_diverged_one_is_chance() -> None:
    trials = plan(["mlp"], [RECALL, COMPRESSION], seeds=(0,))
    diverged = result(trials[0], [1] * 8, answers=8, status="diverged", curve=[(100, 0.3)])
    records = {trials[0].key: record(trials[0], diverged), trials[1].key: record(trials[1], None)}
    (only,) = score(trials, records).architectures
    assert only.num_diverged == 1
    assert only.tasks[0].score == pytest.approx(1 / 8)
    assert only.gaps == ["mlp: compression, seed 0: 1 of 1 trials running"]


def test_every_reason_for_what_is_missing_is_counted() -> None:
    trials = plan(["mlp"], [RECALL], seeds=(0,), learning_rates=(1e-3, 2e-3, 3e-3, 4e-3, 5e-3))
    failures = [record(t, None, status="failed", error=f"{t.learning_rate:g} failed\ntraceback") for t in trials[:2]]
    running = [record(t, None) for t in trials[2:4]]
    (only,) = score(trials, {found.key: found for found in (*failures, *running)}).architectures
    assert only.gaps == [
        "mlp: in-context-recall, seed 0: 2 of 5 trials failed, 2 of 5 trials running, 1 of 5 trials not run (0.002 failed)"
    ]


def test_a_narrower_plan_is_scored_only_where_its_grid_point_solves() -> None:
    """A plan of one grid point beside one of two: what was not planned could have been chosen, unless an earlier one solved."""
    whole = plan(["swiglu"], [RECALL], seeds=(0,), learning_rates=(2e-3, 1e-3))
    (narrow,) = plan(["mlp"], [RECALL], seeds=(0,), learning_rates=(2e-3,))
    for accuracy, missing in ((1.0, None), (0.5, "1 of 2 trials not run")):
        records = {t.key: record(t, result(t, [2, 2], selected=0.5)) for t in whole}
        records[narrow.key] = record(narrow, result(narrow, [4, 4], selected=accuracy))
        scores = score([*whole, narrow], records)
        (seed,) = next(a for a in scores.architectures if a.label == "mlp").tasks[0].settings[0].seeds
        assert seed.missing == missing
        assert seed.score == (1.0 if missing is None else None)


def test_a_seeds_score_says_which_trial_it_is_and_how_it_learned() -> None:
    trials = [dataclasses.replace(t, weight_decay=0.1) for t in plan(["mlp"], [RECALL], seeds=(0,), learning_rates=(2e-3, 1e-3))]
    outcomes = [result(t, [4], selected=s, curve=[(500, s)]) for t, s in zip(trials, (0.2, 0.6), strict=True)]
    scores = score(trials, {t.key: record(t, outcome) for t, outcome in zip(trials, outcomes, strict=True)})
    (seed,) = scores.architectures[0].tasks[0].settings[0].seeds
    assert (seed.key, seed.learning_rate, seed.weight_decay) == (trials[1].key, 1e-3, 0.1)
    assert seed.learning_curve_area == pytest.approx((500 * (RECALL.chance + 0.6) / 2 + 500 * 0.6) / 1000)
    assert seed.curve.tolist() == [[0, RECALL.chance], [500, 0.6], [1000, 0.6]]


def test_a_chosen_result_that_cannot_be_read_is_named() -> None:
    trials = plan(["mlp"], [RECALL], seeds=(0,), learning_rates=(2e-3, 1e-3))
    records = simulate(trials, lambda trial: 100 * trial.learning_rate)
    (only,) = score_records({trial: records[trial.key] for trial in trials}, lambda _: {}).architectures
    (seed,) = only.tasks[0].settings[0].seeds
    key = trials[0].key
    assert seed == SeedScore(
        seed=0, missing=f"the chosen result cannot be read: `archlab trials delete {key}`, then run again"
    )  # not the other one's score


def test_a_task_that_is_not_known_has_no_learning_curve_area_and_states_no_costs() -> None:
    lost = stored_setting("alpha-task", RECALL.knobs())
    trials = plan(["mlp"], [lost, RECALL], seeds=(0,))
    scores = score(trials, {t.key: record(t, result(t, [4], curve=[(1000, 1.0)])) for t in trials})
    assert scores.reference == RECALL
    areas = {task.task: task.settings[0].learning_curve_area for task in scores.architectures[0].tasks}
    assert areas == {"in-context-recall": pytest.approx((RECALL.chance + 1) / 2), "alpha-task": None}


def test_a_tasks_interval_is_that_of_the_mean_of_its_settings() -> None:
    trials = plan(["mlp"], [RECALL, setting("in-context-recall", vocab_size=32), COMPRESSION])
    (only,) = score(trials, simulate(trials, lambda _: 0.5)).architectures
    for task in only.tasks:
        assert task.interval == percentile_interval(task.samples)
        assert task.interval.low < task.score < task.interval.high


def test_learning_curve_area() -> None:
    def area(trial, outcome):
        (only,) = score([trial], {trial.key: record(trial, outcome)}).architectures
        return only.tasks[0].settings[0].learning_curve_area

    (trial,) = plan(["mlp"], [RECALL], seeds=(0,))  # 1000 steps, chance 1/8
    chance = RECALL.chance
    solved = result(trial, [4], curve=[(200, 0.5), (400, 1.0)], solved_step=400)
    by_hand = (200 * (chance + 0.5) / 2 + 200 * 0.75 + 600 * 1.0) / 1000
    assert area(trial, solved) == pytest.approx(by_hand)
    diverged = result(trial, [4], curve=[(200, 0.5)], status="diverged")
    by_hand = (200 * (chance + 0.5) / 2 + 800 * chance) / 1000
    assert area(trial, diverged) == pytest.approx(by_hand)
    later = dataclasses.replace(diverged, steps=300)  # between two evaluations
    by_hand = (200 * (chance + 0.5) / 2 + 100 * (0.5 + chance) / 2 + 700 * chance) / 1000
    assert area(trial, later) == pytest.approx(by_hand)
    before_any = dataclasses.replace(diverged, steps=0, curve=())
    assert area(trial, before_any) == pytest.approx(chance)
    no_number = result(trial, [4], curve=[(200, 0.5), (400, float("nan")), (1000, 0.5)])
    assert area(trial, no_number) == pytest.approx((800 * (chance + 0.5) / 2 + 200 * (chance + 0.5) / 2) / 1000)


@pytest.mark.parametrize(
    ("solved", "median"), [((100, 300, None), 300), ((100, None, None), None), ((None, None, None), None), ((100, 200, 600), 200)]
)
def test_steps_to_solve_counts_unsolved_seeds_as_for_ever(solved: tuple[int | None, ...], median: float | None) -> None:
    trials = plan(["mlp"], [RECALL])
    records = {t.key: record(t, result(t, [4], solved_step=s)) for t, s in zip(trials, solved, strict=True)}
    found = score(trials, records).architectures[0].tasks[0].settings[0]
    assert found.steps_to_solve == median
    assert found.num_solved == sum(s is not None for s in solved)


def test_conditions_are_never_mixed() -> None:
    trials = plan(["mlp"], [RECALL]) + plan(["swiglu"], [RECALL], recipe=dataclasses.replace(RECIPE, steps=500))
    with pytest.raises(ArchlabError, match=r"in-context-recall was trained under different conditions \(recipe.steps=1000 and"):
        score(trials, {})
    (trial,) = plan(["mlp"], [RECALL], seeds=(0,))
    other = dataclasses.replace(trial, dim=64, device="cuda")
    with pytest.raises(ArchlabError, match=r"\(dim=128 and dim=64, device=cpu and device=cuda\)"):
        score([trial, other], {})
    settings_may_differ = plan(["mlp"], [COMPRESSION], seeds=(0,), recipe=dataclasses.replace(RECIPE, steps=500))
    assert len(score([trial, *settings_may_differ], {}).tasks) == 2


def test_bad_requests_are_refused() -> None:
    with pytest.raises(ArchlabError, match=r"^there is nothing to score: run a protocol first"):
        score([], {})


def test_same_records_same_intervals_in_any_order_of_architectures() -> None:
    trials = plan(SPECS, [RECALL, COMPRESSION])
    records = simulate(trials, lambda t: 0.4 + 0.1 * len(str(t.architecture)) / 20)
    forward = {a.label: a.interval for a in score(trials, records).architectures}
    backward = {a.label: a.interval for a in score(trials[::-1], records).architectures}
    assert forward == backward
    alone = score([t for t in trials if str(t.architecture) == "mlp"], records).architectures[0]
    assert alone.interval == forward["mlp"]


def test_tasks_draw_apart_and_settings_of_a_task_together() -> None:
    """Tasks are independent: the interval of their mean would be too wide if they shared draws."""
    wide = setting("in-context-recall", vocab_size=32)
    trials = plan(["mlp"], [RECALL, wide, COMPRESSION])
    by_seed = [[0, 1, 1, 2], [1, 2, 2, 3], [2, 3, 3, 4]]
    records = {t.key: record(t, result(t, by_seed[t.seed])) for t in trials}
    (only,) = score(trials, records).architectures
    recall, compression = (task.samples for task in only.tasks)
    assert only.tasks[0].settings[0].interval == only.tasks[0].settings[1].interval
    assert recall.var() == pytest.approx(compression.var(), rel=0.2)
    assert abs(np.corrcoef(recall, compression)[0, 1]) < 0.1
    assert only.samples.var() == pytest.approx(recall.var() / 2, rel=0.2)


def test_costs_are_those_of_the_first_tasks_easiest_setting() -> None:
    settings = [
        setting("compression", vocab_size=16, length=8),
        setting("in-context-recall", vocab_size=32, length=32),
        setting("in-context-recall", vocab_size=16, length=64),
        setting("in-context-recall", vocab_size=16, length=32),
    ]
    trials = [dataclasses.replace(t, dim=64) for t in plan(["mh-attention swiglu"], settings, seeds=(0,))]
    scores = score(trials, {})
    assert (scores.reference, scores.dim) == (settings[3], 64)
    (only,) = scores.architectures
    assert only.costs.num_params == only.architecture.num_params(vocab_size=16, length=31, dim=64)
    assert only.costs.state_size == only.architecture.state_size(length=31, dim=64)
    assert only.costs.flops == only.architecture.flops(vocab_size=16, length=31, dim=64)


def test_every_architecture_has_its_own_costs_in_any_plan() -> None:
    """Also one that was planned for other settings or seeds than the reference: what it lacks is named."""
    trials = plan(["mlp"], [RECALL], seeds=(0,)) + plan(["mamba"], [COMPRESSION], seeds=(1,))
    mamba, mlp = score(trials, simulate(trials, lambda _: 0.5)).architectures
    for found in (mamba, mlp):
        assert found.costs.num_params == found.architecture.num_params(vocab_size=16, length=127, dim=128)
    assert mamba.costs.state_size > mlp.costs.state_size == 0
    assert mlp.gaps == ["mlp: compression, seed 1: 1 of 1 trials not run"]
    assert mamba.gaps == ["mamba: in-context-recall, seed 0: 1 of 1 trials not run"]


def test_the_costs_of_an_unavailable_architecture_are_those_stored_at_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = plan(["mlp"], [COMPRESSION, RECALL], seeds=(0, 1))
    records = simulate(trials, lambda _: 0.5)
    for number, t in enumerate(trials):
        if t.seed == 1:
            costs = {"costs": {"num_params": number, "state_size": 2, "flops": 3}}
            records[t.key] = dataclasses.replace(records[t.key], provenance=records[t.key].provenance | costs)
    monkeypatch.setattr(scoring, "is_available", lambda _: False)
    (only,) = score(trials, records).architectures
    assert (only.costs.num_params, only.costs.state_size, only.costs.flops) == (3, 2, 3)
    (only,) = score(trials[:2], records).architectures
    assert only.costs.num_params is None


def test_what_has_no_score_comes_after_what_scores_nothing() -> None:
    trials = plan(["mlp", "swiglu", "4*mlp"], [RECALL], seeds=(0,))
    right = {"swiglu": 0, "4*mlp": 2}
    records = {t.key: record(t, result(t, [right[str(t.architecture)]])) for t in trials if str(t.architecture) in right}
    found = score(trials, records).architectures
    assert [(a.label, a.score) for a in found] == [("4*mlp", 0.5), ("swiglu", 0.0), ("mlp", None)]


def test_what_was_spent_is_counted() -> None:
    trials = plan(["mlp"], [RECALL], seeds=(0, 1))
    spending = score(trials, simulate(trials, lambda _: 0.5)).spending
    assert (spending.steps_spent, spending.dropped) == (2000, 0)
    assert score(trials, {}).spending.steps_spent == 0


def test_costs_are_those_of_the_settings_backbone() -> None:
    (trial,) = plan(["mh-attention swiglu"], [COMPRESSION], seeds=(0,))
    (only,) = score([trial], {}).architectures
    shape = {"vocab_size": COMPRESSION.vocab_size, "length": COMPRESSION.input_length, "dim": 128, "backbone": "auto-encoder"}
    assert only.costs.num_params == only.architecture.num_params(**shape)
    assert only.costs.flops == only.architecture.flops(**shape)


def test_one_seed_covers_test_instances_only() -> None:
    trials = plan(["mlp"], [RECALL], seeds=(0,))
    scores = score(trials, simulate(trials, lambda _: 0.5, num_units=400))
    (only,) = scores.architectures
    assert scores.interval_over == "test instances"
    assert only.interval is not None
    assert only.score is not None
    # The standard error of 1600 binomial answers at one half is 1.25 points: 95 % lie within 2.45 points.
    assert only.interval.high - only.interval.low == pytest.approx(0.049, rel=0.15)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=30), min_size=1, max_size=4),
    st.integers(0, 2**31),
)
def test_samples_center_on_the_mean_and_stay_in_range(seeds: list[list[int]], seed: int) -> None:
    cell = [Units(np.array(x, dtype=np.float32), np.full(len(x), 4, dtype=np.float32)) for x in seeds]
    (samples,) = resampled_means([cell], resamples=400, seed=seed, stream="x")
    mean = np.mean([units.score for units in cell])
    interval = percentile_interval(samples, 0.99)
    assert 0.0 <= interval.low <= interval.high <= 1.0
    assert samples.mean() == pytest.approx(mean, abs=0.1)
    if all(len(set(x)) == 1 for x in seeds) and len({x[0] for x in seeds}) == 1:
        np.testing.assert_allclose(samples, mean, atol=1e-6)


def _coverage(num_seeds: int, spread: float, num_tasks: int, repetitions: int = 150) -> float:
    """How often the 95 % interval of a mean over tasks holds the true 0.6, with seeds that scatter by ``spread``."""
    rng = np.random.default_rng(1)
    hits = 0
    for repetition in range(repetitions):
        means = []
        for task in range(num_tasks):
            rates = np.clip(0.6 + rng.normal(0, spread, num_seeds), 0, 1)
            cell = [Units(rng.binomial(4, rate, 100).astype(np.float32), np.full(100, 4, dtype=np.float32)) for rate in rates]
            means.append(resampled_means([cell], resamples=200, seed=repetition, stream=str(task))[0])
        interval = percentile_interval(np.mean(means, axis=0))
        hits += interval.low <= 0.6 <= interval.high
    return hits / repetitions


def test_coverage() -> None:
    """Test units alone: the nominal 95 %. Three seeds that scatter widely: about 90 % for a mean of six tasks."""
    assert _coverage(num_seeds=1, spread=0.0, num_tasks=1) == pytest.approx(0.95, abs=0.05)
    assert _coverage(num_seeds=3, spread=0.1, num_tasks=6) > 0.83
    assert _coverage(num_seeds=5, spread=0.1, num_tasks=1) > 0.80


def test_ten_architectures_take_less_than_two_seconds() -> None:
    specs = [f"{n}*mlp" for n in range(2, 12)]
    tasks = [setting(name) for name in ("in-context-recall", "noisy-in-context-recall", "fuzzy-in-context-recall")]
    tasks += [setting(name) for name in ("selective-copying", "compression", "memorization")]
    trials = plan(specs, tasks)
    records = simulate(trials, lambda _: 0.5, num_units=1280)
    started = time.process_time()
    score(trials, records, resamples=1000)
    assert time.process_time() - started < 2.0


def test_frame_and_dict() -> None:
    trials = plan(["mlp", "swiglu"], [RECALL, COMPRESSION])
    scores = score(trials, simulate(trials, lambda _: 0.6))
    frame = scores.to_frame()
    assert len(frame) == 4
    assert frame["score"].between(frame["low"], frame["high"]).all()
    found = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert found["interval_over"] == "seeds and test instances"
    first = found["architectures"][0]
    assert first["score"] == pytest.approx(np.mean([task["score"] for task in first["tasks"].values()]))
    assert first["tasks"]["compression"]["settings"][0]["seeds"][2]["key"] in {t.key for t in trials}


def test_a_dict_says_where_it_comes_from_and_holds_the_differences() -> None:
    trials = plan(["mlp", "swiglu"], [RECALL, COMPRESSION])
    scores = score(trials, simulate(trials, lambda t: 0.8 if str(t.architecture) == "mlp" else 0.4), protocol="quick")
    found = scores.to_dict()
    assert (found["protocol"], found["archlab"]) == ("quick", version("archlab"))
    assert found["chance"] == {"in-context-recall": RECALL.chance, "compression": COMPRESSION.chance}
    (difference,) = found["differences"]
    assert (difference["first"], difference["second"]) == (scores.architectures[1].label, scores.architectures[0].label)
    means = [architecture["score"] for architecture in found["architectures"]]
    assert difference["mean"] == pytest.approx(means[1] - means[0])
    assert difference["low"] < difference["mean"] < difference["high"] < 0
    assert difference["superiority"] == 0


def test_notebooks_show_the_leaderboard() -> None:
    trials = plan(["2*[mlp swiglu]", "swiglu"], [RECALL, COMPRESSION])
    scores = score(trials, simulate(trials, lambda _: 0.6))
    rows = re.findall("<tr>(.*?)</tr>", scores._repr_html_())
    written = [re.sub("<.*?>", " ", row).split() for row in rows]
    assert [row[0] for row in written] == ["architecture", *(a.label.split()[0] for a in scores.architectures), "chance"]
    for row, architecture in zip(written[1:], scores.architectures, strict=False):
        assert f"{100 * architecture.score:.1f}" in row
    assert "test split in %" in scores._repr_html_()


def test_the_html_of_an_architecture_is_escaped() -> None:
    gone = Architecture((UnavailableLayers("<script>", "unknown"),))
    trials = plan([gone], [RECALL])
    assert "<script>" not in score(trials, simulate(trials, lambda _: 0.6))._repr_html_()


def test_tasks_outside_mad_do_not_count():
    """The MAD score is the mean over MAD's tasks; without any of them it is the mean over all, and is called so."""
    posed = [setting("compression"), setting("parity", length=8), setting("selective-copying")]
    trials = plan(["mlp", "swiglu"], posed)
    found = score(trials, simulate(trials, lambda trial: 0.9 if trial.setting.name == "parity" else 0.5))
    assert (found.counted, found.mean_name) == (("selective-copying", "compression"), "MAD score")
    for one in found.architectures:
        assert one.score == pytest.approx(np.mean([task.score for task in one.tasks if task.task != "parity"]))
        assert one.interval.low < one.score < one.interval.high < 0.7
    assert all(abs(one.mean) < 0.1 for one in found.differences)
    alone = [trial for trial in trials if trial.setting.name == "parity"]
    only = score(alone, simulate(alone, lambda trial: 0.9))
    assert (only.counted, only.mean_name) == (("parity",), "mean")
    assert only.architectures[0].score > 0.8


def test_scores_by_length_are_means_over_seeds():
    trials = plan(["mlp"], [setting("parity", length=8)])
    records = simulate(trials, lambda trial: 0.9)
    scored = {
        key: dataclasses.replace(
            one, result=dataclasses.replace(one.result, by_length=((16, 0.5 + 0.1 * one.job.seed), (32, 0.5)))
        )
        for key, one in records.items()
    }
    (found,) = score(trials, scored).architectures[0].tasks[0].settings
    assert list(found.by_length) == [8, 16, 32]
    assert found.by_length[16] == pytest.approx(0.6)
    assert found.by_length[8] == pytest.approx(found.score)


def test_scores_by_level_and_the_capacity_at_which_they_fall_below_nine_tenths():
    """The simulated units are the sequences; a quarter of them is drawn from each level."""

    def scored(*fractions):
        trials = plan(
            ["mlp"], [setting("selective-copying", length=64)], recipe=dataclasses.replace(RECIPE, levels=(2, 4, 8, 16))
        )
        records = simulate(trials, lambda trial: 0.5)
        for key, one in records.items():
            ones = np.ones(100 * len(fractions), dtype=np.float32)
            parts = np.repeat(np.array(fractions, dtype=np.float32), 100)
            records[key] = dataclasses.replace(one, result=dataclasses.replace(one.result, numerators=parts, denominators=ones))
        (found,) = score(trials, records).architectures[0].tasks[0].settings
        return found

    found = scored(1, 0.95, 0.85, 0.5)
    assert found.by_level == pytest.approx({2: 1, 4: 0.95, 8: 0.85, 16: 0.5})
    assert found.score == pytest.approx(0.825)
    assert found.capacity == pytest.approx(4 * 2**0.5)
    assert scored(1, 1, 1, 0.95).capacity == 16
    assert scored(0.8, 1, 1, 1).capacity == pytest.approx(1)
    assert scored(1, 0.8, 1, 1).capacity == pytest.approx(2 * 2**0.5)


def test_costs_that_fail_by_now_are_those_that_were_stored(monkeypatch):
    trials = plan(["mamba"], [COMPRESSION], seeds=(0,))
    costs, flops = dataclasses.asdict(trials[0].costs), trials[0].flops
    records = {
        key: dataclasses.replace(stored, provenance=stored.provenance | {"costs": costs})
        for key, stored in simulate(trials, lambda _: 0.5).items()
    }

    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(Kind, "costs", property(fail))
    monkeypatch.setattr(Kind, "flops", property(fail))
    scores = score(trials, records)
    assert dataclasses.asdict(scores.architectures[0].costs) == costs
    assert scores.spending.flops == flops > 0
