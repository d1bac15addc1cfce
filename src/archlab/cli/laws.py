"""What ``archlab scale fit`` and ``archlab scale predict`` do; imports weigh, so it is loaded inside the commands."""

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import groupby
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from archlab.cli.output import message, print_json, print_table
from archlab.errors import ArchlabError
from archlab.format import count, human
from archlab.reports.scaling_text import (
    amount,
    hold_out_text,
    interval,
    law_text,
    notes,
    over_training_text,
    share_text,
    state_text,
)
from archlab.scaling.analysis.hybridisation import Sweep
from archlab.scaling.analysis.off_optimal import SHARES, OverTraining
from archlab.scaling.findings import Findings, find, fit_all
from archlab.scaling.fits import IsoFlopFit, ParametricFit, Resampling, StateFit
from archlab.scaling.laws import METHODS, Answer, Estimate, Law, Laws, answer, extrapolation
from archlab.scaling.store import LanguageModelStore
from archlab.scaling.study import Parameters, Point, Study, read_study


def show_fits(location: str, resampling: Resampling, parameters: Parameters, *, as_json: bool) -> None:
    """Fit every architecture of a store, and compare them."""
    findings = _findings(location, parameters, resampling)
    if as_json:
        print_json(_document(findings))
        return
    for reason in findings.without.values():
        message(reason)
    for one in findings.laws:
        print_table(_laws_table(one))
        beyond = findings.over_training[one.family.label]
        if isinstance(beyond, OverTraining):
            message(f"{one.family.label}: over-training: {over_training_text(beyond)}")
        for note in notes(one):
            message(note)
    if findings.gaps:
        print_table(_gap_table(findings))
    if findings.comparisons:
        print_table(_comparison_table(findings))
    for sweep in findings.sweeps:
        print_table(_sweep_table(sweep))
    if isinstance(findings.state, StateFit):
        message(state_text(findings.state))


def write_scaling_page(location: str, output: str, resampling: Resampling, parameters: Parameters) -> None:
    """Write the report of a store, and its runs as CSV beside it."""
    from archlab.reports.scaling_page import table_beside, write_scaling_report

    table_beside(output)  # a wrong place is told before anything is fitted
    table = write_scaling_report(_findings(location, parameters, resampling), output)
    message(f"wrote {output} and {table}")


def show_predictions(
    location: str, flops: float | None, loss: float | None, resampling: Resampling, parameters: Parameters, *, as_json: bool
) -> None:
    """What a budget, or the budget that reaches a loss, is best spent on, by every method."""
    if (flops is None) == (loss is None):
        raise ArchlabError("give --flops (as in --flops 1e21) or --loss (as in --loss 2.0), one of them")
    asked = flops if flops is not None else loss
    assert asked is not None
    if not 0 < asked < math.inf:
        raise ArchlabError(f"{'--flops' if flops is not None else '--loss'} {asked:g}: give a positive finite number")
    study = _study(location, parameters)
    rows: list[tuple[Laws, Law, Answer | str]] = []
    fitted, without = fit_all(study, Resampling(0))
    unfit = list(without.values())
    with _progress(study) as advance:
        for laws in fitted:
            for law in laws.found.values():
                if flops is not None or isinstance(law.fit, ParametricFit):  # else the loss has no floor: far too little
                    rows.append((laws, law, _answer(laws, law, flops, loss, resampling)))
                advance()
            if not laws.found:
                unfit.append(f"{laws.family.label}: no method fits: {next(iter(laws.refused.values()))}")
    if not any(isinstance(found, Answer) for *_, found in rows):
        raise ArchlabError("; ".join([*(str(found) for *_, found in rows), *unfit]))
    for reason in unfit:
        message(reason)
    if as_json:
        print_json([_prediction(*row) for row in rows])
        return
    print_table(_prediction_table(rows, resampling))


def _study(location: str, parameters: Parameters) -> Study:
    with LanguageModelStore[Any](location, create=False) as store:
        return read_study(store.records(statuses=("finished", "diverged")), parameters)


def _answer(laws: Laws, law: Law, flops: float | None, loss: float | None, resampling: Resampling) -> Answer | str:
    """Or why there is none."""
    try:
        return answer(laws.family, law.method, law.fit, laws.cost, resampling, flops=flops, loss=loss)
    except ArchlabError as error:
        return str(error)


def _findings(location: str, parameters: Parameters, resampling: Resampling) -> Findings:
    study = _study(location, parameters)
    with _progress(study) as advance:
        return find(study, resampling, advance)


@contextmanager
def _progress(study: Study) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, gone when all is done; what it gives is to be called after each method of each architecture."""
    columns = (TextColumn("fitting"), BarColumn(), MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(study.families) * len(METHODS))
        yield lambda: progress.advance(task)


def _laws_table(laws: Laws) -> RenderableType:
    family = laws.family
    head = Text(
        f"{family.label}: {count(len(family.C), 'training')}, {family.C.min():.3g} to {family.C.max():.3g} FLOPs, "
        f"{human(family.N.min())} to {human(family.N.max())} parameters",
        style="bold",
    )
    if not laws.found:
        return head
    table = _table("method", "N* ~ C^a", "D* ~ C^b", "N* at the largest", "largest held out", whole=("method",))
    lines = Table.grid(padding=(0, 2, 0, 0))
    for law in laws.found.values():
        largest = law.largest
        table.add_row(
            law.method,
            interval(largest.size_exponent, ".3f"),
            interval(largest.tokens_exponent, ".3f"),
            amount(largest.size),
            hold_out_text(law.hold_out),
        )
        lines.add_row(law.method, law_text(law))
    return Group(head, table, lines, Text())


def _sweep_table(sweep: Sweep) -> Table:
    """A row for each budget, a column for each share of attention."""
    caption = f"attention among the layers that mix the sequence, beside {', '.join(sweep.layers)}; each at its own best size"
    if not all(best.bracketed for best in sweep.best):
        caption += "; not bracketed: the best is the smallest or largest share"
    heads = (f"loss at {share:.3g}" for share in sweep.shares.values())
    table = _table("budget", "best share of attention", *heads, caption=caption)
    for best in sweep.best:
        losses = (f"{best.losses[label]:.4f}" if label in best.losses else "–" for label in sweep.shares)
        table.add_row(f"{best.budget:.3g}", share_text(best), *losses)
    return table


def _gap_table(findings: Findings) -> Table:
    """Rows of architecture and budget, a column for each share of the best size."""
    caption = "what a model smaller than the best of its budget loses, by the parabola; – where no run was so small"
    table = _table("architecture", "budget", *(f"loss more at {share:g} N*" for share in SHARES), caption=caption)
    found = {(gap.label, gap.budget, gap.share): interval(gap.loss, ".4f") for gap in findings.gaps}
    for label, budget in dict.fromkeys((gap.label, gap.budget) for gap in findings.gaps):
        table.add_row(Text(label), f"{budget:.3g}", *(found.get((label, budget, share), "–") for share in SHARES))
    return table


def _comparison_table(findings: Findings) -> Table:
    caption = (
        f"each at its own best size; intervals of {100 * findings.resampling.confidence:.0f} %; a negative difference: the "
        "second is better"
    )
    table = _table("budget", "first", "second", "loss of the first lower by", "which takes the second", caption=caption)
    for c in findings.comparisons:
        multiplier = "–" if c.multiplier is None else f"{interval(c.multiplier, '.2f')} times the budget"
        table.add_row(f"{c.budget:.3g}", c.first, c.second, interval(c.difference, ".4f"), multiplier)
    return table


def _prediction_table(rows: list[tuple[Laws, Law, Answer | str]], resampling: Resampling) -> RenderableType:
    caption = (
        f"intervals of {100 * resampling.confidence:.0f} % tell how far the runs determine the law, not whether it holds beyond "
        "them; beyond: the budget over the largest of the runs, or the smallest over it; FLOPs a token follow a power law of the "
        "size through the runs"
    )
    parts: list[RenderableType] = []
    for label, own in groupby(rows, lambda row: row[0].family.label):
        numbers = ("FLOPs", "parameters", "tokens", "loss")
        table = _table("method", *numbers, "beyond", whole=("method", *numbers))
        for laws, law, found in own:
            if isinstance(found, str):
                table.add_row(law.method, Text(found))
                continue
            beyond = extrapolation(laws.family, found.flops.value)
            loss = "–" if found.loss is None else _asked(found.loss, ".3f")
            cells = (_asked(found.flops, ".3g"), amount(found.size), amount(found.tokens), loss)
            below = [cell.replace(" (", "\n(") for cell in cells]  # intervals on a line of their own, whole
            table.add_row(law.method, *below, "within" if beyond <= 1 else f"{beyond:.3g} x")
        parts += [Text(label, style="bold"), table]
    return Group(*parts, Text(caption, style="dim italic"))


def _table(*columns: str, whole: Collection[str] = (), caption: str = "") -> Table:
    """An empty table; its columns fold where it gets narrow, but for those whose entries stay ``whole``."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", caption=caption or None)
    table.caption_justify = "left"
    for name in columns:
        table.add_column(name, overflow="fold", no_wrap=name in whole)
    return table


def _asked(estimate: Estimate, digits: str) -> str:
    """A number with its interval; alone where it is what was asked for, with no more than rounding for an interval."""
    given = estimate.low is not None and estimate.high is not None and estimate.high / estimate.low < 1 + 1e-9
    return f"{estimate.value:{digits}}" if given else interval(estimate, digits)


def _prediction(laws: Laws, law: Law, found: Answer | str) -> dict[str, Any]:
    row: dict[str, Any] = {"architecture": laws.family.label, "method": law.method}
    if isinstance(found, str):
        return row | {"refused": found}
    return row | asdict(found) | {"beyond_the_data": extrapolation(laws.family, found.flops.value)}


def _document(findings: Findings) -> dict[str, Any]:
    state = findings.state
    return {
        "parameters": findings.study.parameters,
        "confidence": findings.resampling.confidence,
        "resamples": findings.resampling.resamples,
        "intervals": findings.resampling.method,
        "architectures": {one.family.label: _laws_document(one) for one in findings.laws},
        "without_laws": findings.without,
        "comparisons": [asdict(c) for c in findings.comparisons],
        "sweeps": [asdict(sweep) for sweep in findings.sweeps],
        "off_optimal": [asdict(gap) for gap in findings.gaps],
        "over_training": {
            label: {"refused": law} if isinstance(law, str) else asdict(law) for label, law in findings.over_training.items()
        },
        "state": state
        if isinstance(state, str)
        else {
            "exponent": state.exponent,
            "low": None if state.interval is None else float(state.interval.low),
            "high": None if state.interval is None else float(state.interval.high),
            "offsets": state.offsets,
        },
    }


def _laws_document(laws: Laws) -> dict[str, Any]:
    return {
        "trainings": [_point(point) for point in laws.family.points],
        "censored": [_point(point) for point in laws.family.censored],
        "cost": asdict(laws.cost),
        "methods": {method: _law_document(law) for method, law in laws.found.items()},
        "refused": laws.refused,
        "disagreement": laws.disagreement,
        "notes": notes(laws),
    }


def _law_document(law: Law) -> dict[str, Any]:
    fit = asdict(law.fit)
    if isinstance(law.fit, IsoFlopFit):
        fit["refused"] = {f"{budget:.6g}": reason for budget, reason in law.fit.refused.items()}
    hold_out = {"refused": law.hold_out} if isinstance(law.hold_out, str) else asdict(law.hold_out)
    return {"fit": fit, "frontier": asdict(law.frontier), "largest": asdict(law.largest), "hold_out": hold_out}


def _point(point: Point) -> dict[str, Any]:
    run, result = point.run, point.result
    return {
        "key": point.key,
        "dim": run.dim,
        "budget": run.budget,
        "flops": run.flops,
        "params": run.params,
        "params_non_embedding": run.params_non_embedding,
        "tokens": run.tokens,
        "state": run.state,
        "seed": run.seed,
        "loss": result.loss,
        "reason": result.reason,
    }
