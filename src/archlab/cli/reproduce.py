"""archlab reproduce: test a published finding again."""

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from archlab.cli.options import Executor, Json, LayerFiles, TaskFiles, Workers

if TYPE_CHECKING:
    from archlab.designs.verdict import Quantity
    from archlab.findings import Reproduction


class Size(StrEnum):
    """How much is trained."""

    smoke = "smoke"
    laptop = "laptop"


def reproduce(
    finding: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A finding, or the path of a YAML file with your own; without it all are listed."),
    ] = None,
    size: Annotated[
        Size, typer.Option(help="laptop: minutes to an hour on two cores. smoke: seconds, shows that it runs and tells nothing.")
    ] = Size.laptop,
    store: Annotated[
        str, typer.Option(metavar="PATH|URL", help="Results of findings: an SQLite file, or any SQLAlchemy URL.")
    ] = "findings.db",
    workers: Workers = None,
    executor: Executor = "local",
    files: LayerFiles = None,
    task_files: TaskFiles = None,
    as_json: Json = False,
) -> None:
    """Test a published finding again: what was claimed, what is measured here, and the verdict.

    Trains what the store lacks; after Ctrl-C the same command does the rest. The verdict is *supported* if the whole 95 %
    interval lies where the claim wants it, *not supported* if it lies outside, else *cannot be told at this scale*.

    For example: `archlab reproduce negative-eigenvalues --size smoke`
    """
    import archlab
    from archlab.cli.output import message, print_json, thinking
    from archlab.cli.signals import terminable
    from archlab.store.database import shown

    if finding is None:
        print_list(as_json)
        return
    try:
        with terminable(), thinking("looking up what is left to compute"):
            found = archlab.reproduce(finding, size=size.value, store=store, workers=workers, executor=executor)
    except KeyboardInterrupt:
        message(f"what is done is in {shown(store)}; the same command does the rest")
        sys.exit(130)
    if as_json:
        print_json(found.to_dict())
    else:
        print_reproduction(found)


def print_list(as_json: bool) -> None:
    """Every finding of the package, with its claim and source."""
    from archlab.cli.output import message, print_json, print_table
    from archlab.designs.finding import finding_names, load_finding
    from archlab.reports.tables import plain_table

    known = [load_finding(name) for name in finding_names()]
    rows = [{"finding": one.name, "claim": one.claim, "source": one.source} for one in known]
    if as_json:
        print_json(rows)
    else:
        print_table(plain_table(rows))
        message("`archlab reproduce NAME` tests one, `archlab reproduce NAME --size smoke` shows in seconds that it runs")


def print_reproduction(found: "Reproduction") -> None:
    """The claim, what was measured, the verdict, and what it cost."""
    from rich.table import Table
    from rich.text import Text

    from archlab.cli.output import print_table
    from archlab.format import count, duration

    finding = found.finding
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_row("claim", Text(finding.claim))
    table.add_row("source", Text(finding.source))
    if finding.notes:
        table.add_row("here", Text(finding.notes))
    for quantity in found.quantities:
        table.add_row("measured", Text(measured(quantity)))
    work = [count(number, what) for number, what in ((found.trials, "trial"), (found.training_runs, "language model")) if number]
    table.add_row("cost", f"{duration(found.cpu_seconds)} of processor time for {' and '.join(work)}, size {found.size}")
    table.add_row("verdict", Text(found.verdict, style="bold"))
    print_table(table)


def measured(quantity: "Quantity") -> str:
    """A quantity with its interval, the claimed region and the verdict on it, in a line."""
    from archlab.designs.verdict import CONFIDENCE
    from archlab.reports.findings_table import claimed, with_interval

    parts = [f"{quantity.name}: {with_interval(quantity)}", f"claimed {claimed(quantity)}"]
    if len(quantity.by_seed) > 1:
        parts.append(f"{CONFIDENCE:.0%} interval over {len(quantity.by_seed)} seeds")
    return f"{'; '.join(parts)}: {quantity.verdict}" + (f" ({quantity.doubt})" if quantity.doubt else "")
