"""archlab scale plan: what it prints and writes."""

import json
import time
from pathlib import Path

import pytest
from tests.cli.command_line import CommandLine

from archlab.scaling.training_plan import Plan


@pytest.fixture(autouse=True)
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archlab.scaling.estimate._step_seconds", lambda run: 0.01)
    monkeypatch.setattr("archlab.scaling.estimate._NEXT_STEP", 1.001)


@pytest.fixture
def texts(tmp_path: Path) -> str:
    folder = tmp_path / "texts"
    folder.mkdir()
    for n in range(100):
        (folder / f"{n}.txt").write_text(f"document {n}: {n * n}\n" * 300)
    return str(folder)


def small(texts: str) -> tuple[str, ...]:
    return (
        "--data",
        texts,
        "--tokenizer",
        "ascii",
        "--budgets",
        "5e9, 1e10",
        "--sizes",
        "3",
        "--set",
        "spread=1.5",
        "--allow",
        "tokens-per-param",
    )


def test_a_plan_is_shown_and_written(archlab: CommandLine, texts: str):
    outcome = archlab("scale", "plan", "transformer++", "attention", *small(texts), "--length", "64", "--seeds", "2")
    assert outcome.status == 0, outcome.err
    plan = Plan.load("plan.yaml")
    assert len(plan.runs) == 2 * 2 * 3 * 2
    assert {run.corpus for run in plan.runs} == {texts}
    assert {run.length for run in plan.runs} == {64}
    lines = outcome.out.splitlines()
    assert [line.split()[0] for line in lines if line[:1].isalpha()][:3] == ["architecture", "transformer++", "attention"]
    assert max(map(len, lines)) <= 100
    text = " ".join(outcome.out.split())
    assert "24 training runs (2 seeds of each)" in text
    assert "vocabulary 99, read" in text
    assert outcome.err == "plan.yaml has 24 training runs; `archlab scale run plan.yaml` trains them\n"


def test_a_dry_run_writes_no_plan(archlab: CommandLine, texts: str, tmp_path: Path):
    outcome = archlab("scale", "plan", "attention", *small(texts), "--dry-run", "--json")
    assert (outcome.status, outcome.err) == (0, "")
    document = json.loads(outcome.out)
    assert document["output"] is None
    assert document["seconds"] == pytest.approx(sum(0.01 * run["steps"] for run in document["runs"]))
    assert all(run["bytes"] > 16 * run["params"] for run in document["runs"])
    assert [path.name for path in tmp_path.iterdir()] == ["texts"]


def test_the_study_of_the_paper_is_planned_on_paper(archlab: CommandLine, tmp_path: Path):
    outcome = archlab("scale", "plan", "--ladder", "paper", "--dry-run", "--set", "gpus=64")
    assert outcome.status == 0, outcome.err
    text = " ".join(outcome.out.split())
    assert "296 training runs" in text
    assert "GPU-hours at 3.96e+14 FLOP/s (40% of 9.89e+14) a GPU; on 64 GPUs" in text
    assert "#SBATCH --array=0-63 #SBATCH --ntasks=1 #SBATCH --gpus-per-task=1" in text
    assert "for node in $(seq 8); do ray job submit --no-wait --entrypoint-num-gpus 8 -- torchrun --standalone" in text
    assert list(tmp_path.iterdir()) == []
    one = archlab("scale", "plan", "mamba", "--ladder", "paper", "--dry-run", "--budgets", "4e18")
    torchrun = "torchrun --standalone --nproc-per-node 8 --no-python archlab scale run"
    assert f"\n{torchrun} plan.yaml --device cuda" in one.out
    assert f"\nray job submit --no-wait --entrypoint-num-gpus 8 -- {torchrun} $PWD/plan.yaml --device cuda" in one.out


def test_architectures_that_were_not_measured_are_named(archlab: CommandLine, tmp_path: Path):
    steps = [{"architecture": "mamba", "flops_per_second": 2e14}]
    (tmp_path / "bench.json").write_text(json.dumps({"device": "cuda", "steps": steps}))
    options = ("--ladder", "paper", "--dry-run", "--budgets", "4e18", "--bench", str(tmp_path / "bench.json"))
    told = archlab("scale", "plan", "mamba", "hyena", "transformer++", *options)
    assert told.status == 0
    assert "bench.json has no speed of hyena, transformer++: 40% of peak_flops is assumed" in told.err
    assert "no speed" not in archlab("scale", "plan", "mamba", *options).err


@pytest.mark.parametrize(("values", "sizes"), [("4e6,9e6", 2), ("[4e6, 9e6]", 2)])
def test_numbers_between_commas_are_a_list(archlab: CommandLine, values: str, sizes: int):
    options = ("--ladder", "paper", "--budgets", "1e17", "--set", f"params={values}", "--allow", "sizes", "--allow", "embeddings")
    told = archlab("scale", "plan", "mamba", *options, "--dry-run", "--json")
    assert len(json.loads(told.out)["runs"]) == sizes


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["mamab"], "unknown layer 'mamab': did you mean 'mamba'?"),
        (["mamba", "--ladder", "quik"], "unknown ladder 'quik': did you mean 'quick'?"),
        (["mamba", "--data", "nowhere.txt"], "corpus nowhere.txt: no such file or folder: give one, stdlib, or hf:NAME"),
        (["mamba", "--budgets", "much"], "--budgets much: give numbers, as in --budgets 2e11,4e11"),
        (["mamba", "--sizes", "0"], "sizes=0: give a whole number of at least 1"),
        (["mamba", "--set", "lr=1"], "unknown field of a ladder: 'lr': known: "),
        (
            ["mamba", "--set", "seeds=1", "--ladder", "paper"],
            "seeds=1: give a list of whole numbers of at least 0 that is not empty",
        ),
        ([], "no architecture: give at least one spec"),
        (["mamba", "--allow", "size"], "allow='size': give one of corpus, tokens-per-param"),
        (["mamba", "--set", "vocab_size=99", "--set", "params=1e3,2e3"], "params: 1,000 became 4,603 (mamba), 2,000 became"),
        (["transformer++", "--set", "vocab_size=99", "--budgets", "1e6"], "budget 1e+06 is too small for transformer++"),
    ],
)
def test_bad_requests_are_refused_in_a_line(archlab: CommandLine, arguments: list[str], error: str, tmp_path: Path):
    outcome = archlab("scale", "plan", *arguments)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.startswith(f"error: {error}")
    assert outcome.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_plan_says_what_it_does_where_that_takes_long(archlab: CommandLine, texts: str, monkeypatch: pytest.MonkeyPatch):
    archlab.patience = 0.01
    monkeypatch.setattr("archlab.scaling.estimate._step_seconds", lambda run: time.sleep(0.1) or 0.01)
    outcome = archlab("scale", "plan", "attention", *small(texts), "--dry-run")
    assert outcome.err == "preparing corpus and plan ...\ntiming training steps ...\n"
