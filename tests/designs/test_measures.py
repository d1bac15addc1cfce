"""What findings measure, on records that are made up."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.scaling.fits.laws import Law
from tests.scaling.synthetic_ladders import fill, ladder, sweep_of
from tests.synthetic_records import plan, score, simulate

from archlab.architectures import architecture
from archlab.designs.finding import Finding
from archlab.designs.measures import measure
from archlab.designs.verdict import UNKNOWN, Quantity
from archlab.mad.scores import Scores
from archlab.mad.trial import Trial
from archlab.scaling.study import Study, open_study
from archlab.tasks import setting

EXPERIMENT = {"seeds": 3, "protocol": "smoke", "ladder": {"name": "smoke"}}
SPECS = {"first": "hyena swiglu", "second": "mh-attention swiglu"}
TASKS = [setting("compression"), setting("selective-copying")]


def finding(test: str, **values) -> Finding:
    pairs = [["first", "second"]] if test not in ("state-exponent", "correlation") else []
    known = {"architectures": SPECS, "compare": pairs, "above": 0.0} | values
    experiments = {"smoke": EXPERIMENT, "laptop": EXPERIMENT}
    return Finding(name="mine", claim="a claim", source="nobody", test=test, experiments=experiments, **known)


def scored(truth: Callable[[Trial], float], specs: dict[str, str] = SPECS, spread: float = 0.01) -> Scores:
    named = [type(architecture(spec))(architecture(spec).layers, name=label) for label, spec in specs.items()]
    trials = plan(named, TASKS, seeds=range(4))
    return score(trials, simulate(trials, truth, spread=spread))


def by_label(**rates: float) -> Callable[[Trial], float]:
    return lambda trial: rates[trial.architecture.label]


def one(found: list[Quantity]) -> Quantity:
    assert len(found) == 1
    return found[0]


def test_a_difference_of_scores_is_paired_by_seed_and_a_mean_over_tasks():
    scores = scored(by_label(first=0.8, second=0.6))
    found = one(measure(finding("scores"), scores, None))
    means = {
        one.label: [sum(task.settings[0].seeds[seed].score for task in one.tasks) / len(TASKS) for seed in range(4)]
        for one in scores.architectures
    }
    expected = [100 * (a - b) for a, b in zip(means["first"], means["second"], strict=True)]
    assert found.by_seed == pytest.approx(expected)
    assert (found.unit, found.verdict) == ("points", "supported")
    assert one(measure(finding("scores", compare=[["second", "first"]]), scores, None)).verdict == "not supported"


@pytest.mark.parametrize(("rate", "doubt"), [(0.08, "neither has learned the task"), (0.999, "both solve the task")])
def test_a_task_that_nobody_or_everybody_solves_tells_nothing(rate: float, doubt: str):
    found = one(measure(finding("scores", above=1.0), scored(lambda trial: rate, spread=0.0), None))
    assert (found.verdict, found.doubt) == (UNKNOWN, doubt)


def test_a_trial_that_is_missing_takes_its_seed_out():
    specs = {spec: spec for spec in ("hyena", "mamba")}
    trials = plan(specs, TASKS, seeds=range(4))
    records = simulate(trials, lambda trial: 0.5)
    del records[trials[0].key]
    found = one(measure(finding("scores", architectures=specs, compare=[["hyena", "mamba"]]), score(trials, records), None))
    assert len(found.by_seed) == 3


def study(tmp_path: Path, first: Law, second: Law, **values) -> Study:
    options = {"seeds": 3, "noise": 0.001} | values
    return open_study(fill(tmp_path / "study.db", [*ladder("first", first, **options), *ladder("second", second, **options)]))


def test_losses_are_compared_at_every_budget(tmp_path: Path):
    found = measure(finding("losses"), None, study(tmp_path, Law(E=1.6), Law(E=1.7)))
    assert len(found) == 4
    assert {quantity.verdict for quantity in found} == {"supported"}
    assert found[0].value == pytest.approx(0.1, abs=0.01)


def test_models_that_all_diverged_are_a_quantity_without_a_value(tmp_path: Path):
    lost = [(trial, replace(outcome, status="diverged", loss=None)) for trial, outcome in ladder("first", Law(), budgets=(1e17,))]
    opened = open_study(fill(tmp_path / "study.db", [*lost, *ladder("second", Law(), budgets=(1e17,))]))
    for test in ("losses", "off-optimal"):
        found = one(measure(finding(test), None, opened))
        assert (found.value, found.verdict, found.doubt) == (None, UNKNOWN, "nothing could be measured")
    failed = Study({"second": opened.tables["second"]}, "all")
    assert one(measure(finding("losses"), None, failed)).value is None


def test_the_loss_off_the_optimum_is_less_where_the_parabola_is_flatter(tmp_path: Path):
    found = measure(finding("off-optimal"), None, study(tmp_path, Law(A=300.0, B=300.0), Law(A=600.0, B=600.0)))
    assert {quantity.verdict for quantity in found} == {"supported"}
    unbracketed = study(tmp_path / "..", Law(), Law(), sizes=2)
    assert {(one.verdict, "is not bracketed" in one.doubt) for one in measure(finding("off-optimal"), None, unbracketed)} == {
        (UNKNOWN, True)
    }


def test_the_state_exponent_is_fitted_to_each_seed(tmp_path: Path):
    found = one(measure(finding("state-exponent", above=-3.0, below=0.0), None, study(tmp_path, Law(), Law(E=1.8))))
    assert (len(found.by_seed), found.verdict) == (3, "supported")
    assert found.value is not None
    assert found.value < 0


def test_the_correlation_has_an_interval_over_architectures(tmp_path: Path):
    specs = {f"a{n}": f"mlp swiglu(inner={n + 1})" for n in range(8)}
    opened = open_study(
        fill(
            tmp_path / "study.db",
            sweep_of({label: (spec, 1.7 - 0.02 * n) for n, (label, spec) in enumerate(specs.items())}, budgets=(1e17,)),
        )
    )
    right = scored(lambda trial: 0.2 + 0.09 * int(trial.architecture.label[1]), specs)
    found = one(measure(finding("correlation", architectures=specs), right, opened))
    assert (found.value, found.verdict) == (pytest.approx(1.0), "supported")
    wrong = scored(lambda trial: 0.9 - 0.09 * int(trial.architecture.label[1]), specs)
    assert one(measure(finding("correlation", architectures=specs), wrong, opened)).verdict == "not supported"
