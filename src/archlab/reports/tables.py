"""Tables for the terminal: leaderboard, learning speed, paired differences, an architecture layer by layer."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from archlab.architectures import Architecture
from archlab.architectures.spec import BackboneName
from archlab.mad.comparison import differences_to_best
from archlab.mad.scores import ArchitectureScore, Scores, TaskScore
from archlab.reports.format import count, human, percent, percent_interval, points, probability, short_task, starred, steps

NARROW = 96
"""Below this many columns the leaderboard shortens its heads and gives half the interval's width."""
_MAX_GAPS = 4


def leaderboard(scores: Scores, width: int = 100) -> Table:
    """Test scores in percent by task, their mean with its interval, and costs; the best of each column is bold.

    Args:
        scores: what to show.
        width: columns of the terminal.
    """
    narrow = width < NARROW
    heads = [short_task(task) for task in scores.tasks]
    if narrow:
        heads = [head if len(head) <= 6 else head[:4] for head in heads]
    table = _table(leaderboard_notes(scores))
    table.add_column("architecture", overflow="fold", min_width=12)
    for head in (*heads, "mean"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("±" if narrow else f"{scores.confidence:.0%} interval", justify="right", no_wrap=True)
    for head in ("params", "state", "FLOPs"):
        table.add_column(head, justify="right", no_wrap=True)
    best_of_task = [_best([a.tasks[i].score for a in scores.architectures]) for i in range(len(scores.tasks))]
    best_mean = _best([a.score for a in scores.architectures])
    for architecture in scores.architectures:
        interval = architecture.interval
        half = percent((interval.high - interval.low) / 2) if interval else "–"
        table.add_row(
            Text(architecture.label),
            *(_score_cell(task, best) for task, best in zip(architecture.tasks, best_of_task, strict=True)),
            _score_cell(architecture, best_mean),
            half if narrow else percent_interval(interval),
            human(architecture.costs.num_params),
            human(architecture.costs.state_size),
            human(architecture.costs.flops),
        )
    return table


def learning_table(scores: Scores) -> Table:
    """How fast each task was learned: area under the learning curve in percent, and steps to solve."""
    table = _table(
        "area under the learning curve in % of the largest possible, averaged over the settings of a task / steps to solve "
        "its first setting, the median over seeds (– where the median seed does not solve it)"
    )
    table.add_column("architecture", overflow="fold", min_width=12)
    for task in scores.tasks:
        table.add_column(short_task(task), justify="right")
    for architecture in scores.architectures:
        cells = [f"{percent(t.learning_curve_area)} / {steps(t.settings[0].steps_to_solve)}" for t in architecture.tasks]
        table.add_row(Text(architecture.label), *cells)
    return table


def differences_table(scores: Scores, task: str | None = None) -> Table:
    """Each architecture against the best: paired difference in percentage points, interval, probability of superiority."""
    found = differences_to_best(scores, task)
    best = found[0].second if found else "–"
    table = _table(f"{task or 'mean'}: percentage points from the best, {best}; the same seeds and test instances on both sides")
    table.add_column("architecture", overflow="fold", min_width=12)
    for head in ("difference", f"{scores.confidence:.0%} interval", "P(better)"):
        table.add_column(head, justify="right", no_wrap=True)
    for x in found:
        interval = f"{points(x.interval.low)} to {points(x.interval.high)}"
        table.add_row(Text(x.first), points(x.mean), interval, probability(x.superiority))
    return table


def architecture_dict(
    architecture: Architecture, vocab_size: int, length: int, dim: int = 128, backbone: BackboneName = "language-model"
) -> dict[str, Any]:
    """An architecture layer by layer, JSON-ready: parameters, state and forward FLOPs of one sequence, and the totals.

    ``split`` has the parameters of sequence mixers, channel mixers, and embedding with unembedding.

    Raises:
        ArchlabError: a layer does not fit the width.
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
        for x, seen in zip(architecture.layers, architecture.positions(length, backbone), strict=True)
    ]
    total: dict[str, Any] = {
        "layer": "total",
        "parameters": architecture.num_params(vocab_size=vocab_size, length=length, dim=dim, backbone=backbone),
        "matrix_state": architecture.matrix_state(length=length, dim=dim),
        "state": architecture.state_size(length=length, dim=dim),
        "flops": architecture.flops(length=length, dim=dim, vocab_size=vocab_size, backbone=backbone),
        "active_flops": architecture.active_flops(length=length, dim=dim, vocab_size=vocab_size, backbone=backbone),
    }
    around = [
        _around("embedding", vocab_size * dim),
        _around("norms", (len(architecture.layers) + 1) * dim),
        _around("unembedding", vocab_size * dim + vocab_size, flops=2 * length * dim * vocab_size),
    ]
    if backbone == "auto-encoder":
        known = [*layers, *around]
        rest = {what: total[what] - sum(part[what] for part in known) for what in ("parameters", "flops")}
        around.insert(2, _around("decoder", rest["parameters"], flops=rest["flops"]))
    mixers = {kind: sum(x["parameters"] for x in layers if x["mixes"] == kind) for kind in ("sequence", "channel")}
    return {
        "architecture": str(architecture),
        "name": architecture.name,
        "dim": dim,
        "length": length,
        "vocab_size": vocab_size,
        "backbone": backbone,
        "layers": layers,
        "around": around,
        "total": total,
        "split": mixers | {"embedding": 2 * vocab_size * dim + vocab_size},
        "arithmetic_intensity": architecture.arithmetic_intensity(length=length, dim=dim, vocab_size=vocab_size),
    }


def architecture_table(
    architecture: Architecture, vocab_size: int, length: int, dim: int = 128, backbone: BackboneName = "language-model"
) -> Table:
    """What :func:`architecture_dict` gives, as a table.

    Raises:
        ArchlabError: a layer does not fit the width.
    """
    found = architecture_dict(architecture, vocab_size, length, dim, backbone)
    split = found["split"]
    table = _table(
        f"width {dim}, length {length}, vocabulary {vocab_size}, {backbone}; a multiply-add is 2 FLOPs\n"
        f"parameters: {split['sequence']:,} in sequence mixers, {split['channel']:,} in channel mixers, "
        f"{split['embedding']:,} in embedding and unembedding\n"
        f"arithmetic intensity: {found['arithmetic_intensity']:.3g} FLOPs a byte, where weights and the inputs and outputs of "
        "layers are moved once, in float32"
    )
    for head in ("", "layer", "mixes", "parameters", "matrices", "state", "FLOPs", "active"):
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
    table = _table("")
    for head, value in rows[0].items() if rows else ():
        table.add_column(head, justify="right" if isinstance(value, int) else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(f"{value:,}" if isinstance(value, int) else str(value)) for value in row.values()))
    return table


def _around(what: str, parameters: int, flops: int = 0) -> dict[str, Any]:
    """What an architecture has around its layers, in the same columns."""
    costs = {"parameters": parameters, "matrix_state": 0, "state": 0, "flops": flops, "active_flops": flops}
    return {"layer": what, **costs}


def _table(notes: str) -> Table:
    caption = Text(notes, style="dim") if notes else None
    return Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", caption=caption, caption_justify="left")


def _best(values: Sequence[float | None]) -> str:
    """The largest value as it is written, so that what reads alike is marked alike; of one alone nothing is best."""
    if len(values) == 1:
        return ""
    return percent(max((value for value in values if value is not None), default=None))


def _score_cell(score: TaskScore | ArchitectureScore, best: str) -> Text:
    return Text(starred(score), style="bold" if score.score is not None and percent(score.score) == best else "")


def leaderboard_notes(scores: Scores) -> str:
    """What a reader of the leaderboard must know, what is missing included."""
    setting = scores.reference
    notes = [
        f"answers right on the test split in %; interval over {scores.interval_over}; parameters, carried state and "
        f"forward FLOPs at {setting.name}, vocabulary {setting.vocab_size}, length {setting.length}, width {scores.dim}"
    ]
    if any(architecture.costs.state_size is None for architecture in scores.architectures):
        notes.append("state ?: a layer does not say what it carries")
    if scores.interval_over == "test instances":
        notes.append("one seed: the interval says nothing about other initialisations or data")
    diverged = sum(architecture.num_diverged for architecture in scores.architectures)
    if diverged:
        notes.append(f"{count(diverged, 'trial')} diverged and count as chance")
    gaps = [gap for architecture in scores.architectures for gap in architecture.gaps]
    if gaps:
        partial = [f"{a.label} {a.num_complete} of {a.num_settings}" for a in scores.architectures if not a.complete]
        notes.append(f"* partial, the mean of what there is; complete settings: {', '.join(partial)}")
        notes += [f"  {gap}" for gap in gaps[:_MAX_GAPS]]
        if len(gaps) > _MAX_GAPS:
            notes.append(f"  and {len(gaps) - _MAX_GAPS} more")
    return "\n".join(notes)
