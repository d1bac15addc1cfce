"""Correlations of published tables as they are known, and of own scores with own losses."""

import dataclasses
import json

import numpy as np
import pytest
from tests.scaling.fits.laws import Law
from tests.scaling.synthetic_ladders import fill, ladder
from tests.synthetic_records import RECIPE, plan, score, simulate

import archlab
from archlab.designs.correlation import correlate
from archlab.designs.measured import scores_of
from archlab.errors import ArchlabError
from archlab.tasks import setting

SPECS = {"a": "mh-attention swiglu", "b": "mamba swiglu", "c": "hyena swiglu", "d": "mamba", "e": "mlp"}
SETTINGS = [setting("compression"), setting("selective-copying")]


def own_scores(truth: dict[str, float]):
    labelled = {archlab.architecture(SPECS[label]): value for label, value in truth.items()}
    trials = plan(labelled, SETTINGS)
    found = score(trials, simulate(trials, lambda trial: labelled[trial.architecture], spread=0.01))
    names = {SPECS[label]: label for label in truth}
    return found, names


def test_five_points_of_the_paper():
    (row,) = correlate(published="mad").rows
    assert row.pearson == pytest.approx(-0.982, abs=5e-4)
    assert row.spearman == pytest.approx(-1)
    assert (row.tau, row.decisions.right, row.decisions.total) == (1, 10, 10)
    assert row.interval.low < 0.5
    assert "5 points say little" in correlate(published="mad").headline


def test_nine_architectures_of_mesanet():
    found = correlate(published="mesanet", size="1b", tokens="50B", metric="slimpajama val ppl")
    mean = found.rows[0]
    assert (mean.score, round(mean.tau, 2)) == ("mean", 0.65)
    assert mean.decisions == (29, 6, 1)
    assert [row.score for row in found.rows[1:]][:1] == ["in-context-recall"]
    assert all(row.p_holm >= row.p for row in found.rows[1:])
    assert found.unmatched == ("SWA-4", "SWA-64", "SWA-256", "SWA-1024")
    json.dumps(found.to_dict(), allow_nan=False)
    assert len(found.to_frame()) == 6
    assert "tau 0.65" in found._repr_html_()


def test_leaving_one_out_names_the_most_influential():
    mean = correlate(published="mesanet", size="1B", tokens="50B").rows[0]
    assert mean.influence.low <= mean.influence.tau <= mean.influence.high
    assert mean.influence.architecture in mean.architectures


def test_own_scores_against_own_losses(tmp_path):
    truth = dict(zip(SPECS, (0.9, 0.8, 0.6, 0.4, 0.2), strict=True))
    scores, names = own_scores(truth)
    trainings = [one for i, label in enumerate(SPECS) for one in ladder(label, Law(E=1.6 + 0.05 * i), noise=0.001)]
    store = fill(tmp_path / "lm.db", trainings)
    found = correlate(scores, store, names={label: spec for spec, label in names.items()})
    assert found.rows[0].outcome == "least loss at 1e+17 FLOPs"
    mean = found.rows[0]
    assert mean.decisions == (10, 0, 0)
    assert mean.pearson < -0.9
    assert mean.score_reliability > 0.9
    assert mean.score_intervals[0].low < mean.scores[0] < mean.score_intervals[0].high
    assert found.unmatched == ()


def test_capacities_are_columns_of_their_own_beside_the_mean_and_the_tasks():
    levels = dataclasses.replace(RECIPE, levels=(2, 4, 8, 16))
    trials = plan([SPECS[name] for name in "abc"], [setting("selective-copying", length=64)], recipe=levels)
    records = simulate(trials, lambda trial: 0.5)
    right = {SPECS["a"]: (1, 1, 1, 1), SPECS["b"]: (1, 0.95, 0.85, 0.5), SPECS["c"]: (0.8, 0.5, 0.5, 0.5)}
    for trial in trials:
        parts = np.repeat(np.array(right[trial.architecture.label], dtype=np.float32), 50)
        units = {"numerators": parts, "denominators": np.ones_like(parts)}
        records[trial.key] = dataclasses.replace(
            records[trial.key], result=dataclasses.replace(records[trial.key].result, **units)
        )
    columns = {one.name: one for one in scores_of(score(trials, records))}
    assert [one.kind for one in columns.values()] == ["mean", "task", "capacity"]
    assert columns["copy capacity"].values == pytest.approx({SPECS["a"]: 16, SPECS["b"]: 4 * 2**0.5, SPECS["c"]: 1})


def test_a_noisy_task_is_told_from_one_that_does_not_predict():
    scores, _ = own_scores(dict(zip(SPECS, (0.6, 0.6, 0.6, 0.6, 0.6), strict=True)))
    rng = np.random.default_rng(0)
    assert correlate(published="mesanet").rows[0].score_reliability is None
    from archlab.designs.correlation import _correlation
    from archlab.designs.measured import Measured

    names = [f"m{i}" for i in range(21)]
    values = dict(zip(names, rng.standard_normal(21), strict=True))
    loss = Measured(name="loss", values=dict(zip(names, rng.standard_normal(21), strict=True)), better="lower")
    noisy = Measured(name="x", values=values, draws={name: value + rng.standard_normal(400) for name, value in values.items()})
    precise = Measured(name="x", values=values, draws={n: value + 0.01 * rng.standard_normal(400) for n, value in values.items()})
    assert _correlation(noisy, loss, {}).verdict == "too noisy to tell"
    assert _correlation(precise, loss, {}).verdict in ("predicts little at best", "too few to tell")
    assert _correlation(noisy, loss, {}).ceiling < 0.6
    assert scores.complete


def test_published_losses_take_the_names_of_archlab():
    truth = {"transformer++": 0.9, "mamba-2": 0.5, "gla": 0.7, "deltanet": 0.6}
    trials = plan([archlab.architecture(name) for name in truth], SETTINGS)
    found = score(trials, simulate(trials, lambda trial: truth[trial.architecture.label]))
    rows = correlate(found, published="mesanet", size="1B", tokens="50B").rows
    assert set(rows[0].architectures) == set(truth)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({}, "no MAD scores: give a store"),
        ({"published": "kimi-linear"}, "Kimi Linear has no MAD scores"),
        ({"published": "mesanet", "size": "7B"}, "unknown size of MesaNet: '7B'"),
        ({"published": "mesanet", "metric": "loss"}, "unknown metric of MesaNet: 'loss'"),
        ({"published": "mesanet", "size": 5}, "size=5: give text"),
    ],
)
def test_what_cannot_be_correlated_is_refused(asked, reason):
    with pytest.raises(ArchlabError, match=reason):
        correlate(**asked)


def test_names_that_do_not_match_are_named():
    scores, _ = own_scores({"a": 0.9, "b": 0.5, "c": 0.2})
    with pytest.raises(ArchlabError, match=r"fewer than three architectures have both: scores of .*--match LOSSES=SCORES"):
        correlate(scores, published="mesanet", size="1B", tokens="50B")


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ({"Hawkk": "Hawk"}, "unknown architecture beside the losses, in match Hawkk=Hawk: 'Hawkk': did you mean 'Hawk'"),
        ({"Hawk": "xLTSM"}, "unknown architecture beside the scores, in match Hawk=xLTSM: 'xLTSM': did you mean 'xLSTM'"),
        ({"Hawk": "xLSTM"}, "Hawk and xLSTM beside the losses are both xLSTM beside the scores"),
    ],
)
def test_names_to_match_are_there_and_no_number_is_lost(names, reason):
    with pytest.raises(ArchlabError, match=reason):
        correlate(published="mesanet", size="1B", tokens="50B", names=names)
