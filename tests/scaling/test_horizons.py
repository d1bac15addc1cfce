"""Horizons: one row each in plan and store, the trunk trained once, and the bits of a training run alone."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file
from tests.fake_training import threads
from tests.scaling.language_models import tiny_corpus, tiny_trial
from tests.scaling.synthetic_ladders import result

from archlab.errors import ArchlabError
from archlab.machine import Ceilings
from archlab.scaling import training_loop as loop
from archlab.scaling.estimate import stated_costs
from archlab.scaling.ladder import Ladder
from archlab.scaling.planner import make_plan
from archlab.scaling.recipe import LMRecipe
from archlab.scaling.runner import TrunksInTurn, in_turn, train_all, train_jobs
from archlab.scaling.store import StudyStore
from archlab.scaling.study import read_study
from archlab.scaling.training_plan import own_fractions

LADDER = Ladder(name="test", params=(1e5,), tokens_per_param=(20, 80, 40), horizon_decay=0.2, vocab_size=99)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return tiny_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def horizons(corpus, monkeypatch):
    """Three of one trunk, the longest first."""
    monkeypatch.setattr(loop, "ceilings", lambda device: Ceilings(1e11, 1e10))
    loop.gemm_peak.cache_clear()
    number = torch.get_num_threads()
    torch.set_num_threads(1)
    yield [tiny_trial(corpus, steps=n, warmup_steps=3, decay_steps=n // 5) for n in (80, 40, 20)]
    torch.set_num_threads(number)


def test_a_plan_has_a_row_for_each_horizon_and_counts_their_trunk_once():
    runs = make_plan(LADDER, ["transformer++"]).runs
    assert [run.tokens / run.params for run in runs] == pytest.approx([20, 80, 40], rel=0.01)
    assert len({(run.trunk, run.batch_size, run.warmup_steps) for run in runs}) == 1
    assert [run.decay_steps / run.steps for run in runs] == pytest.approx([0.2] * 3, rel=0.01)
    fractions = own_fractions(runs)
    steps = [run.steps * fraction for run, fraction in zip(runs, fractions, strict=True)]
    assert sum(steps) == pytest.approx(sum(run.decay_steps for run in runs) + runs[1].trunk_steps)
    alone = [cost.seconds for run in runs for cost in stated_costs([run], lambda label: 1e12)]
    together = [cost.seconds for cost in stated_costs(runs, lambda label: 1e12)]
    assert [one / other for one, other in zip(together, alone, strict=True)] == pytest.approx(fractions)
    seeds = make_plan(replace(LADDER, seeds=(0, 1)), ["transformer++", "mamba"]).runs
    assert len({run.trunk for run in seeds}) == 4


def test_a_training_run_that_is_no_horizon_has_no_trunk():
    runs = make_plan(replace(LADDER, horizon_decay=None), ["transformer++"]).runs
    assert {run.trunk for run in runs} == {None}
    assert own_fractions(runs) == [1, 1, 1]
    assert not {"warmup_steps", "decay_steps"} & runs[0].identity().keys()  # its key is as it was


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"warmup_steps": None}, "warmup_steps and decay_steps: a horizon has both"),
        ({"warmup_steps": 40, "decay_steps": 40}, "warmup_steps=40 and decay_steps=40 leave none of 80 steps between them"),
    ],
)
def test_a_horizon_that_contradicts_itself_is_refused(horizons, values, error):
    horizons[0].run.check()
    with pytest.raises(ArchlabError, match=error):
        replace(horizons[0].run, **values).check()


def test_horizons_without_ratios_are_refused():
    with pytest.raises(ArchlabError, match="tokens_per_param is missing: horizon_decay branches"):
        Ladder(name="test", budgets=(1e11,), horizon_decay=0.2)


@pytest.mark.parametrize(("steps", "warmup", "decay"), [(10, 3, 2), (997, 49, 199), (3, 1, 1), (1_000_003, 7, 333_331)])
def test_the_schedule_has_exactly_its_steps(steps, warmup, decay):
    recipe = LMRecipe(schedule="cosine", final_lr=0.25).horizon(steps, warmup, decay)
    at = {step: recipe.rate(step, steps) for step in (warmup, warmup + 1, steps - decay, steps - decay + 1, steps)}
    assert at[warmup] == at[steps - decay] == 1
    assert at[steps] == pytest.approx(0.25)
    assert recipe.rate(max(warmup - 1, 1), steps) == max(warmup - 1, 1) / warmup
    assert at[steps - decay + 1] < 1


def test_a_branch_has_the_bits_of_a_training_run_alone_and_the_trunk_is_trained_once(horizons, corpus, tmp_path, monkeypatch):
    from archlab.scaling import runner

    monkeypatch.setattr(runner, "corpus_of", lambda source, tokenizer: corpus)
    taken = []
    take_step = loop._Training._take_step
    monkeypatch.setattr(loop._Training, "_take_step", lambda self, step: [taken.append(step), take_step(self, step)][1])

    def work(trial, on_progress, thresholds):
        ((_, found),) = train_jobs(
            [trial], lambda index, progress: None, [{}], checkpoints=tmp_path / "checkpoints", models=tmp_path / "branches"
        )
        return found

    with StudyStore(tmp_path / "a.db") as store, threads(work, 1) as executor:
        summary = train_all(horizons, store, executor, tmp_path / "checkpoints")
        assert not summary.failed
        assert len(list(store.records())) == 3
    assert taken == [*range(1, 21), *range(17, 41), *range(33, 81)]
    assert not (tmp_path / "checkpoints").exists()
    for trial in horizons:
        alone = loop.train(trial, corpus, models=tmp_path / "alone")
        branch = summary.results[trial.key]
        assert (branch.loss, branch.steps, branch.epochs) == (alone.loss, alone.steps, alone.epochs)
        assert [point.step for point in branch.curve] == sorted({point.step for point in branch.curve})
        ours, theirs = (load_file(tmp_path / folder / trial.key / "model.safetensors") for folder in ("branches", "alone"))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert len({summary.results[trial.key].loss for trial in horizons}) == 3


def test_a_trunk_beyond_a_shorter_horizon_is_left_as_it_is(horizons, corpus, tmp_path):
    longest, _, shortest = horizons
    loop.train(longest, corpus, trunk=tmp_path / "trunk")
    assert [path.name for path in (tmp_path / "trunk").iterdir()] == ["step-64"]
    assert loop.train(shortest, corpus, trunk=tmp_path / "trunk").loss == loop.train(shortest, corpus).loss
    assert [path.name for path in (tmp_path / "trunk").iterdir()] == ["step-64"]


def test_horizons_of_a_trunk_start_one_after_the_other(horizons, corpus):
    longest, middle, shortest = horizons
    other = tiny_trial(corpus, steps=70)
    assert in_turn([other, *horizons], []) == [shortest, other]  # the trunk with the longest first
    assert in_turn([other, longest, middle], [shortest]) == [other]
    assert in_turn([longest, middle], []) == [middle]


def test_the_most_expensive_come_first_of_all_or_of_one_architecture_after_the_other(corpus):
    cheap, dear, other = (tiny_trial(corpus, steps=steps, label=label) for label, steps in (("a", 10), ("a", 20), ("b", 40)))
    waiting = {trial.key: trial for trial in (cheap, dear, other)}
    assert TrunksInTurn().order(waiting, []) == [other, dear, cheap]
    assert TrunksInTurn(by_architecture=True).order(waiting, []) == [dear, cheap, other]


def test_the_state_of_a_trunk_stays_while_a_horizon_is_missing(horizons, tmp_path):
    folder = tmp_path / "checkpoints" / f"trunk-{horizons[0].trunk}"
    seen = []

    def work(trial, on_progress, thresholds):
        seen.append((trial.run.steps, folder.exists()))
        (folder / "step-16").mkdir(parents=True, exist_ok=True)
        if trial.run.steps == 80 and len(seen) == 3:
            raise ValueError("unlucky")
        return result(2.0)

    for missing in (True, False):
        with StudyStore(tmp_path / "a.db") as store, threads(work, 2) as executor:
            train_all(horizons, store, executor, tmp_path / "checkpoints")
        assert folder.exists() == missing
    assert seen == [(20, False), (40, True), (80, True), (80, True)]


def test_horizons_and_other_training_runs_make_no_study(horizons, corpus, tmp_path):
    with StudyStore(tmp_path / "a.db") as store, threads(lambda *_: result(2.0), 1) as executor:
        train_all([*horizons, tiny_trial(corpus, steps=70)], store, executor, tmp_path / "checkpoints")
        with pytest.raises(ArchlabError, match="schedule: the store has runs with cosine and decays from a trunk"):
            read_study(store.records())
    assert all(one.steps < other.steps for one, other in pairwise(reversed([trial.run for trial in horizons])))
