"""A task from outside that breaks its contract is refused before anything is trained."""

from pathlib import Path

import pytest

from archlab.isolation import changed, snapshot
from tests.cli.command_line import CommandLine

TASK = """
import numpy as np
from archlab.tasks import Task, register

@register("odd")
class Odd(Task):
    summary = "odd"
    vocab_size: int = 8
    length: int = 8
    num_train_examples: int = 64
    chance = 0.125

    def check(self):
        pass

    def describe_tokens(self):
        return {"digit": range(8)}

    def generate(self, rng, n, *, training):
        inputs = rng.integers(8, size=(n, 8))
        return inputs, inputs.copy()
"""
DRAWS = "inputs = rng.integers(8, size=(n, 8))"
FAULTS = {
    ("chance = 0.125", "chance = 2.0"): "chance=2.0: return a fraction from 0 to 1",
    ("chance = 0.125", "chance = float('nan')"): "chance=nan: return a fraction",
    ("inputs.copy()", "inputs[:, 1:]"): "train: targets are int64 of shape (8, 7): return int64 of shape (8, 8)",
    ("inputs.copy()", "inputs.astype(float)"): "train: targets are float64 of shape (8, 8)",
    ("inputs.copy()", "inputs + 1"): "train: targets have the id 8: the vocabulary has 0 to 7",
    ("inputs.copy()", "inputs * 0 - 100"): "train: a sequence asks nothing",
    ("return inputs,", "return inputs - 100,"): "train: inputs have the id -",
    (DRAWS, "inputs = np.ones((n, 8), dtype=np.int64)"): "its splits are equal",
    (DRAWS, "inputs = rng.integrs(8)"): "drawing sequences fails: AttributeError",
}


@pytest.mark.parametrize("change", FAULTS, ids=lambda change: change[1])
def test_a_task_from_outside_is_tried_before_anything_is_computed(
    archlab: CommandLine, tmp_path: Path, change: tuple[str, str]
) -> None:
    Path("odd_task.py").write_text(TASK.replace(*change))
    Path("odd.yaml").write_text(archlab("protocols", "smoke").out + "  odd: {}\n")
    outcome = archlab("run", "mamba", "--protocol", "odd.yaml", "--tasks-file", "odd_task.py", "--dry-run")
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1), outcome.err
    assert outcome.err.startswith(f"error: odd: {FAULTS[change]}")
    assert not (tmp_path / "archlab.db").exists()


def test_what_a_task_changes_of_its_process_is_undone(archlab: CommandLine) -> None:
    spoils = "import os, torch; os.environ['MKL_CBWR'] = 'AVX2'; torch.set_flush_denormal(True); "
    Path("odd_task.py").write_text(TASK.replace(DRAWS, spoils + DRAWS))
    Path("odd.yaml").write_text(archlab("protocols", "smoke").out + "  odd: {}\n")
    before = snapshot()
    outcome = archlab("run", "mlp", "--protocol", "odd.yaml", "--tasks-file", "odd_task.py", "--dry-run", "--tasks", "odd")
    assert (outcome.status, changed(before)) == (0, ""), outcome.err


def test_a_file_of_the_other_kind_is_refused(archlab: CommandLine) -> None:
    Path("odd_task.py").write_text(TASK)
    Path("nothing.py").write_text("")
    examples = Path(__file__).parent.parent.parent / "examples"
    layers = next(path for path in examples.glob("*.py") if "LayerConfig" in path.read_text())
    for option, file, reason in (
        ("--layers", "odd_task.py", "registers no layers: give it by --tasks-file"),
        ("--tasks-file", str(layers), "registers no tasks: give it by --layers"),
        ("--tasks-file", "nothing.py", "registers no tasks: decorate a task by @register"),
    ):
        outcome = archlab("describe", "mamba", option, file)
        assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
        assert reason in outcome.err
