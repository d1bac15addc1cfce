"""Tasks as a person reads them: what they ask, and a drawn sequence with its tokens named by role and its answers beneath."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from archlab.tasks import IGNORE, Task

_SIGNS = {"blank": "_", "pad": "·", "copy": ">", "compress": "#", "insert": "?"}
"""Roles of a single token; written as a sign, they leave the line to the others."""
_STYLES = {"key": "cyan", "value": "yellow", "data": "yellow", "noise": "dim", "blank": "dim", "pad": "dim"}
_OTHER_STYLE = "magenta"
_PLURALS = {"key": "keys", "value": "values"}
_ANSWER_STYLE = "bold green"


@dataclass(frozen=True)
class _Token:
    label: str
    style: str


def task_table(tasks: Iterable[Task]) -> Table:
    """What each setting asks, its knobs, and what guessing reaches in percent."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 1, 0), header_style="bold")
    table.add_column("task", no_wrap=True)
    table.add_column("a model must")
    table.add_column("knobs", min_width=24)  # num_train_examples=12800 stays whole
    table.add_column("chance", justify="right", no_wrap=True)
    for task in tasks:
        knobs = " ".join(f"{knob}={value}" for knob, value in task.knobs().items())
        table.add_row(task.name, task.summary, knobs, f"{100 * task.chance:.1f} %")
    return table


def render_instance(task: Task, inputs: NDArray[np.int64], targets: NDArray[np.int64]) -> RenderableType:
    """A sequence over as many lines as the terminal needs, the targets beneath the positions where they are asked.

    Args:
        task: the setting that drew the sequence.
        inputs: token ids, ``(input_length,)``.
        targets: the token asked at each position, ``(input_length,)``; -100 where none is.
    """
    tokens = _tokens(task)
    answers = int((targets != IGNORE).sum())
    where = "Every position has a target" if answers == len(targets) else f"{answers} of {len(targets)} positions have an answer"
    asked = Text(f"Asked: {task.summary}. {where}, printed beneath it.")
    return Group(asked, _legend(task, tokens), Text(), _Sequence(tokens, inputs, targets))


@dataclass(frozen=True)
class _Sequence:
    tokens: list[_Token]
    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        cell = 1 + max(len(self.tokens[i].label) for i in {*self.inputs.tolist(), *self.targets[self.targets != IGNORE].tolist()})
        gutter = len(str(len(self.inputs) - 1)) + 1
        row = max(1, (options.max_width - gutter) // cell)
        row -= row % 2 if row > 1 else 0  # pairs stay on one line
        for start in range(0, len(self.inputs), row):
            yield Text.assemble((f"{start:>{gutter - 1}} ", "dim"), *self._line(self.inputs[start : start + row], cell))
            targets = self.targets[start : start + row]
            if (targets != IGNORE).any():
                yield Text.assemble(" " * gutter, *self._line(targets, cell, _ANSWER_STYLE))

    def _line(self, ids: NDArray[np.int64], cell: int, style: str = "") -> Iterator[tuple[str, str]]:
        for i in ids.tolist():
            token = _Token("", "") if i == IGNORE else self.tokens[i]
            yield token.label.rjust(cell), style or token.style


def _tokens(task: Task) -> list[_Token]:
    """The label of every token id: the role's initial and its rank there, or a sign (else the role) if it is the only one."""
    tokens = [_Token("?", "red")] * task.vocab_size
    for role, ids in task.describe_tokens().items():
        style = _STYLES.get(role, _OTHER_STYLE)
        for rank, i in enumerate(ids):
            tokens[i] = _Token(_SIGNS.get(role, role) if len(ids) == 1 else f"{role[0]}{rank}", style)
    return tokens


def _legend(task: Task, tokens: list[_Token]) -> Text:
    parts = []
    for role, ids in task.describe_tokens().items():
        if not ids:
            continue
        first, last = tokens[ids[0]], tokens[ids[-1]]
        if len(ids) > 1:
            parts.append(Text.assemble((f"{first.label}…{last.label}", first.style), f" {_PLURALS.get(role, role)}"))
        elif first.label != role:
            parts.append(Text.assemble((first.label, first.style), f" {role}"))
    parts.append(Text.assemble(("beneath", _ANSWER_STYLE), " answer"))
    return Text("   ").join(parts)
