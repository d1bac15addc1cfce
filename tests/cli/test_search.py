"""archlab search, spaces, and describe --svg."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.command_line import CommandLine, Outcome
from tests.searching.spaces import made_up

from archlab.jobs.executor import EXECUTORS

ASKED = ("--space", "stacks6", "--protocol", "smoke", "--tasks", "compression", "--evaluations", "9", "--executor", "threads")


@pytest.fixture
def search(archlab: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    monkeypatch.setitem(EXECUTORS, "threads", "tests.jobs.thread_executor:ThreadExecutor")
    monkeypatch.setattr("archlab.api.train_together", made_up)
    monkeypatch.setattr("archlab.mad.memory.step_bytes", lambda *_, **__: 1 << 20)
    monkeypatch.setattr("archlab.mad.estimate.flops_per_second", lambda trial: 1e9)
    return lambda *words: archlab("search", *ASKED, *words)


def test_a_search_prints_its_front_and_writes_its_page(search: Callable[..., Outcome], archlab: CommandLine, tmp_path: Path):
    found = search("-o", "page.html", "--as", "mine")
    assert found.status == 0
    assert "winner" in found.out
    assert "swiglu" in found.out
    assert max(map(len, found.out.splitlines())) <= 100
    assert "smoke: 8 of 9 architectures" in found.err
    assert "from fresh seeds: 1 of" in found.err or "from fresh seeds: 2 of" in found.err
    assert "scale it up: archlab scale plan " in found.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archlab.db", "page.html"]
    again = search("--json")
    document = json.loads(again.out)
    assert document["candidates"][document["winner"]]["number"] == document["winner"]
    assert "9 of 9 architectures" in again.err
    assert json.loads(archlab("scores", "--run", "mine", "--json").out)["complete"]


def test_a_dry_run_counts_and_writes_nothing(search: Callable[..., Outcome], tmp_path: Path):
    found = search("--dry-run")
    assert found.status == 0
    assert "64 architectures" in " ".join(found.out.split())
    assert "smoke: 12 architectures, 12 trials" in found.err
    assert json.loads(search("--dry-run", "--json").out)["size"] == 64
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--proposer", "nsga"), "error: unknown proposer 'nsga': did you mean 'nsga2'?"),
        (("--objectives", "mad,sate"), "error: unknown objective 'sate': did you mean 'state'?"),
        (("--rungs", "smoke"), "error: rungs: smoke is there twice"),
        (("--space", "own.yaml"), "error: space own.yaml: cannot be read"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    search: Callable[..., Outcome], words: tuple[str, ...], reason: str, tmp_path: Path
):
    found = search(*words)
    assert found.status == 2
    assert found.err.startswith(reason)
    assert len(found.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_spaces_are_listed_and_shown(archlab: CommandLine):
    assert "stacks6 64 architectures" in " ".join(archlab("spaces", "--protocol", "smoke").out.split())
    text = archlab("spaces", "stacks6").out
    assert text.startswith("summary: the 64 stacks")
    assert json.loads(archlab("spaces", "stacks6", "--json").out)["rules"] == {"layer": ["mh-attention", "swiglu"]}


def test_a_stack_is_drawn(archlab: CommandLine, tmp_path: Path):
    found = archlab("describe", "3*[mamba swiglu] mh-attention", "--svg", "stack.svg")
    assert (found.status, found.err) == (0, "wrote stack.svg\n")
    assert (tmp_path / "stack.svg").read_text().startswith("<svg ")
    refused = archlab("describe", "mlp swiglu mamba", "--svg", "missing/stack.svg")
    assert (refused.status, refused.err) == (
        2,
        "error: picture missing/stack.svg: there is no directory missing: create it first\n",
    )
