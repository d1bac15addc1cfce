"""Racing: what it leaves out cannot change a score; what it drops has fallen behind."""

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fake_training import threads
from tests.synthetic_records import RECIPE, plan, record, result, score

from archlab.jobs import scheduler
from archlab.jobs.events import JobFinished, JobsSkipped, RunSummary
from archlab.mad.racing import Racing, rungs
from archlab.mad.store import TrialStore
from archlab.tasks import setting


def run(trials, store, executor, *listeners, race) -> RunSummary:
    return scheduler.run(trials, store, executor, policy=Racing(trials, race), listeners=listeners)


RATES = (4e-3, 2e-3, 1e-3)
COMPRESSION = setting("compression")


def grid(seeds=(0,), specs=("mlp",), recipe=RECIPE):
    return plan(specs, [COMPRESSION], seeds=seeds, learning_rates=RATES, recipe=recipe)


def reaching(trial, accuracy, losses=None):
    """A result that ends with the accuracy on both splits, with these validation losses at its evaluations."""
    losses = losses or [1.0]
    steps = [trial.num_steps * (i + 1) // len(losses) for i in range(len(losses))]
    made = result(trial, [4 * accuracy], selected=accuracy, curve=[(step, accuracy) for step in steps])
    curve = tuple(
        replace(point, metrics=replace(point.metrics, loss=loss)) for point, loss in zip(made.curve, losses, strict=True)
    )
    return replace(made, curve=curve, solved_step=steps[-1] if accuracy >= trial.recipe.stop_accuracy else None)


@dataclass(frozen=True)
class Scripted:
    """Trains to the accuracies and losses that it was given by seed and learning rate; obeys thresholds."""

    accuracies: dict
    losses: dict

    def __call__(self, trial, on_progress, thresholds):
        where = trial.seed, trial.learning_rate
        made = reaching(trial, self.accuracies[where], self.losses.get(where))
        for index, point in enumerate(made.curve):
            if point.metrics.loss > thresholds.get(point.step, float("inf")):
                return replace(made, status="dropped", steps=point.step, curve=made.curve[: index + 1])
        return made


accuracy = st.sampled_from([0.2, 0.6, 0.985, 0.99, 0.995, 1.0])


@settings(max_examples=12, deadline=None)
@given(st.lists(accuracy, min_size=6, max_size=6), st.integers(1, 3))
def test_the_exact_race_gives_the_scores_of_the_exhaustive_run(tmp_path_factory, accuracies, workers):
    trials = grid(seeds=(0, 1))
    table = {(trial.seed, trial.learning_rate): value for trial, value in zip(trials, accuracies, strict=True)}
    exhaustive = score(trials, {t.key: record(t, reaching(t, table[t.seed, t.learning_rate])) for t in trials})
    path = tmp_path_factory.mktemp("race") / "archlab.db"
    with TrialStore(path) as store, threads(Scripted(table, {}), workers) as executor:
        summary = run(trials, store, executor, race="exact")
        raced = score(trials, {record.key: record for record in store.records()})
        again = run(trials, store, executor, race="exact")
    assert raced.complete
    chosen = [[seed.key for seed in s.architectures[0].tasks[0].settings[0].seeds] for s in (raced, exhaustive)]
    assert chosen[0] == chosen[1]
    assert raced.architectures[0].score == exhaustive.architectures[0].score
    assert summary.computed + summary.skipped == summary.total == 6
    assert (again.computed, again.reused, again.skipped) == (0, summary.computed, summary.skipped)
    needed = sum(
        not any(table[seed, other] >= 0.99 for other in RATES[:place]) for seed in (0, 1) for place, _ in enumerate(RATES)
    )
    assert summary.computed >= needed
    if workers == 1:
        assert summary.computed == needed


def test_siblings_start_only_where_nothing_else_is_left(tmp_path):
    trials = grid(seeds=(0, 1))
    events = []
    table = {(trial.seed, trial.learning_rate): 0.5 for trial in trials} | {(0, 4e-3): 1.0}
    with TrialStore(tmp_path / "archlab.db") as store, threads(Scripted(table, {}), 2) as executor:
        run(trials, store, executor, events.append, race="exact")
    finished = [(event.job.seed, event.job.learning_rate) for event in events if isinstance(event, JobFinished)]
    skipped = [(t.seed, t.learning_rate) for event in events if isinstance(event, JobsSkipped) for t in event.jobs]
    assert set(finished[:2]) == {(0, 4e-3), (1, 4e-3)}
    assert skipped == [(0, 2e-3), (0, 1e-3)]


def test_a_running_sibling_that_is_no_longer_needed_is_stopped(tmp_path):
    trials = grid()
    started = threading.Event()

    def train(trial, on_progress, thresholds):
        if trial.learning_rate == 4e-3:
            started.wait(10)  # until the sibling runs
            return reaching(trial, 1.0)
        started.set()
        return reaching(trial, 0.5)

    with TrialStore(tmp_path / "archlab.db") as store, threads(train, 2) as executor:
        summary = run(trials, store, executor, race="exact")
        records = store.records()
    assert summary.computed + summary.skipped == 3
    assert {record.status for record in records} == {"finished"}
    assert trials[0] in {record.job for record in records}


@pytest.mark.parametrize("race", ["exact", "halving"])
def test_what_another_run_has_found_meanwhile_is_not_computed_again(tmp_path, race):
    trials = grid(seeds=(0, 1))
    first, second, _, solved, *after_solved = trials
    path, trained = tmp_path / "archlab.db", []
    with TrialStore(path) as other, TrialStore(path) as store:

        def train(trial, on_progress, thresholds):
            if not trained:
                other.finish(solved, reaching(solved, 1.0), {})
                other.finish(second, replace(reaching(second, 0.5), status="dropped"), {})
            trained.append(trial)
            return reaching(trial, 0.5)

        with threads(train, 1) as executor:
            summary = run(trials, store, executor, race=race)
    assert trained[0] == first
    assert not {solved, *after_solved} & set(trained)
    assert (second in trained) == (race == "exact"), "only a race by halving is through with what was dropped"
    assert (summary.computed, summary.reused, summary.skipped) == ((3, 1, 2) if race == "exact" else (2, 2, 2))


@settings(max_examples=12, deadline=None)
@given(
    st.lists(accuracy, min_size=6, max_size=6),
    st.permutations(range(6)),
    st.integers(1, 5),
    st.sampled_from(["exact", "halving"]),
)
@pytest.mark.slow
def test_a_race_that_was_interrupted_ends_as_if_it_had_not_been(tmp_path_factory, accuracies, behind, stop_after, race):
    trials = grid(seeds=(0, 1), recipe=replace(RECIPE, evaluations=4))
    table = {(trial.seed, trial.learning_rate): value for trial, value in zip(trials, accuracies, strict=True)}
    losses = {where: [3.0 + place, 2.0 + place, 1.0, 0.5] for where, place in zip(table, behind, strict=True)}

    def raced(path, interruptions):
        for after in (*interruptions, None):
            finished = []

            def listen(event, finished=finished, after=after):
                finished.extend([event] if isinstance(event, JobFinished) else [])
                if len(finished) == after:
                    raise BrokenPipeError

            with TrialStore(path) as store, threads(Scripted(table, losses), 2) as executor, suppress(BrokenPipeError):
                run(trials, store, executor, listen, race=race)
        with TrialStore(path) as store:
            return score(trials, {record.key: record for record in store.records()})

    folder = tmp_path_factory.mktemp("race")
    straight, resumed = raced(folder / "straight.db", ()), raced(folder / "resumed.db", (stop_after, 1))
    assert straight.complete
    assert resumed.complete
    assert resumed.architectures[0].score == straight.architectures[0].score
    if race == "halving":
        assert resumed.spending == straight.spending


@pytest.mark.parametrize(("evaluations", "expected"), [(8, [125, 375]), (4, [250, 500]), (2, [500]), (1, [])])
def test_rungs_are_evaluated_steps_before_the_last(evaluations, expected):
    (trial, *_) = grid(recipe=replace(RECIPE, evaluations=evaluations))
    assert rungs(trial) == expected


def test_only_later_grid_points_become_unnecessary_whichever_ends_first():
    first, second, third, *others = grid(seeds=(0, 1))
    assert [t.learning_rate for t in (first, second, third)] == list(RATES)
    racing = Racing([*others, third, first, second], "exact")
    assert racing.observe(second, reaching(second, 1.0)) == [third]
    assert racing.observe(first, reaching(first, 0.5)) == []


def test_an_earlier_grid_point_that_still_runs_is_computed_to_its_end(tmp_path):
    later_has_ended = threading.Event()

    def train(trial, on_progress, thresholds):
        if trial.learning_rate == 4e-3:
            assert later_has_ended.wait(10)
            time.sleep(0.1)  # until what is not needed any more would have been stopped
        return reaching(trial, 1.0)

    def listen(event):
        if isinstance(event, JobFinished):
            later_has_ended.set()

    trials = grid()
    with TrialStore(tmp_path / "archlab.db") as store, threads(train, 2) as executor:
        summary = run(trials, store, executor, listen, race="exact")
        raced = score(trials, {record.key: record for record in store.records()})
    assert (summary.computed, summary.skipped) == (2, 1)
    assert raced.architectures[0].tasks[0].settings[0].seeds[0].learning_rate == 4e-3, "as the exhaustive run would choose"


def test_without_a_race_everything_is_computed(tmp_path):
    trials = grid()
    table = {(0, rate): 1.0 for rate in RATES}
    with TrialStore(tmp_path / "archlab.db") as store, threads(Scripted(table, {})) as executor:
        assert run(trials, store, executor, race="off").computed == 3


def test_halving_drops_what_falls_behind_and_another_run_takes_it_up(tmp_path):
    trials = grid()
    losses = {(0, 4e-3): [3.0, 2.0, 1.0, 0.5], (0, 2e-3): [3.5, 2.5, 1.2, 0.1], (0, 1e-3): [2.0, 1.0, 0.9, 0.8]}
    table = {(0, 4e-3): 0.5, (0, 2e-3): 0.9, (0, 1e-3): 0.6}
    recipe = replace(RECIPE, evaluations=4)
    trials = grid(recipe=recipe)
    assert rungs(trials[0]) == [250, 500]
    with TrialStore(tmp_path / "archlab.db") as store, threads(Scripted(table, losses), 2) as executor:
        summary = run(trials, store, executor, race="halving")
        assert (summary.computed, summary.count("dropped"), summary.skipped) == (3, 1, 0)
        records = {record.job.learning_rate: record for record in store.records()}
        assert {rate: record.status for rate, record in records.items()} == {
            4e-3: "finished", 2e-3: "dropped", 1e-3: "finished",
        }  # fmt: skip
        assert records[2e-3].result.steps == 250
        raced = score(trials, {record.key: record for record in store.records()})
        assert raced.complete
        assert raced.architectures[0].score == pytest.approx(0.6)
        assert (raced.spending.dropped, raced.spending.steps_spent) == (1, 2250)
        again = run(trials, store, executor, race="halving")
        assert (again.reused, again.count("dropped"), again.computed) == (3, 1, 0)
        off = run(trials, store, executor, race="off")
        assert (off.reused, off.computed) == (2, 1)
        full = score(trials, {record.key: record for record in store.records()})
        assert full.architectures[0].score == pytest.approx(0.9)


def test_a_dropped_trial_is_still_dropped_after_its_claim_was_given_back(tmp_path):
    trial = grid()[0]
    with TrialStore(tmp_path / "archlab.db") as store:
        store.finish(trial, replace(reaching(trial, 0.5), status="dropped"), {})
        assert store.claim([trial], 1) == [trial]
        store.give_back(trial)
        (found,) = store.records()
        assert (found.status, found.result.status) == ("dropped", "dropped")


def test_thresholds_let_a_third_go_on():
    many = plan(["mlp"], [COMPRESSION], seeds=(0,), learning_rates=[6, 5, 4, 3, 2, 1], recipe=replace(RECIPE, evaluations=8))
    racing = Racing(many, "halving")
    thresholds = []
    for trial, loss in zip(many, [5.0, 4.0, 6.0, 3.0, 2.0, 4.5], strict=True):
        thresholds.append(racing.thresholds(trial).get(125))
        racing.observe(trial, reaching(trial, 0.5, [loss] * 8))
    assert thresholds == [None, 5.0, 4.0, 4.0, 3.0, 3.0]  # the best of two to five, the second best of six


def test_what_diverged_stands_in_nobodys_way():
    trials = grid(recipe=replace(RECIPE, evaluations=4))
    racing = Racing(trials, "halving")
    racing.observe(trials[0], replace(reaching(trials[0], 0.5, [0.1, 0.1, 0.1, 0.1]), status="diverged"))
    assert racing.thresholds(trials[1]) == {}
    racing.observe(trials[1], reaching(trials[1], 0.5, [2.0, 1.0, 0.5, 0.2]))
    assert racing.thresholds(trials[2]) == {250: 2.0, 500: 1.0}


def test_a_recipe_that_never_stops_never_races():
    trials = grid(recipe=replace(RECIPE, stop_accuracy=2.0))
    assert Racing(trials, "exact").observe(trials[0], reaching(trials[0], 1.0)) == []
