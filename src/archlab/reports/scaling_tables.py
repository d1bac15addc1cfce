"""The tables of a scaling study, for the terminal and the page, and its laws as text."""

from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from archlab.format import count, duration, human
from archlab.reports.panels import Table
from archlab.scaling.analysis.comparison import StudyComparison, multiplier_text
from archlab.scaling.analysis.hybridisation import Sweep
from archlab.scaling.analysis.off_optimal import FRACTIONS, OverTraining
from archlab.scaling.api import Prediction, Predictions
from archlab.scaling.estimate import Cost
from archlab.scaling.evaluation import Evaluations
from archlab.scaling.fits import IsoFlopFit, ParametricFit, StateFit
from archlab.scaling.fits.isoflop import SAME_BUDGET
from archlab.scaling.ladder import Ladder
from archlab.scaling.laws import Estimate, HoldOut, Law, Laws
from archlab.scaling.study_fit import StudyFit
from archlab.scaling.training_plan import LMRun, Plan, own_fractions
from archlab.scaling.tuning import Tuning

LONG = 24
"""Letters of a name from which on it is folded, so that numbers stay whole."""


def terminal_table(table: Table, whole: Collection[str] = ()) -> RichTable:
    """Convert a table for the terminal; its columns fold where it is narrow, except those whose heads are in ``whole``."""
    rich = _rich_table(table.note)
    for head in table.heads:
        rich.add_column(Text(head if isinstance(head, str) else "\n".join(head)), overflow="fold", no_wrap=head in whole)
    for row in table.rows:
        rich.add_row(*(Text(cell if isinstance(cell, str) else "\n".join(cell)) for cell in row))
    return rich


def _rich_table(note: str) -> RichTable:
    style: dict[str, Any] = {"padding": (0, 2, 0, 0), "header_style": "dim", "caption_justify": "left"}
    return RichTable(box=None, pad_edge=False, caption=Text(note, style="dim italic") if note else None, **style)


def laws_table(fit: StudyFit) -> Table | None:
    """The laws of all architectures by all methods; None if there are none."""
    rows = []
    for laws in fit.laws:
        for law in laws.by_method.values():
            *numbers, held_out = _law_cells(law)
            rows.append([laws.runs.label, *numbers, law_text(law), held_out])
    heads = ["architecture", "method", "N* ~ C^a", "D* ~ C^b", "N* at the largest budget", "law", "largest budget held out"]
    note = (
        "Held out: fitted again without the largest budget; the mean error of the losses there, and predicted over measured N*."
    )
    return Table(heads, rows, note, "llrrrtt") if rows else None


def _law_cells(law: Law) -> list[str]:
    exponents = (interval(exponent, ".3f") for exponent in (law.largest.size_exponent, law.largest.tokens_exponent))
    return [law.method, *exponents, interval(law.largest.size), hold_out_text(law.hold_out)]


def laws_on_terminal(laws: Laws) -> RenderableType:
    """The laws of one architecture: exponents and optimum by method, and the formulas below."""
    runs = laws.runs
    head = Text(
        f"{runs.label}: {count(len(runs.C), 'training run')}, {runs.C.min():.3g} to {runs.C.max():.3g} FLOPs, "
        f"{human(runs.N.min())} to {human(runs.N.max())} parameters",
        style="bold",
    )
    if not laws.by_method:
        return head
    heads = ["method", "N* ~ C^a", "D* ~ C^b", "N* at the largest", "largest held out"]
    formulas = RichTable.grid(padding=(0, 2, 0, 0))
    for law in laws.by_method.values():
        formulas.add_row(law.method, law_text(law))
    table = Table(heads, [_law_cells(law) for law in laws.by_method.values()])
    return Group(head, terminal_table(table, whole=("method",)), formulas, Text())


def comparison_table(comparison: StudyComparison | None) -> Table | None:
    """Every architecture beside the reference at every budget; None if there is nothing to compare."""
    if comparison is None or not comparison.rows:
        return None
    rows = []
    for row in comparison.rows:
        multiplier = "–" if row.multiplier is None else multiplier_text(row.multiplier, ".2f")
        beyond = "" if row.extrapolation <= SAME_BUDGET else f"{row.extrapolation:.3g} x beyond"
        rows.append([row.architecture, f"{row.budget:.3g}", beyond, interval(row.difference, ".4f"), multiplier])
    reference = comparison.reference
    note = (
        f"Each architecture at its own best size, beside {reference}; intervals of {_percent(comparison.confidence)}, from laws "
        f"with a floor. Loss difference: in nats a token, negative where {reference} is worse. Compute multiplier: the compute "
        f"that the architecture needs for the loss of {reference}, over the budget. Beyond the runs, intervals do not tell "
        "whether a law holds."
    )
    return Table(["architecture", "budget", "", "loss difference", "compute multiplier"], rows, note, "lrlrr")


def crossing_lines(comparison: StudyComparison) -> list[str]:
    """Write where architectures cross the reference, one line each."""
    lines = []
    for one in comparison.crossings:
        low, high = one.budget.low, one.budget.high
        if low is None and high is None:
            doubt = " (whether they cross at all, these runs do not tell)"
        else:
            doubt = f" ({'below' if low is None else f'{low:.2g}'} to {'above' if high is None else f'{high:.2g}'})"
        other = one.architecture if one.better_below == one.reference else one.reference
        lines.append(f"{one.better_below} is better below {one.budget.value:.2g} FLOPs{doubt}, {other} above")
    return lines


def comparison_on_terminal(comparison: StudyComparison) -> RenderableType:
    """The comparison: its sentence, where architectures cross, and the table."""
    table = comparison_table(comparison)
    parts: list[RenderableType] = [
        Text(line, style="bold") for line in (comparison.headline, *crossing_lines(comparison)) if line
    ]
    short = max((len(row.architecture) for row in comparison.rows), default=0) <= LONG
    whole = ("architecture", "budget") if short else ("budget",)
    return Group(*parts, Text(), *([] if table is None else [terminal_table(table, whole)]), Text())


def tuning_table(tuning: Tuning) -> Table:
    """The best learning rate of every architecture and budget, and what half and twice of it cost."""
    rows = [
        [
            one.label,
            f"{one.budget:.3g}",
            human(one.params),
            f"{one.rate:.3g}" if one.bracketed else f"{one.best:.3g}, not bracketed",
            "–" if one.rule is None else f"{one.rate / one.rule:.2f}",
            *("–" if excess is None else f"{excess:+.4f}" for excess in (one.at_half, one.at_twice)),
        ]
        for one in tuning.rates
    ]
    heads = ["architecture", "budget", "params", "best learning rate", "over the plan's", "loss at half", "loss at twice"]
    note = (
        "Best by a parabola in the logarithm of the rate. Loss at half and at twice the best rate that was trained, minus the "
        "loss there, in nats a token; – where it diverged. A difference of losses that is smaller may be one of learning rates."
    )
    return Table(heads, rows, note, "lrrrrrr")


def sweep_table(sweeps: Iterable[Sweep]) -> Table | None:
    """The best fraction of attention by budget, a row for each sweep and budget; None if there is no sweep."""
    sweeps = list(sweeps)
    fractions = sorted({fraction for sweep in sweeps for fraction in sweep.fractions.values()})
    rows = []
    for sweep in sweeps:
        for best in sweep.best:
            losses = {sweep.fractions[label]: loss for label, loss in best.losses.items()}
            cells = (f"{losses[fraction]:.4f}" if fraction in losses else "–" for fraction in fractions)
            fraction = interval(best.fraction, ".2f") if best.bracketed else f"{best.fraction.value:.2f}, not bracketed"
            rows.append([f"{best.budget:.3g}", ", ".join(sweep.layers), fraction, *cells])
    note = (
        "Attention among the layers that mix the sequence; each architecture at its own best size. The best fraction is the "
        "minimum of a parabola through the best and its neighbours; it is not bracketed where it is the smallest or largest."
    )
    heads = ["budget", "beside", "best fraction of attention", *(f"loss at {fraction:.3g}" for fraction in fractions)]
    return Table(heads, rows, note, "rl" + "r" * (len(heads) - 2)) if rows else None


def off_optimal_table(fit: StudyFit) -> Table | None:
    """The excess loss of smaller models, a row for each architecture and budget; None if no run was so small."""
    excess = {(model.label, model.budget, model.fraction): interval(model.excess, ".4f") for model in fit.off_optimal}
    rows = [
        [label, f"{budget:.3g}", *(excess.get((label, budget, fraction), "–") for fraction in FRACTIONS)]
        for label, budget in dict.fromkeys((model.label, model.budget) for model in fit.off_optimal)
    ]
    heads = ["architecture", "budget", *(f"excess loss at {fraction:g} N*" for fraction in FRACTIONS)]
    note = "Excess loss of a model smaller than the best of its budget, by the parabola, in nats a token."
    return Table(heads, rows, note) if rows else None


def over_training_table(fit: StudyFit) -> Table | None:
    """The over-training law of every architecture; None if there is none."""
    rows = []
    for label, law in fit.over_training.items():
        if isinstance(law, OverTraining):
            f, eta = law.fit, f"{law.fit.eta:.3f}"
            formula = f"loss = {f.E:.3f} + ({f.a:.4g} M^{eta} + {f.b:.4g} / M^{eta}) / C^{eta}"
            rows.append([label, formula, f"{100 * law.error:.2f} %"])
    note = "M: tokens a parameter. Error: mean relative error of the losses."
    return Table(["architecture", "over-training law", "error"], rows, note, "llr") if rows else None


def predictions_on_terminal(predictions: Predictions) -> RenderableType:
    """Predictions by architecture and method."""
    caption = (
        f"intervals of {_percent(predictions.confidence)} tell how far the runs determine the law, not whether it holds beyond "
        "them; beyond: the budget over the largest of the runs, or the smallest over it"
    )
    numbers = ("FLOPs", "parameters", "tokens", "loss")
    parts: list[RenderableType] = []
    for label, group in groupby(predictions.rows, lambda row: row.architecture):
        table = Table(["method", *numbers, "beyond"], [_prediction_row(row) for row in group])
        parts += [Text(label, style="bold"), terminal_table(table, whole=("method", *numbers))]
    return Group(*parts, Text(caption, style="dim italic"))


def _prediction_row(row: Prediction) -> list[str]:
    best = row.optimum
    if isinstance(best, str):
        return [row.method, best, "", "", "", ""]
    loss = "–" if best.loss is None else _given(best.loss, ".3f")
    cells = (_given(best.flops, ".3g"), interval(best.size), interval(best.tokens), loss)
    beyond = row.extrapolation or 0
    # intervals on a line of their own, whole
    return [row.method, *(cell.replace(" (", "\n(") for cell in cells), "within" if beyond <= 1 else f"{beyond:.3g} x"]


def evaluations_on_terminal(found: Evaluations) -> RichTable:
    """The losses of a model, a column for each corpus: as a whole, and by position in the sequence."""
    rows = [
        ["nats a token", *(f"{row.loss:.4f}" for row in found.rows)],
        ["bits a byte", *(f"{row.bits_per_byte:.4f}" for row in found.rows)],
        ["tokens", *(f"{row.tokens:,}" for row in found.rows)],
    ]
    for parts in zip(*(row.positions for row in found.rows), strict=True):
        first, last = parts[0].first, parts[0].last
        named = f"position {first}" if first == last else f"positions {first}-{last}"
        rows.append([named, *(f"{part.loss:.4f}" for part in parts)])
    note = "By position in the sequence: in nats a token."
    return terminal_table(Table(["", *(row.data for row in found.rows)], rows, note, "l" + "r" * len(found.rows)))


def _given(estimate: Estimate, digits: str) -> str:
    """Write a number with its interval; alone if it was asked for, so that its interval is rounding."""
    given = estimate.low is not None and estimate.high is not None and estimate.high / estimate.low < 1 + 1e-9
    return f"{estimate.value:{digits}}" if given else interval(estimate, digits)


def plan_on_terminal(plan: Plan, ladder: Ladder, costs: Sequence[Cost]) -> RichTable:
    """A plan, a row for each training run of the first seed, with what it takes."""
    table = _rich_table(_plan_notes(plan, ladder, costs))
    table.add_column("architecture", overflow="fold", min_width=12)
    for head in ("FLOPs", "params", "body", "shape", "state", "tokens", "batch", "steps", "lr", "takes", "memory"):
        table.add_column(head, justify="right", no_wrap=True)
    before: LMRun | None = None
    first = plan.runs[0].seed
    for run, cost in zip(plan.runs, costs, strict=True):
        if run.seed != first:
            continue
        table.add_row(
            Text("" if before and run.label == before.label else run.label),
            "" if before and (run.label, run.budget) == (before.label, before.budget) else f"{run.budget:.3g}".replace("e+", "e"),
            human(run.params),
            human(run.params_non_embedding),
            f"{run.dim}x{len(run.architecture.layers)}",
            human(run.state),
            human(run.tokens),
            str(run.batch_size),
            f"{run.steps}",
            f"{run.learning_rate:g}",
            duration(cost.seconds),
            _memory(cost.bytes),
        )
        before = run
    return table


def _memory(size: int) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}" if size < 10 * factor or unit == "GiB" else f"{size / factor:.0f} {unit}"
    return f"{size / 2**10:.0f} KiB"


def _plan_notes(plan: Plan, ladder: Ladder, costs: Sequence[Cost]) -> str:
    runs, seconds = plan.runs, sum(cost.seconds for cost in costs)
    seeds = f" ({len(ladder.seeds)} seeds of each)" if len(ladder.seeds) > 1 else ""
    flops = sum(run.flops * fraction for run, fraction in zip(runs, own_fractions(runs), strict=True))
    notes = [f"{count(len(runs), 'training run')}{seeds}, {flops:.3g} FLOPs by the convention {ladder.convention}"]
    if ladder.horizon_decay is not None:
        alone = sum(run.flops for run in runs)
        notes.append(f"horizons share trunks, which are counted and timed once: alone they would take {alone:.3g} FLOPs")
    if ladder.peak_flops is None:
        notes.append(f"{duration(seconds)} in all on one thread of this machine, by timed steps")
    else:
        rate = f"{ladder.peak_flops * ladder.utilisation:.3g} FLOP/s ({ladder.utilisation:.0%} of {ladder.peak_flops:.3g})"
        used = {run.label: ladder.utilisations[run.label] for run in runs if run.label in ladder.utilisations}
        rate += "".join(f", {label} {fraction:.0%}" for label, fraction in used.items())
        notes.append(f"{seconds / 3600:,.0f} GPU-hours at {rate} a GPU; on {ladder.gpus} GPUs {duration(seconds / ladder.gpus)}")
    epochs = max((run.epochs or 0 for run in runs), default=0)
    notes.append(
        f"{ladder.data} is not prepared, a vocabulary of {ladder.vocab_size:,} is assumed"
        if runs[0].epochs is None
        else f"{ladder.data} by {runs[0].tokenizer}, vocabulary {runs[0].vocab_size:,}, read {epochs:.2g} times at most"
    )
    memory = "a step's peak with the whole batch"
    if ladder.peak_flops is not None:
        largest = max(run.params for run in runs)
        memory = (
            "weights, gradients, AdamW's moments, activations and logits of 4 sequences in bf16, recomputed, on one GPU; every "
            f"process first builds the model in its host's memory: {4 * largest / 2**30:.1f} GiB at most; takes: on one GPU, all "
            "experts computed"
        )
    notes.append(f"length {ladder.length}; body: parameters without embedding and unembedding; shape: width x layers")
    notes.append(f"memory: {memory}")
    return "; ".join(notes)


def _percent(confidence: float) -> str:
    return f"{100 * confidence:.0f}\N{NO-BREAK SPACE}%"


def interval(estimate: Estimate, digits: str = "") -> str:
    """Write a number with its interval, if it has one: ``0.512 (0.498–0.531)``, or without digits ``74.4M (72.3M–74.8M)``."""
    value, low, high = (None if x is None else f"{x:{digits}}" if digits else human(x) for x in vars(estimate).values())
    if estimate.low is None or estimate.high is None:
        return str(value)
    return f"{value} ({low}{' to ' if estimate.low < 0 else '–'}{high})"  # a dash before a minus sign reads badly


def law_text(law: Law) -> str:
    """Write a law: the formula of the loss, the number of minima, or the range of the envelope."""
    if isinstance(law.fit, ParametricFit):
        f = law.fit
        return f"loss = {f.E:.3f} + {f.A:.4g} / N^{f.alpha:.3f} + {f.B:.4g} / D^{f.beta:.3f}"
    if isinstance(law.fit, IsoFlopFit):
        minima = len(law.fit.minima)
        low, high = min(law.by_window.values()), max(law.by_window.values())
        windows = f"a {low:.3f} to {high:.3f} for windows {', '.join(f'{window:g}' for window in law.by_window)}"
        return f"minima in {minima} of {count(minima + len(law.fit.refused), 'group')}; {windows}"
    return f"minima between the curves from {min(law.fit.flops):.3g} to {max(law.fit.flops):.3g} FLOPs"


def hold_out_text(hold_out: HoldOut | str) -> str:
    """Write the error of a fit to the other budgets at the largest one."""
    if isinstance(hold_out, str):
        return "not possible"
    parts = [] if hold_out.loss_error is None else [f"loss {100 * hold_out.loss_error:.2f} % off"]
    parts += [] if hold_out.size_ratio is None else [f"N* x {hold_out.size_ratio:.2f}"]
    return ", ".join(parts) or "its group has no minimum"


def state_text(fit: StateFit) -> str:
    """Write the state-optimal law in one line."""
    between = f" ({float(fit.interval.low):.3f} to {float(fit.interval.high):.3f})" if fit.interval is not None else ""
    return f"perplexity at the optimum ~ state^{fit.exponent:.3f}{between}, one slope for all architectures"
