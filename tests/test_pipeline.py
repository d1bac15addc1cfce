"""The design study: from candidates to a decision, within its time."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import archlab
from archlab import pipeline
from archlab.errors import ArchlabError
from archlab.jobs.events import JobFinished, RunStarted
from archlab.jobs.executor import EXECUTORS
from archlab.reports.decision_page import render_decision
from archlab.scaling import api as scaling
from archlab.scaling.fits import Resampling
from archlab.scaling.trial import LMTrial
from tests.fake_training import threads
from tests.scaling.language_models import write_corpus
from tests.scaling.synthetic_ladders import SMALL, result

CANDIDATES = ["2*mlp", "2*swiglu", "swiglu mlp", "mh-attention(heads=2) mlp"]


def loss_of(one: LMTrial) -> float:
    """The law of small models; an architecture without attention is better by a tenth of a nat."""
    return float(SMALL.loss(one.run.params, one.run.tokens)) - 0.1 * ("attention" not in one.run.spec)


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """One task in this process, language models that take no time, and speeds that are not measured."""
    monkeypatch.setitem(EXECUTORS, "threads", "tests.jobs.thread_executor:ThreadExecutor")
    monkeypatch.setattr("archlab.mad.estimate.flops_per_second", lambda trial: 1e9)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(pipeline._Price, "of_ladder", 1.0)
    monkeypatch.setattr(scaling, "make_executor", lambda *_, **__: threads(lambda one, *_: result(loss_of(one)), num_workers=2))
    monkeypatch.setattr(pipeline, "RESAMPLING", Resampling(20))
    protocol = {
        "dim": 16,
        "seeds": [0],
        "grid": {"learning_rate": [2e-3], "weight_decay": [0.1]},
        "recipe": {"steps": 2, "batch_size": 8, "evaluations": 1, "num_evaluation": 32},
        "tasks": {"compression": {"base": {"length": 8, "num_train_examples": 64}}},
    }
    ladder = {"budgets": [2e11, 4e11, 8e11], "sizes": 5, "data": str(write_corpus(tmp_path)), "tokenizer": "ascii"}
    files = {"protocol": protocol, "ladder": ladder | {"head_dim": 16, "repeat": True, "allow": ["embeddings", "corpus"]}}
    for name, values in files.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"summary": "a test", **values}))
    found = {name: str(tmp_path / f"{name}.yaml") for name in files}
    return found | {
        "reference": "mh-attention(heads=2) swiglu",
        "folder": tmp_path / "study",
        "executor": "threads",
        "workers": 1,
    }


def test_it_goes_from_candidates_to_a_decision_and_a_page(options: dict[str, Any]):
    computed: list[str] = []
    found = archlab.design(
        CANDIDATES,
        hours=0.5,
        listeners=[lambda e: computed.append(str(e.job)) if isinstance(e, JobFinished) else None],
        **options,
    )
    assert {one.label for one in found.scores.architectures} == {options["reference"], *CANDIDATES}
    roles = {one.label: one.role for one in found.shortlist}
    assert roles[options["reference"]] == "reference"
    assert sorted(roles.values()).count("for the correlation") == 1
    assert found.fresh is not None
    assert all(
        seed.seed in pipeline.FRESH_SEEDS
        for one in found.fresh.architectures
        for task in one.tasks
        for setting in task.settings
        for seed in setting.seeds
    )
    assert found.winner is not None
    assert "attention" not in found.winner
    row = next(row for row in found.rows() if row["label"] == found.winner)
    assert row["difference"] < -0.1  # it also has more tokens for its FLOPs
    assert row["multiplier"] < 1
    assert f"{found.winner} is better than {options['reference']} at 8e+11 FLOPs: it needs" in found.headline
    assert row["decode_bytes"] == 0
    page = render_decision(found, "study/archlab.db")
    assert all(stage.command in page for stage in found.stages)

    computed.clear()
    again = archlab.design(
        CANDIDATES,
        hours=0.5,
        listeners=[lambda e: computed.append(str(e.job)) if isinstance(e, JobFinished) else None],
        **options,
    )
    assert computed == []  # all of it was stored
    assert again.headline == found.headline
    assert [one.label for one in again.shortlist] == [one.label for one in found.shortlist]


@pytest.mark.slow
def test_what_does_not_fit_into_the_time_is_left_out_and_named(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pipeline._Price, "of_scores", 360.0)
    found = archlab.design(CANDIDATES, hours=0.75, **options)
    assert len(found.scores.architectures) == 3  # .45 of 2700 seconds
    assert found.not_tried[0] == "2 candidates: 45 min suffice for 3"


@pytest.mark.slow
def test_a_stage_ends_when_its_time_is_over_and_a_later_call_goes_on(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as context:
        context.setattr(pipeline, "FOR_FITS", 1.0)  # no time for language models: the first one that ends is the last
        context.setattr(pipeline._Price, "affordable", lambda self, total: dict(self.candidates))
        cut = archlab.design(CANDIDATES, hours=0.5, **options)
    assert cut.stages[2].over
    assert any(line.startswith("language models: the time was over; `archlab scale run") for line in cut.not_tried)
    assert cut.winner is None
    render_decision(cut, "study/archlab.db")
    whole = archlab.design(CANDIDATES, hours=0.5, **options)
    assert whole.winner is not None
    assert [one.label for one in whole.shortlist] == [one.label for one in cut.shortlist]


@pytest.mark.parametrize(
    ("candidates", "changed", "reason"),
    [
        (CANDIDATES, {"hours": 1e-4}, r"hours=0.0001: scores and language models of two architectures take about .* give more"),
        ([], {}, "candidates: there is none beside the reference"),
        (CANDIDATES, {"reference": "mamba3x"}, "mamba3x"),
        (CANDIDATES, {"protocol": "none"}, "none"),
        (CANDIDATES, {"ladder": "none"}, "none"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(options: dict[str, Any], candidates, changed, reason: str):
    with pytest.raises(ArchlabError, match=reason):
        archlab.design(candidates, **{"hours": 0.5, **options, **changed})
    assert not options["folder"].exists()


@pytest.mark.slow
def test_a_space_is_walked_where_there_is_time_and_searched_where_there_is_not(options: dict[str, Any], tmp_path: Path):
    space = tmp_path / "space.yaml"
    space.write_text(yaml.safe_dump({"summary": "a test", "spec": "{layer:3}", "rules": {"layer": ["swiglu", "mlp"]}}))
    walked = archlab.design(space=space, hours=0.5, **options)
    assert len(walked.scores.architectures) == 9
    again = archlab.design(space=space, hours=0.5, **options)
    assert again.headline == walked.headline
    with pytest.MonkeyPatch.context() as context:
        context.setattr(pipeline._Price, "of_scores", 100.0)
        searched = archlab.design(space=space, hours=0.3, **options | {"folder": tmp_path / "searched"})
    assert 3 <= len(searched.scores.architectures) <= 5
    assert "candidates: 18 min suffice for" in searched.not_tried[0]


def test_a_folder_of_other_candidates_is_refused(options: dict[str, Any]):
    archlab.design(CANDIDATES[:1], hours=0.5, **options)
    with pytest.raises(ArchlabError, match=r"holds a study of other candidates \(2\*mlp\): give another folder"):
        archlab.design(CANDIDATES[1:], hours=0.5, **options)


@pytest.mark.slow
def test_an_interrupted_study_goes_on(options: dict[str, Any]):
    def interrupt(event: object) -> None:
        if isinstance(event, RunStarted) and event.jobs and isinstance(event.jobs[0], LMTrial):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        archlab.design(CANDIDATES, hours=0.5, listeners=[interrupt], **options)
    assert archlab.design(CANDIDATES, hours=0.5, **options).winner is not None


def test_no_shortlist_is_taken_without_scores(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    def late(watch: pipeline._Watch, _: object) -> None:
        watch.over = True
        raise pipeline.TimeIsUpError

    with monkeypatch.context() as slow:
        slow.setattr(pipeline._Watch, "__call__", late)
        with pytest.raises(ArchlabError, match=r"hours=0\.5: over before a candidate had a score: .* goes on from here"):
            archlab.design(CANDIDATES[:2], hours=0.5, **options)
    assert not (options["folder"] / "plan.yaml").exists()
    assert archlab.design(CANDIDATES[:2], hours=0.5, **options).winner is not None
