"""Tables for the terminal: leaderboard, learning speed, paired differences, an architecture layer by layer."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from archlab.architectures import Architecture
from archlab.architectures.backbone_config import BackboneName
from archlab.format import human, percent, points, probability, short_task, steps
from archlab.mad.architecture_score import SOLVED
from archlab.mad.bootstrap import CONFIDENCE
from archlab.mad.scores import Difference, Scores, leaderboard_notes, lengths_table, levels_table, other_tasks
from archlab.mad.scores import leaderboard as mad_leaderboard

WIDE = 112
"""Columns from which the leaderboard writes its heads in full."""
NARROW = 96
"""Columns below which it gives half the interval's width in place of both bounds."""
BACKBONE: BackboneName = "language-model"
"""The model around the layers at which an architecture's costs are stated."""


def leaderboard(scores: Scores, width: int = 100) -> Table:
    """Test scores in percent by task, the MAD score with its interval, and costs; ``width`` is the terminal's, in columns."""
    heads, rows = mad_leaderboard(scores, narrow=width < WIDE)
    interval = len(scores.counted) + 2
    if width < NARROW:
        heads[interval] = "±"
    table = noted_table(leaderboard_notes(scores))
    table.add_column(heads[0], overflow="fold", min_width=12)
    for head in heads[1:]:
        table.add_column(head, justify="right", no_wrap=True)
    for number, row in enumerate(rows):
        texts = [Text(cell.text, style="bold" if cell.best else "") for cell in row]
        if width < NARROW and number < len(scores.architectures):
            bounds = scores.architectures[number].interval
            texts[interval] = Text(percent((bounds.high - bounds.low) / 2) if bounds else "–")
        table.add_row(*texts, style="" if number < len(scores.architectures) else "dim")
    return table


def further_tables(scores: Scores) -> Iterator[Table]:
    """The tasks that do not count in the mean, and scores by length and level, where there are such."""
    for (heads, rows), note, texts in (
        (other_tasks(scores), f"tasks that do not count in the {scores.mean_name}: right answers in %", 1),
        (lengths_table(scores), "right answers in % by the length of the test sequences, after training at the setting's own", 2),
        (
            levels_table(scores),
            f"right answers in % by level, such as keys or tokens to copy; capacity: the level with {SOLVED:.0%}",
            2,
        ),
    ):
        if heads:
            table = noted_table(note)
            for i, head in enumerate(heads):
                table.add_column(head, justify="left" if i < texts else "right", overflow="fold" if i < texts else "ellipsis")
            for row in rows:
                table.add_row(*(Text(cell.text, style="bold" if cell.best else "") for cell in row))
            yield table


def learning_table(scores: Scores) -> Table:
    """Speed of learning by task: area under the learning curve in percent, and steps until the first setting is solved."""
    table = noted_table(
        "learning speed: area under the learning curve in % of the largest possible (mean over the settings of a task) / "
        "steps until the first setting of the task is solved (median over seeds; – if the median seed does not solve it)"
    )
    table.add_column("architecture", overflow="fold", min_width=12)
    for task in scores.counted:
        table.add_column(short_task(task), justify="right")
    for architecture in scores.architectures:
        cells = [f"{percent(t.learning_curve_area)} / {steps(t.settings[0].steps_to_solve)}" for t in architecture.in_mean]
        table.add_row(Text(architecture.label), *cells)
    return table


def differences_table(scores: Scores) -> Table:
    """Each architecture against the best in the MAD score, as :func:`difference_cells`."""
    best = scores.differences[0].second if scores.differences else "–"
    order = "; one seed: order not established" if scores.one_seed else ""
    table = noted_table(
        f"{scores.mean_name}: difference from the best, {best}, in percentage points; the same seeds and test instances on "
        f"both sides{order}"
    )
    table.add_column("architecture", overflow="fold", min_width=12)
    for head in ("difference", f"{CONFIDENCE:.0%} interval", *(() if scores.one_seed else ("P(better)",))):
        table.add_column(head, justify="right", no_wrap=True)
    for one in scores.differences:
        table.add_row(*map(Text, difference_cells(scores, one)))
    return table


def difference_cells(scores: Scores, one: Difference) -> list[str]:
    """The architecture, its difference from the best, the interval, and with several seeds the probability of being better."""
    interval = f"{points(one.interval.low)} to {points(one.interval.high)}"
    return [one.first, points(one.mean), interval, *(() if scores.one_seed else (probability(one.superiority),))]


def architecture_dict(architecture: Architecture, vocab_size: int, length: int, dim: int = 128) -> dict[str, Any]:
    """An architecture layer by layer, JSON-ready: parameters, state and forward FLOPs of one sequence, and the totals.

    ``split`` has the parameters of sequence mixers, channel mixers, and embedding with unembedding.
    """
    architecture.validate(dim)
    layers: list[dict[str, Any]] = [
        {
            "layer": str(x),
            "mixes": x.kind,
            "parameters": x.num_params(dim, length),
            "matrix_state": x.matrix_state(dim, length),
            "state": x.state_size(dim, length),
            "flops": x.flops(dim, seen),
            "active_flops": x.active_flops(dim, seen),
        }
        for x, seen in zip(architecture.layers, architecture.positions(length, BACKBONE), strict=True)
    ]
    total: dict[str, Any] = {
        "layer": "total",
        "parameters": architecture.num_params(vocab_size=vocab_size, length=length, dim=dim),
        "matrix_state": architecture.matrix_state(length=length, dim=dim),
        "state": architecture.state_size(length=length, dim=dim),
        "flops": architecture.flops(length=length, dim=dim, vocab_size=vocab_size),
        "active_flops": architecture.active_flops(length=length, dim=dim, vocab_size=vocab_size),
    }
    no_state = {"matrix_state": 0, "state": 0}
    around = [
        {"layer": part.name, "parameters": part.params, **no_state, "flops": part.flops, "active_flops": part.flops}
        for part in architecture.around(vocab_size=vocab_size, length=length, dim=dim, backbone=BACKBONE)
    ]
    mixers = {kind: sum(x["parameters"] for x in layers if x["mixes"] == kind) for kind in ("sequence", "channel")}
    return {
        "architecture": str(architecture),
        "name": architecture.name,
        "dim": dim,
        "length": length,
        "vocab_size": vocab_size,
        "backbone": BACKBONE,
        "layers": layers,
        "around": around,
        "total": total,
        "split": mixers | {"embedding": 2 * vocab_size * dim + vocab_size},
        "arithmetic_intensity": architecture.arithmetic_intensity(length=length, dim=dim, vocab_size=vocab_size),
    }


def architecture_table(architecture: Architecture, vocab_size: int, length: int, dim: int = 128) -> Table:
    """An architecture layer by layer, as a table with the values of :func:`architecture_dict`."""
    found = architecture_dict(architecture, vocab_size, length, dim)
    split = found["split"]
    table = noted_table(
        f"width {dim}, length {length}, vocabulary {vocab_size}, {BACKBONE}; a multiply-add is 2 FLOPs\n"
        f"parameters: {split['sequence']:,} in sequence mixers, {split['channel']:,} in channel mixers, "
        f"{split['embedding']:,} in embedding and unembedding\n"
        f"arithmetic intensity: {found['arithmetic_intensity']:.3g} FLOPs a byte, if weights and the inputs and outputs of "
        "layers are moved once, in float32"
    )
    for head in ("", "layer", "mixes", "parameters", "matrix state", "state", "FLOPs", "active"):
        table.add_column(head, justify="left" if head in ("layer", "mixes") else "right", overflow="fold")
    parts = [*found["layers"], *found["around"], found["total"]]
    for number, part in enumerate(parts, start=1):
        table.add_row(
            str(number) if "mixes" in part else "",
            Text(part["layer"]),
            part.get("mixes", ""),
            f"{part['parameters']:,}",
            *("?" if part[what] is None else f"{part[what]:,}" if part[what] else "" for what in ("matrix_state", "state")),
            *(human(part[what]) if part[what] else "" for what in ("flops", "active_flops")),
            style="bold" if part is found["total"] else "",
        )
    return table


def plain_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Rows with the same keys as a table: keys as heads, whole numbers to the right with separators."""
    table = noted_table("")
    for head, value in rows[0].items() if rows else ():
        table.add_column(head, justify="right" if isinstance(value, int) else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(f"{value:,}" if isinstance(value, int) else str(value)) for value in row.values()))
    return table


def fitted_table(first: str, heads: Sequence[str], width: int) -> Table:
    """A table without rows for the live view: a first column that gives way, and numbers; as wide as ``width`` at most.

    Where that is too narrow for the headings, these are cut to four letters.
    """
    gap, least = 2, 5
    if sum(max(len(head), least) + gap for head in heads) + 14 > width:
        heads, gap, least = [head[:4] for head in heads], 1, 4
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="dim")
    first_width = max(width - sum(max(len(head), least) + gap for head in heads) - gap, 8)
    table.add_column(first, overflow="ellipsis", no_wrap=True, max_width=first_width)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True, min_width=least)
    return table


def noted_table(notes: str) -> Table:
    """A table without columns, with notes below it, or none."""
    caption = Text(notes, style="dim") if notes else None
    return Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", caption=caption, caption_justify="left")
