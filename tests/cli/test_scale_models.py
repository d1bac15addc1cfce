"""archlab scale run --keep, sample, evaluate: what was trained stays and can be used."""

import json
from pathlib import Path

import pytest
from tests.cli.command_line import CommandLine
from tests.jobs.thread_executor import ThreadExecutor
from tests.scaling.language_models import tiny_corpus, tiny_run

from archlab.scaling.recipe import LMRecipe
from archlab.scaling.training_plan import Plan
from archlab.scaling.trial import LMTrial


@pytest.fixture
def tiny_plan(archlab: CommandLine, tmp_path: Path) -> str:
    corpus = tiny_corpus(tmp_path)
    Plan((tiny_run(corpus),)).save(tmp_path / "plan.yaml")
    return str(tmp_path / "plan.yaml")


@pytest.fixture
def in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings run in this process: workers take seconds to start."""
    monkeypatch.setattr("archlab.scaling.api.make_executor", lambda work, *_, **__: ThreadExecutor(work, 1))


@pytest.mark.slow
def test_what_was_trained_is_sampled_and_evaluated(archlab: CommandLine, tiny_plan: str):
    trained = archlab("scale", "run", tiny_plan, "--workers", "1", "--json")
    assert trained.status == 0, trained.err
    (row,) = json.loads(trained.out)["runs"]
    assert not Path("archlab.db.checkpoints").exists()
    sampled = archlab("scale", "sample", row["key"][:8], "--prompt", "line ", "--tokens", "9", "--seed", "3")
    assert (sampled.status, sampled.out.startswith("line ")) == (0, True), sampled.err
    assert f"{row['key'][:8]} (tiny@" in sampled.err
    document = json.loads(archlab("scale", "sample", "tiny", "--prompt", "line ", "--tokens", "9", "--seed", "3", "--json").out)
    assert (document["model"], document["prompt"] + document["text"] + "\n") == (row["key"], sampled.out)
    shown = archlab("scale", "evaluate", "tiny")
    assert (shown.status, f"{row['result']['loss']:.4f}" in shown.out) == (0, True), shown.err
    for words in ("nats a token", "bits a byte", "position 1", "positions 9-16"):
        assert words in shown.out
    Path("other.txt").write_text("".join(f"quite another line {i}\n" for i in range(4000)))
    text = row["run"]["corpus"]
    found = json.loads(archlab("scale", "evaluate", "tiny", "--data", f"{text},other.txt#max_bytes=6e4,field=x", "--json").out)
    assert [each["data"] for each in found] == [text, "other.txt#max_bytes=6e4,field=x"]
    assert found[0]["loss"] == pytest.approx(row["result"]["loss"], abs=1e-6)


@pytest.mark.usefixtures("in_threads")
@pytest.mark.parametrize(("keep", "left"), [("none", set()), ("checkpoints", {"archlab.db.checkpoints", "archlab.db.models"})])
def test_what_stays_is_chosen_and_changes_no_key(archlab: CommandLine, tiny_plan: str, keep: str, left: set[str]):
    first = archlab("scale", "run", tiny_plan, "--workers", "1", "--keep", keep, "--json")
    assert first.status == 0, first.err
    assert {path.name for path in Path().glob("archlab.db.*") if path.is_dir()} == left
    again = json.loads(archlab("scale", "run", tiny_plan, "--workers", "1", "--json").out)
    assert (again["computed"], again["reused"]) == (0, 1)
    checkpoints = [path.name for path in Path().glob("archlab.db.checkpoints/*/*")]
    assert checkpoints == (["step-20"] if keep == "checkpoints" else [])  # what was kept stays, whatever is asked for later


def test_what_makes_no_sense_is_refused_in_one_line(archlab: CommandLine, tiny_plan: str):
    for arguments, words in [
        (("run", tiny_plan, "--keep", "all"), "--keep"),
        (("sample", "tiny"), "store archlab.db does not exist: `archlab scale run PLAN"),
        (("evaluate", "tiny"), "store archlab.db does not exist: `archlab scale run PLAN"),
        (("sample", "tiny", "--tokens", "0"), "--tokens"),
    ]:
        refused = archlab("scale", *arguments)
        assert (refused.status, refused.out, words in refused.err) == (2, "", True), refused.err
    Path("archlab.db.models").write_text("a file")
    refused = archlab("scale", "run", tiny_plan)
    assert (refused.status, refused.err.count("\n")) == (2, 1)
    assert "models archlab.db.models: File exists: give another folder for the store, or --keep none" in refused.err
    assert not Path("archlab.db").exists()


@pytest.mark.usefixtures("in_threads")
def test_weights_that_cannot_be_written_are_told(archlab: CommandLine, tiny_plan: str):
    (run,) = Plan.load(tiny_plan).runs
    Path("archlab.db.models").mkdir()
    (Path("archlab.db.models") / f"{LMTrial(run, LMRecipe()).key}.unfinished").write_text("in the way")
    outcome = archlab("scale", "run", tiny_plan, "--workers", "1", "--json")
    assert outcome.status == 0
    assert "warning: the weights of tiny, width 16," in " ".join(outcome.err.split())
    assert "were not kept: FileExistsError" in " ".join(outcome.err.split())
    assert json.loads(outcome.out)["runs"][0]["result"]["not_kept"]
