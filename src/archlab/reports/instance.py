"""Tasks as a person reads them: what they ask, and a drawn sequence with its tokens named by role and its answers beneath."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from archlab.tasks import IGNORE, Task

_STYLES = ("cyan", "yellow", "magenta", "blue")
"""Colours of the roles, taken in turn."""
_BACKGROUND_STYLE = "dim"
_ANSWER_STYLE = "bold green"
_UNCOUNTABLE = {"data", "noise"}
"""Roles whose name has no plural."""


@dataclass(frozen=True)
class _Token:
    label: str
    style: str


def task_table(tasks: Iterable[Task]) -> Table:
    """Table of settings: what each asks, its knobs, and what guessing reaches in percent."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 1, 0), header_style="bold")
    table.add_column("task", no_wrap=True)
    table.add_column("a model must")
    table.add_column("knobs", min_width=24)  # num_train_examples=12800 stays whole
    table.add_column("chance", justify="right", no_wrap=True)
    for task in tasks:
        name = Text.assemble(task.name, "\n", (task.short if task.short != task.name else "", "dim"))
        table.add_row(name, task.summary, _knobs(task, " "), _chance(task))
    return table


def render_setting(task: Task, settings: Sequence[Task] = ()) -> RenderableType:
    """A setting knob by knob, what guessing reaches, and the knobs that the settings of a protocol change from their first."""
    lines = [Text(f"{task.name}: {_knobs(task, ', ')}. Guessing reaches {_chance(task)}.")]
    changes: dict[str, list[str]] = {}
    for other in settings[1:]:
        for knob, value in other.knobs().items():
            if value != getattr(settings[0], knob):
                changes.setdefault(knob, []).append(str(value))
    if changes:
        varied = "; ".join(f"{knob}={', '.join(values)}" for knob, values in changes.items())
        lines.append(Text(f"The protocol also has {varied}."))
    return Group(*lines)


def _knobs(task: Task, separator: str) -> str:
    return separator.join(f"{knob}={value}" for knob, value in task.knobs().items())


def _chance(task: Task) -> str:
    return f"{100 * task.chance:.1f} %"


def render_instance(task: Task, inputs: NDArray[np.int64], targets: NDArray[np.int64]) -> RenderableType:
    """A sequence over as many lines as the terminal needs, the targets beneath the positions where they are asked.

    ``inputs`` are token ids, ``(input_length,)``; ``targets`` the token asked at each position, or -100 where none is.
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
    """Label of every token id: the role's initial and its rank there, or a sign (else the role) if it is the only one."""
    tokens = [_Token("?", "red")] * task.vocab_size
    styles = cycle(_STYLES)
    for role, ids in task.describe_tokens().items():
        style = _BACKGROUND_STYLE if role in task.background else next(styles)
        for rank, i in enumerate(ids):
            tokens[i] = _Token(task.signs.get(role, role) if len(ids) == 1 else f"{role[0]}{rank}", style)
    return tokens


def _legend(task: Task, tokens: list[_Token]) -> Text:
    parts = []
    for role, ids in task.describe_tokens().items():
        if not ids:
            continue
        first, last = tokens[ids[0]], tokens[ids[-1]]
        if len(ids) > 1:
            plural = role if role in _UNCOUNTABLE else f"{role}s"
            parts.append(Text.assemble((f"{first.label}…{last.label}", first.style), f" {plural}"))
        elif first.label != role:
            parts.append(Text.assemble((first.label, first.style), f" {role}"))
    parts.append(Text.assemble(("beneath", _ANSWER_STYLE), " answer"))
    return Text("   ").join(parts)
