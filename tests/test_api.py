"""What notebooks call: `archlab.run` and the functions around a store."""

from collections.abc import Callable
from pathlib import Path
from shutil import copy
from typing import Any

import pytest

import archlab
from archlab.jobs.events import Event, JobFinished, JobStarted, RunEnded, RunStarted
from archlab.jobs.executor import EXECUTORS
from archlab.mad.store import TrialStore

HALF = {"protocol": "smoke", "tasks": ["compression"], "executor": "threads", "workers": 1, "listeners": []}


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Trials are trained in this process, results go to an empty folder, and speeds are not measured."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(EXECUTORS, "threads", "tests.jobs.thread_executor:ThreadExecutor")
    monkeypatch.setattr("archlab.mad.estimate.flops_per_second", lambda trial: 1e9)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A store with one run of two architectures, and the scores that the run returned."""
    path = tmp_path_factory.mktemp("api") / "results.db"
    with pytest.MonkeyPatch.context() as context:
        context.setitem(EXECUTORS, "threads", "tests.jobs.thread_executor:ThreadExecutor")
        return path, archlab.run(["mlp swiglu", "mh-attention(heads=2)"], store=path, label="first", **HALF)


def test_a_run_returns_the_scores_that_the_store_gives(stored: tuple[Path, Any]):
    path, scores = stored
    assert scores.complete
    assert sorted(a.label for a in scores.architectures) == ["mh-attention(heads=2)", "mlp swiglu"]
    with archlab.open(path) as results:
        assert results.scores() == scores
        assert results.scores("first") == scores
        assert results.runs()[["label", "protocol", "trials", "done"]].to_dict("records") == [
            {"label": "first", "protocol": "smoke", "trials": 2, "done": 2}
        ]
        assert "first" in results._repr_html_()


def test_a_second_call_computes_nothing_and_says_so_to_its_listeners(
    stored: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, scores = Path(copy(stored[0], tmp_path)), stored[1]
    events: list[Event] = []
    outcomes, read = TrialStore.outcomes, []

    def noted(self: TrialStore, *args: Any, **options: Any) -> Any:
        found = outcomes(self, *args, **options)
        read.extend(record.key for record in found)
        return found

    monkeypatch.setattr(TrialStore, "outcomes", noted)
    again = archlab.run(["mlp swiglu", "mh-attention(heads=2)"], store=path, **HALF | {"listeners": [events.append]})
    assert again == scores
    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunEnded)
    assert (events[-1].summary.computed, events[-1].summary.reused) == (0, 2)
    assert len(read) == 2, "every row is read once"


def test_listeners_are_called_with_every_event():
    events: list[Event] = []
    archlab.run("mlp", store="one.db", **HALF | {"listeners": [events.append]})
    assert [type(event) for event in events if isinstance(event, JobFinished | RunEnded)] == [JobFinished, RunEnded]


def test_a_preview_counts_what_is_stored_and_writes_nothing(stored: tuple[Path, Any], tmp_path: Path):
    asked = {name: value for name, value in HALF.items() if name != "listeners"}
    fresh = archlab.preview(["mlp swiglu"], store="none.db", **asked)
    assert (fresh.trials, fresh.stored, fresh.left, fresh.num_workers) == (1, 0, 1, 1)
    known = archlab.preview(["mlp swiglu"], store=stored[0], **asked)
    assert (known.trials, known.stored, known.left) == (1, 1, 0)
    assert known.to_frame().value["trials"] == 1
    assert "<table" in fresh._repr_html_()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"executor": "locl"}, "unknown executor 'locl': did you mean 'local'"),
        ({"protocol": "smok"}, "unknown protocol 'smok': did you mean 'smoke'"),
        ({"tasks": ["compresion"]}, "did you mean 'compression'"),
        ({"tasks": []}, "tasks"),
        ({"workers": 0, "executor": "local"}, "workers=0: give a whole number of at least 1"),
        ({"population": 0}, "population=0: give a whole number of at least 1"),
        ({"seeds": -1}, "seeds=-1: give a whole number of at least 1"),
        ({"seeds": [-1]}, "seeds=-1: give a whole number of at least 0"),
        ({"race": "fast"}, "race='fast': give one of exact, halving, off"),
        ({"device": "tpu"}, "device='tpu': give one of cpu, cuda"),
        ({"specs": "mpl"}, "unknown layer 'mpl': did you mean 'mlp'"),
        ({"specs": []}, "architectures are empty: give at least one"),
    ],
    ids=str,
)
@pytest.mark.parametrize("call", [archlab.run, archlab.preview])
def test_wrong_input_is_refused_before_anything_is_written(
    call: Callable[..., Any], options: dict[str, Any], message: str, tmp_path: Path
):
    given = {"specs": "mlp", **HALF, **options}
    if call is archlab.preview:
        del given["listeners"]
    with pytest.raises(archlab.ArchlabError, match=message) as refusal:
        call(**given)
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_a_study_is_run_by_the_path_of_its_file(tmp_path: Path):
    (tmp_path / "study.yaml").write_text("protocol: smoke\ntasks: [compression]\narchitectures: {plain: mlp}\n")
    asked = {"executor": "threads", "workers": 1}
    (tmp_path / "upper.YAML").write_text((tmp_path / "study.yaml").read_text())
    for specs in ("study.yaml", ["study.yaml"], Path("study.yaml"), "upper.YAML"):
        assert archlab.preview(specs, seeds=3, **asked).to_dict()["seeds"] == [0, 1, 2]
    (score,) = archlab.run("study.yaml", listeners=[], **asked).architectures
    assert score.label == "plain"
    with pytest.raises(archlab.ArchlabError, match=r"the study study\.yaml names its own"):
        archlab.run("study.yaml", "paper")


def test_describe_is_a_frame_of_layers_and_their_total():
    frame = archlab.describe("mh-attention swiglu", dim=64, length=32)
    assert frame.layer.tolist() == ["mh-attention", "swiglu", "total"]
    whole = archlab.architecture("mh-attention swiglu").num_params(vocab_size=16, length=32, dim=64)
    assert frame.parameters.iloc[-1] == whole


def test_a_store_is_counted_merged_and_rekeyed(stored: tuple[Path, Any], tmp_path: Path):
    found = archlab.check_store(stored[0])
    assert found.unreadable == ()
    assert found.to_frame()[["all", "finished", "of the present code", "runs"]].iloc[0].tolist() == [2, 2, 2, 1]
    assert found.to_dict()["tables"] == list(found.tables)
    assert "<table" in found._repr_html_()
    assert archlab.merge_stores(stored[0], tmp_path / "all.db")["trials"] == 2
    assert archlab.merge_stores([stored[0]], tmp_path / "all.db")["trials"] == 0
    assert archlab.check_store(tmp_path / "all.db") == found
    assert archlab.rekey_store(tmp_path / "all.db") == {"moved": 0, "current": 2, "kept": 0, "left": 0}
    with archlab.open(tmp_path / "all.db") as results:
        assert results.scores() == stored[1]


def test_trials_are_computed_again_by_the_present_code(stored: tuple[Path, Any], tmp_path: Path):
    path, scores = Path(copy(stored[0], tmp_path)), stored[1]
    with archlab.open(path) as results:
        key = results.trials(architectures=["mlp swiglu"]).key.item()
    events: list[Event] = []
    ended = archlab.rerun_trials([key], store=path, executor="threads", workers=1, listeners=[events.append])
    assert (ended.computed, ended.failed) == (1, {})
    assert [event.job.key for event in events if isinstance(event, JobFinished)] == [key]
    with archlab.open(path) as results:
        assert results.scores().to_frame().equals(scores.to_frame())


def test_a_trial_that_is_not_computed_again_to_its_end_keeps_its_result(stored: tuple[Path, Any], tmp_path: Path):
    path, scores = Path(copy(stored[0], tmp_path)), stored[1]
    with archlab.open(path) as results:
        keys = [*results.trials().key]

    def interrupt(event: Event) -> None:
        if isinstance(event, JobStarted):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        archlab.rerun_trials(keys, store=path, executor="threads", workers=1, listeners=[interrupt])
    with archlab.open(path) as results:
        assert results.scores() == scores


def test_a_trial_that_fails_again_says_why_and_one_with_a_result_keeps_it(
    stored: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: Any) -> Any:
        raise ValueError("a new reason")

    path = Path(copy(stored[0], tmp_path))
    with TrialStore(path) as store:
        first, second = store.records()
        store.discard({first.key: "the old reason"})
    monkeypatch.setattr("archlab.api.train_together", broken)
    ended = archlab.rerun_trials([first.key, second.key], store=path, executor="threads", workers=1, listeners=[])
    assert ended.failed == dict.fromkeys([first.key, second.key], "ValueError: a new reason")
    with TrialStore(path) as store:
        assert (store.records([first.key])[0].error or "").startswith("ValueError: a new reason\n")
        assert store.outcomes([second.key])[0].status == "finished"


def test_trials_that_cannot_be_computed_again_are_refused_and_stay(stored: tuple[Path, Any], tmp_path: Path):
    lost = Path(copy(Path(__file__).parent / "fixtures" / "lost.db", tmp_path))
    with archlab.open(lost) as results:
        keys = [*results.trials().key]
    refusals = {
        "keys: the store has no trial abc": (stored[0], ["abc"]),
        "fading.*not available: name its file with --layers": (lost, keys),
    }
    for reason, (path, asked) in refusals.items():
        before = archlab.check_store(path)
        with pytest.raises(archlab.ArchlabError, match=reason):
            archlab.rerun_trials(asked, store=path, executor="threads", listeners=[])
        assert archlab.check_store(path) == before


def test_what_is_not_there_is_not_made(tmp_path: Path):
    with pytest.raises(archlab.ArchlabError, match="the folder missing does not exist"):
        archlab.run("mlp", store="missing/results.db", **HALF)
    for read in (archlab.open, archlab.check_store, archlab.rekey_store):
        with pytest.raises(archlab.ArchlabError, match=r"none\.db does not exist"):
            read("none.db")
    assert list(tmp_path.iterdir()) == []


def test_a_label_names_one_plan(tmp_path: Path):
    store, asked = tmp_path / "a.db", {"tasks": ["compression"], "seeds": 1, "workers": 1, "listeners": []}
    for _ in range(2):  # the same again, as after Ctrl-C
        archlab.run("mlp", "smoke", store=store, label="first", **asked)
    with pytest.raises(archlab.ArchlabError, match=r"label='first' \(--as\): run 1 of .* has it: give another"):
        archlab.run("swiglu", "smoke", store=store, label="first", **asked)
    with archlab.open(store) as results:
        assert len(results.runs()) == 2
