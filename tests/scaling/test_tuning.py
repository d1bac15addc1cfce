"""Learning rates of made-up trainings are bracketed, with as few training runs as that takes, and go into plans."""

import math
from dataclasses import replace

import pytest
from tests.fake_training import threads
from tests.scaling.language_models import tiny_corpus, tiny_run
from tests.scaling.synthetic_ladders import result

from archlab import scaling
from archlab.errors import ArchlabError
from archlab.jobs.events import JobStarted
from archlab.scaling import api
from archlab.scaling.ladder import Ladder, central_params
from archlab.scaling.planner import make_plan
from archlab.scaling.recipe import LMRecipe
from archlab.scaling.training_plan import Plan
from archlab.scaling.tuning import BUDGETS, DOUBLINGS, sweep

PLANNED = 3e-3


def loss_at(rate: float, best: float) -> float:
    return 2 + 0.03 * math.log2(rate / best) ** 2


class Trainer:
    """Losses are parabolas in the logarithm of the rate; from a rate on trainings diverge, at given rates they fail."""

    def __init__(self, best: dict[str, float], diverges=math.inf, fails=()) -> None:
        self.best, self.diverges, self.fails, self.tried = best, diverges, fails, []

    def __call__(self, one, on_progress, thresholds):
        rate, label = one.run.learning_rate, one.run.label
        self.tried.append((label, one.run.budget, rate / PLANNED, one.run.seed))
        if rate / PLANNED in self.fails:
            raise ValueError("unlucky")
        return result(None if rate >= self.diverges else loss_at(rate, self.best[label]))


@pytest.fixture
def plan(tmp_path, monkeypatch) -> Plan:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    corpus = tiny_corpus(tmp_path)
    labels = {"plain": "mh-attention(heads=2) swiglu", "other": "mlp swiglu"}
    return Plan(
        tuple(
            tiny_run(corpus, spec, label=label, dim=dim, steps=steps, budget=1e6 * steps, learning_rate=PLANNED)
            for label, spec in labels.items()
            for steps in (20, 40, 80)
            for dim in (8, 16)
        )
    )


@pytest.fixture
def tune(tmp_path, monkeypatch):
    def tuned(plan, trainer, workers=1, **options):
        monkeypatch.setattr(api, "make_executor", lambda *_, **__: threads(trainer, num_workers=workers))
        return scaling.tune(plan, store=tmp_path / "tune.db", **options)

    return tuned


@pytest.mark.parametrize(("factor", "tries"), [(1.0, 3), (1.3, 3), (4.0, 5), (0.25, 5), (6.0, 6), (0.2, 5)])
@pytest.mark.parametrize("workers", [1, 3])
def test_the_best_rate_is_bracketed_by_few_training_runs(plan: Plan, tune, factor: float, tries: int, workers: int):
    trainer = Trainer({"plain": factor * PLANNED, "other": PLANNED})
    found = tune(plan, trainer, workers)
    for budget in (20e6, 40e6):
        assert len([one for one in trainer.tried if one[:2] == ("plain", budget)]) == tries
    assert len(trainer.tried) == 2 * (tries + 3)
    assert found.factors == {"plain": pytest.approx(factor, rel=1e-2), "other": pytest.approx(1, rel=1e-2)}
    assert found.bracketed
    one = found.rates[-1]
    assert (one.label, one.budget, one.rule, len(one.losses)) == ("plain", 40e6, PLANNED, tries)
    near = 2 ** round(math.log2(factor)) * PLANNED
    assert one.best == near
    assert one.at_twice == pytest.approx(loss_at(2 * near, factor * PLANNED) - loss_at(near, factor * PLANNED))
    assert one.at_half == pytest.approx(loss_at(near / 2, factor * PLANNED) - loss_at(near, factor * PLANNED))
    assert len(found.to_frame()) == 2 * BUDGETS
    assert found.to_dict()["factors"] == found.factors


def test_what_diverged_is_an_end_of_the_bracket(plan: Plan, tune):
    found = tune(plan, Trainer({"plain": 8 * PLANNED, "other": PLANNED}, diverges=2 * PLANNED))
    assert found.rates[-1].best == found.rates[-1].rate == PLANNED
    assert found.rates[-1].at_twice is None
    assert found.rates[-1].losses[2 * PLANNED] is None
    assert found.factors["plain"] == 1


def test_where_everything_diverges_smaller_rates_are_tried(plan: Plan, tune):
    trainer = Trainer({"plain": PLANNED / 8, "other": PLANNED / 8}, diverges=PLANNED / 2)
    assert tune(plan, trainer).factors == {"plain": 0.125, "other": 0.125}
    with pytest.raises(ArchlabError, match="no tuned learning rate"):
        tune(replace(plan, runs=plan.runs[:1]), Trainer({"plain": 1.0}, diverges=0.0), recipe=LMRecipe(beta2=0.9))


def test_rates_beyond_the_farthest_are_not_bracketed(plan: Plan, tune, tmp_path):
    trainer = Trainer({"plain": 100 * PLANNED, "other": PLANNED})
    found = tune(plan, trainer)
    assert max(one[2] for one in trainer.tried) == 2**DOUBLINGS
    assert not found.bracketed
    assert found.to_dict()["factors"] is None
    with pytest.raises(ArchlabError, match=r"plain: the best learning rate at 2e\+07 FLOPs, 0.048, is at the edge"):
        scaling.plan(["transformer++"], vocab_size=99, allow=["embeddings"], tuned=tmp_path / "tune.db")


def test_a_failure_ends_the_sweep_and_the_next_call_goes_on(plan: Plan, tune):
    best = {"plain": 2 * PLANNED, "other": PLANNED}
    first = Trainer(best, fails=[4.0])
    with pytest.raises(ArchlabError, match="a training run failed: ValueError: unlucky: the same call tries it again"):
        tune(plan, first)
    second = Trainer(best)
    assert tune(plan, second).factors["plain"] == 2
    assert {one[2] for one in second.tried} == {4.0}
    third = Trainer(best)
    assert tune(plan, third).factors["plain"] == 2
    assert third.tried == []


def test_rates_are_tuned_on_the_mean_of_the_seeds(plan: Plan, tune):
    seeds = Plan(tuple(replace(run, seed=seed) for run in plan.runs for seed in (0, 1)))
    trainer = Trainer({"plain": PLANNED, "other": PLANNED})
    events = []
    assert tune(seeds, trainer, listeners=[events.append]).factors["plain"] == 1
    assert len(trainer.tried) == 2 * 2 * 3 * 2
    assert sum(isinstance(event, JobStarted) for event in events) == len(trainer.tried)


def test_the_sizes_nearest_the_centre_are_swept():
    planned = make_plan(Ladder(name="test", budgets=(2e11, 4e11, 8e11), sizes=5, vocab_size=99), ["transformer++", "mamba"])
    swept = sweep(planned)
    assert len(swept) == 2 * BUDGETS * (2 * DOUBLINGS + 1)
    for label in ("transformer++", "mamba"):
        for budget in (2e11, 4e11):
            sizes = {run.params for run in planned.runs if (run.label, run.budget) == (label, budget)}
            nearest = min(sizes, key=lambda n: abs(math.log(n / central_params(budget))))
            assert {run.params for run in swept if (run.label, run.budget) == (label, budget)} == {nearest}


def test_a_tuned_plan_has_the_factors_in_its_rates_and_its_origin(plan: Plan, tune, tmp_path):
    tune(plan, Trainer({"plain": 4 * PLANNED, "other": PLANNED}))
    options = {"vocab_size": 99, "allow": ["embeddings", "tokens-per-param"], "learning_rate": PLANNED, "budgets": [2e11]}
    specs = {"plain": "transformer++", "other": "mamba"}
    tuned = scaling.plan(specs, **options, tuned=tmp_path / "tune.db")
    assert {run.label: run.learning_rate for run in tuned.runs} == {"plain": pytest.approx(4 * PLANNED), "other": PLANNED}
    assert tuned.provenance["ladder"]["learning_rate_factors"] == {"plain": 4.0, "other": 1.0}
    tuned.save(tmp_path / "plan.yaml")
    assert Plan.load(tmp_path / "plan.yaml") == tuned
    with pytest.raises(ArchlabError, match="learning_rate_factors: none for hyena: tune all architectures of a plan"):
        scaling.plan({"hyena": "hyena", "plain": "transformer++"}, **options, tuned=tmp_path / "tune.db")


def test_a_study_and_a_tuning_share_no_store(plan: Plan, tune, tmp_path):
    trainer = Trainer({"plain": PLANNED, "other": PLANNED})
    tune(plan, trainer)
    with pytest.raises(ArchlabError, match="learning_rate: the store has runs that differ only in it"):
        scaling.fit(tmp_path / "tune.db")
    (tmp_path / "tune.db").unlink()
    scaling.train(plan, store=tmp_path / "tune.db")
    with pytest.raises(ArchlabError, match=r"tune\.db holds a study, whose fits would count those of a tuning"):
        tune(plan, trainer)
