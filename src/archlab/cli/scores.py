"""archlab scores and archlab report: show what a store holds."""

from typing import TYPE_CHECKING, Annotated

import typer

from archlab.cli.layer_files import LayerFiles
from archlab.cli.plans import DEFAULT_STORE, Store

if TYPE_CHECKING:
    from archlab.mad.plan import Plan
    from archlab.mad.scores import Scores

ProtocolName = Annotated[str | None, typer.Option("--protocol", help="Show the latest run of this protocol; by default, of any.")]


def scores(
    store: Store = DEFAULT_STORE,
    protocol: ProtocolName = None,
    files: LayerFiles = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on standard output instead of tables.")
    ] = False,
) -> None:
    """Show the leaderboard of the latest run, with the architectures of all runs like it.

    Intervals come from a bootstrap over seeds and test sequences; differences between architectures are paired.
    """
    from archlab.cli.output import print_json, print_scores

    _, found = _scores(store, protocol)
    if as_json:
        print_json(found.to_dict())
    else:
        print_scores(found)


def report(
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="The HTML file to write.")] = "report.html",
    store: Store = DEFAULT_STORE,
    protocol: ProtocolName = None,
    files: LayerFiles = None,
) -> None:
    """Write the report: one HTML file that works offline, with curves, costs, differences and the origin of every number."""
    from archlab.cli.output import message
    from archlab.reports.html import write_report

    plan, found = _scores(store, protocol)
    write_report(found, output, plan.protocol)
    message(f"wrote {output}")


def _scores(location: str, protocol: str | None) -> "tuple[Plan, Scores]":
    from archlab.mad.plan import remembered_plan, score_plan
    from archlab.mad.store import TrialStore

    with TrialStore(location, create=False) as store:
        plan = remembered_plan(store, protocol)
        return plan, score_plan(store, plan)
