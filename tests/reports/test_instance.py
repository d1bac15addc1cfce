"""What a person sees of a drawn sequence."""

import numpy as np
import pytest
from rich.console import Console

from archlab.reports.instance import render_instance, task_table
from archlab.tasks import IGNORE, Task, registry, sample, setting


def printed(renderable: object, width: int) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return [line.rstrip() for line in capture.get().splitlines()]


def test_answers_stand_beneath_the_positions_where_they_are_asked():
    task = setting("in-context-recall", vocab_size=8, length=10)
    inputs = np.array([3, 5, 0, 6, 3, 5, 1, 6, 0])
    targets = np.array([IGNORE, IGNORE, IGNORE, IGNORE, 5, IGNORE, IGNORE, IGNORE, 6])
    assert printed(render_instance(task, inputs, targets), 100) == [
        "Asked: recall the value that followed a key earlier in the sequence. 2 of 9 positions have an",
        "answer, printed beneath it.",
        "k0…k3 keys   v0…v3 values   beneath answer",
        "",
        "0  k3 v1 k0 v2 k3 v1 k1 v2 k0",
        "               v1          v2",
    ]


def test_lines_are_numbered_by_their_first_position_and_keep_pairs_together():
    task = setting("memorization", vocab_size=9, length=12)
    lines = printed(render_instance(task, *(array[0] for array in sample(task, "test", 1))), 20)
    numbered = [line for line in lines if line[:2].strip().isdigit()]
    assert [line.split()[0] for line in numbered] == ["0", "4", "8"]
    assert all(line.split()[2::2] == ["?"] * 2 for line in numbered)


@pytest.mark.parametrize("width", [20, 80, 100])
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("task", [setting(name) for name in registry()], ids=str)
def test_every_token_and_answer_is_printed_once_within_the_terminal(task: Task, split: str, width: int):
    inputs, targets = (array[0] for array in sample(task, split, 1))
    lines = printed(render_instance(task, inputs, targets), width)
    assert max(map(len, lines)) <= width
    body = lines[lines.index("") + 1 :]
    positions = str(len(inputs) - 1)
    cells = [line[len(positions) + 1 :].split() for line in body]
    assert sum(map(len, cells)) == len(inputs) + (targets != IGNORE).sum()


def test_single_query_variant_has_a_copy_token_in_the_legend():
    task = setting("fuzzy-in-context-recall", multi_query=False)
    lines = printed(render_instance(task, *(array[0] for array in sample(task, "test", 1))), 100)
    assert lines[2] == "k0…k6 keys   v0…v6 values   · pad   > copy   beneath answer"


def test_table_of_tasks():
    text = "\n".join(printed(task_table([setting("compression")]), 100))
    for part in ("compression", "rebuild a sequence", "vocab_size=16", "9.6 %"):
        assert part in text
