"""Searches with trainings that take no time: what they propose, keep and conclude."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.searching.spaces import made_up, truth

import archlab
from archlab.errors import ArchlabError
from archlab.jobs.executor import EXECUTORS
from archlab.mad.store import TrialStore
from archlab.searching.costs import COSTS, Cost
from archlab.searching.result import Search

ASKED: dict[str, Any] = {"tasks": ["compression"], "evaluations": 14, "executor": "threads", "workers": 1, "listeners": []}
TRAINED: list[str] = []


def train(trials: Any, on_progress: Any, thresholds: Any) -> Iterator[Any]:
    """Note what is trained."""
    TRAINED.extend(trial.key for trial in trials)
    yield from made_up(trials, on_progress, thresholds)


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(EXECUTORS, "threads", "tests.jobs.thread_executor:ThreadExecutor")
    monkeypatch.setattr("archlab.api.train_together", train)
    monkeypatch.setattr("archlab.mad.memory.step_bytes", lambda *_, **__: 1 << 20)
    TRAINED.clear()


class Killer:
    """A listener that ends the run by Ctrl-C once it has seen so many trainings."""

    def __init__(self, limit: int) -> None:
        self.left = limit

    def __call__(self, event: Any) -> None:
        self.left -= isinstance(event, archlab.JobFinished)
        if self.left == 0 and isinstance(event, archlab.JobFinished):
            raise KeyboardInterrupt


def search(proposer: str = "guided", **options: Any) -> Search:
    return archlab.search("stacks6", "smoke", proposer=proposer, **ASKED | options)


def test_a_search_gives_a_front_and_measures_the_winner_again():
    found = search(seeds=2)
    values = [(one.values["mad"], one.values["state"]) for one in found.candidates]
    for one in found.candidates:
        beaten = any(
            score >= one.values["mad"]
            and state <= one.values["state"]
            and (score, state) != (one.values["mad"], one.values["state"])
            for score, state in values
        )
        assert one.on_front == (not beaten)
        assert one.values["mad"] == pytest.approx(truth(one.architecture), abs=0.02)
    assert found.best.values["mad"] == max(score for score, _ in values)
    winner = next(one for one in found.again if one.role == "winner")
    assert (winner.number, winner.seeds, winner.first) == (found.winner, (2, 3), found.best.values["mad"])
    assert winner.fresh == pytest.approx(truth(found.best.architecture), abs=0.02)
    assert winner.fresh != winner.first
    assert len(TRAINED) == len(set(TRAINED)) == 2 * (len(found.candidates) + len(found.again))
    assert found.size == (64, True)
    assert found.importance[0].evaluated >= 14
    assert set(found.lineage(found.winner)) <= set(range(found.winner))
    assert len(found.deeper["stacked"].layers) == 12
    assert "heads" not in found.command
    assert json.loads(json.dumps(found.to_dict()))["front"] == [one.number for one in found.front]
    assert len(found.to_frame()) == len(found.candidates)
    assert found.best.spec in found._repr_html_()


@pytest.mark.parametrize("proposer", ["guided", "nsga2", "tpe", "random", "exhaustive"])
def test_a_search_that_is_killed_again_and_again_ends_as_one_that_is_not(proposer: str, tmp_path: Path):
    if proposer == "tpe":
        pytest.importorskip("optuna")
    whole = search(proposer, store="whole.db")
    computed = list(TRAINED)
    TRAINED.clear()
    for limit in (3, 2, 5):
        with pytest.raises(KeyboardInterrupt):
            search(proposer, store="killed.db", listeners=[Killer(limit)])
    assert len(TRAINED) == 3 + 2 + 5
    found = search(proposer, store="killed.db")
    assert found == whole
    assert found.scores == whole.scores
    assert sorted(TRAINED) == sorted(computed), "nothing is trained twice"
    TRAINED.clear()
    assert search(proposer, store="killed.db", workers=2) == whole
    assert TRAINED == []


def test_results_of_earlier_runs_are_used():
    archlab.run("6*swiglu", "smoke", **{name: value for name, value in ASKED.items() if name != "evaluations"})
    assert len(TRAINED) == 1
    search("exhaustive", evaluations=None)
    assert len(TRAINED) == len(set(TRAINED)) == 64 + 1, "the winner once more"


def test_the_best_part_of_a_rung_goes_on():
    found = archlab.search("stacks6", "quick", rungs=["smoke"], promote=0.25, **ASKED | {"evaluations": 16})
    last = [one for one in found.candidates if one.rung == "quick"]
    assert [one.rung for one in found.candidates if one.origin != "consensus"].count("smoke") == 12
    assert len([one for one in last if one.origin != "consensus"]) == 4
    assert found.best in last
    assert all(one in last for one in found.front)
    assert found.rungs == ("smoke", "quick")
    assert max(truth(one.architecture) for one in found.candidates) == truth(found.best.architecture)
    assert found.scores.protocol == "quick"
    assert {a.architecture for a in found.scores.architectures} == {one.architecture for one in last}


def test_a_search_is_remembered_as_a_run_with_a_label_of_its_own():
    for _ in range(2):
        found = search(label="first", store="a.db")
    with pytest.raises(ArchlabError, match=r"label='first' \(--as\): run 1 of a\.db has it: give another"):
        search(label="first", seed=1, store="a.db")
    with archlab.open("a.db") as results:
        assert results.scores("first") == found.scores
        assert [*results.runs().label] == ["first", "first"]


def test_a_failed_training_leaves_a_candidate_without_a_score(monkeypatch: pytest.MonkeyPatch):
    def fail(trials: Any, *rest: Any) -> Iterator[Any]:
        if str(trials[0].architecture).startswith("swiglu"):
            raise ValueError("unlucky")
        yield from made_up(trials, *rest)

    monkeypatch.setattr("archlab.api.train_together", fail)
    found = search()
    assert {str(one.architecture).startswith("swiglu") for one in found.unmeasured} == {True}
    assert not any(one.on_front for one in found.unmeasured)
    assert found.best.values["mad"]
    monkeypatch.setattr("archlab.api.train_together", lambda *_: (_ for _ in ()).throw(ValueError("unlucky")))
    with pytest.raises(ArchlabError, match=r"search of space stacks6: nothing could be scored: .*unlucky"):
        search(store="other.db")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"space": "stack6"}, "unknown space 'stack6': did you mean 'stacks6'"),
        ({"proposer": "nsga3"}, "unknown proposer 'nsga3': did you mean 'nsga2'"),
        ({"objectives": ["sate"]}, "unknown objective 'sate': did you mean 'state'"),
        ({"objectives": ["state"]}, r"objectives=\['state'\]: none is a score: add mad, or a task"),
        ({"objectives": ["recall"]}, "unknown objective 'recall'"),
        ({"rungs": ["smoke"]}, "rungs: smoke is there twice"),
        ({"promote": 0.0}, "promote=0.0: give a number above 0 and of at most 1"),
        ({"evaluations": 0}, "evaluations=0: give a whole number of at least 1"),
        ({"label": "7"}, "a number could be mistaken"),
    ],
    ids=str,
)
def test_wrong_input_is_refused_before_anything_is_written(options: dict[str, Any], reason: str, tmp_path: Path):
    with pytest.raises(ArchlabError, match=reason) as refusal:
        archlab.search(**{"space": "stacks6", "protocol": "smoke", **ASKED, **options})
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("proposer", ["guided", "exhaustive"])
def test_a_space_without_members_is_refused_before_anything_is_written(proposer: str, tmp_path: Path):
    (tmp_path / "none.yaml").write_text("summary: x\nspec: '{mlp|swiglu}'\nat_most: {params: 1}\n")
    with pytest.raises(ArchlabError, match="space none: none of 1000 samples is within the limits"):
        archlab.search("none.yaml", "smoke", proposer=proposer, **ASKED)
    assert [path.name for path in tmp_path.iterdir()] == ["none.yaml"]


def test_tpe_without_optuna_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ArchlabError, match=r"proposer tpe: needs Optuna: pip install 'archlab\[search\]'"):
        search("tpe")


def test_a_cost_that_is_not_known_is_refused_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(COSTS, "state", Cost("", lambda *_: None))
    with pytest.raises(ArchlabError, match=r"objective state: .*: it is not known of a layer: leave the objective out"):
        search()
    assert TRAINED == []


def test_scores_of_single_tasks_are_objectives():
    found = search(tasks=["recall"], objectives=["flops", "recall", "decode-memory"])
    assert list(found.objectives) == ["in-context-recall", "flops", "decode-memory"], "the first score decides"
    with TrialStore("archlab.db") as store:
        assert len(store.records()) == len(TRAINED)
