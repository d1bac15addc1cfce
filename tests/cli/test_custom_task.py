"""A task of one file: it keeps the contract, is drawn, is trained by workers and scored."""

import json
from pathlib import Path

import pytest
from tests.cli.command_line import CommandLine, elsewhere

from archlab.sources import import_file
from archlab.tasks import setting
from archlab.testing import TaskContract

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "custom_task.py"
KNOWN = ("--tasks-file", str(EXAMPLE))


@pytest.mark.parametrize("check", [name for name in dir(TaskContract) if name.startswith("test_")])
def test_it_keeps_the_contract(outside: Path, check: str) -> None:
    import_file(EXAMPLE, "tasks")
    suite = type("Suite", (TaskContract,), {"task": setting("running-sum", vocab_size=5)})()
    getattr(suite, check)()


def test_it_is_drawn(archlab: CommandLine) -> None:
    drawn = json.loads(archlab("tasks", "show", "sum", "--set", "length=5", *KNOWN, "--json").out)
    assert drawn["targets"] == [sum(drawn["inputs"][: i + 1]) % 8 for i in range(5)]
    assert "d0…d7 digits" in archlab("tasks", "show", "running-sum", *KNOWN).out
    assert archlab("tasks", "list", *KNOWN).out.count("running-sum") == 1


@pytest.mark.slow
def test_it_is_trained_by_workers_and_scored(archlab: CommandLine, tmp_path: Path) -> None:
    protocol = archlab("protocols", "smoke").out + "  running-sum: {base: {num_train_examples: 64}, vary: {length: [8]}}\n"
    Path("sums.yaml").write_text(protocol)
    command = ("run", "transformer++", "--protocol", "sums.yaml", "--tasks", "running-sum,compression", "--workers", "1")
    outcome = archlab(*command, *KNOWN, "--json")
    assert outcome.status == 0, outcome.err
    document = json.loads(outcome.out)
    assert document["complete"] is True
    assert list(document["architectures"][0]["tasks"]) == ["compression", "running-sum"]
    known = archlab("scores", *KNOWN).out
    heads = [line.split() for line in known.splitlines() if line.startswith("architecture")]
    assert [row[1] for row in heads[:2]] == ["comp.", "sum"]
    assert archlab("report", *KNOWN).status == 0
    assert json.loads(archlab("trials", "--tasks", "sum", *KNOWN, "--json").out)[1]["setting"].startswith("running-sum(length=8")
    scores, as_json, trials, page = elsewhere(  # where the file has not been imported
        ("scores",), ("scores", "--json"), ("trials", "--tasks", "running-sum"), ("report",), folder=tmp_path
    )
    assert [outcome.status for outcome in (scores, as_json, trials, page)] == [0] * 4, scores.err
    table = scores.out
    heads = [line.split() for line in table.splitlines() if line.startswith("architecture")]
    assert [row[1] for row in heads[:2]] == ["comp.", "running-sum"]
    scored = [line for line in known.splitlines() if line.startswith("transformer++")]
    assert scored[0] in table
    assert "task not available: running-sum: scores are from the store" in table
    assert json.loads(as_json.out)["chance"]["running-sum"] is None
    assert "(task not available)" in " ".join(trials.out.split())
    assert "running-sum: task not available" in (tmp_path / "report.html").read_text()
