"""archlab scores, report, runs and trials: what a store holds."""

import shlex
from typing import Annotated, Any, Literal

import typer

from archlab.cli.options import DEFAULT_STORE, Architectures, Json, LayerFiles, Settings, Store, TaskFiles, Tasks

RunName = Annotated[
    str | None,
    typer.Option(
        "--run",
        metavar="N|LABEL",
        help="A run of `archlab runs`, by number or label; by default the widest one that is comparable with the latest.",
    ),
]
ProtocolName = Annotated[str | None, typer.Option("--protocol", help="The latest run of this protocol; by default, of any.")]
Output = Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="The file to write to; - for standard output.")]


def scores(
    store: Store = DEFAULT_STORE,
    run: RunName = None,
    protocol: ProtocolName = None,
    architectures: Architectures = None,
    tasks: Tasks = None,
    settings: Settings = "all",
    files: LayerFiles = None,
    task_files: TaskFiles = None,
    form: Annotated[
        Literal["table", "json", "csv", "latex", "markdown", "parquet"],
        typer.Option(
            "--format",
            help="table for the terminal; json with everything; csv or parquet with a row for each architecture and setting; "
            "latex (booktabs) or markdown with the leaderboard, for a paper.",
        ),
    ] = "table",
    output: Output = "-",
    as_json: Json = False,
) -> None:
    """Show the leaderboard of a run.

    By default: the widest run that is comparable with the latest one, with the architectures of all runs comparable with it.
    Intervals come from a bootstrap over seeds and test sequences; differences between architectures are paired.

    For example: `archlab scores --format latex -o table.tex`
    """
    from pathlib import Path

    from archlab.cli.options import task_names
    from archlab.cli.output import message, opened, print_scores
    from archlab.reports.documents import check_output, write_scores

    form = "json" if as_json else form
    place = Path(output)
    with opened(store) as results:
        check_output(place, form)
        found = results.scores(run, protocol=protocol, architectures=architectures, tasks=task_names(tasks), settings=settings)
    if form == "table":
        print_scores(found)
        return
    write_scores(found, place, form)
    if output != "-":
        message(f"wrote {output}")


def report(
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="The HTML file to write; - for standard output.")
    ] = "report.html",
    store: Store = DEFAULT_STORE,
    run: RunName = None,
    protocol: ProtocolName = None,
    architectures: Architectures = None,
    tasks: Tasks = None,
    settings: Settings = "all",
    files: LayerFiles = None,
    task_files: TaskFiles = None,
    pictures: Annotated[
        str | None,
        typer.Option("--figures", metavar="DIR", help="Also write every figure as SVG and PDF into this folder, for a paper."),
    ] = None,
) -> None:
    """Write the page of a run: one HTML file that works offline.

    It has curves, costs, differences, and the origin of every number.

    For example: `archlab report -o report.html --figures figures`
    """
    from pathlib import Path

    import archlab
    from archlab.cli.options import task_names
    from archlab.cli.output import message, opened, thinking
    from archlab.files import check_place

    with opened(store) as results:
        check_place(Path(output))  # before anything is scored
        plan = results.plan(run, protocol)
        found = results.scores(run, protocol=protocol, architectures=architectures, tasks=task_names(tasks), settings=settings)
        with thinking("drawing the page"):
            archlab.report(found, output, protocol=plan.protocol)
    message(f"wrote {output}")
    if pictures is not None:
        from archlab import figures

        with thinking("drawing the figures"):
            written = figures.save(found, pictures)
        message(f"wrote {', '.join(path.name for path in written)} into {pictures}")


def runs(
    store: Store = DEFAULT_STORE,
    files: LayerFiles = None,
    task_files: TaskFiles = None,
    withdraw: Annotated[
        int | None,
        typer.Option(metavar="N", help="End what run N, of either kind, has submitted to workers; what is done stays."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the runs of a store, of trials and of language models: how much is done, how each ended, where, what failed and why.

    --json also gives the versions of archlab, torch and Python.
    """
    from archlab.cli.output import message, opened, print_json, print_table, store_option, tell_without_trials
    from archlab.reports.tables import plain_table
    from archlab.scaling.runs import study_runs
    from archlab.store.submissions import Submissions

    if withdraw is not None:
        with Submissions(store) as submissions:
            submissions.withdraw(withdraw)
        message(f"run {withdraw} is withdrawn; workers stop what they compute of it")
        return

    with opened(store) as results:
        rows: list[Any] = results.runs().to_dict("records")
        trained = study_runs(store, results.unreadable)
        if as_json:
            print_json([{"kind": "trials"} | row for row in rows] + [{"kind": "training runs"} | row for row in trained])
            return
        if rows:
            print_table(plain_table([_shown(row, protocol=row["protocol"]) for row in rows]))
            message("`archlab scores --run N` shows one")
        if trained:
            print_table(plain_table([_shown(row, plan=row["plan"]) for row in trained]))
            message(f"`archlab scale fit{store_option(store)}` fits laws to all training runs")
        for row in rows + trained:
            for cause, number in row["failures"].items():
                message(f"run {row['number']}: {number} failed: {cause}")
            if row["failures"]:
                again = f"archlab trials rerun --run {row['number']} --status failed"
                again = f"archlab scale run {shlex.quote(row['plan'])}" if "plan" in row else again
                message(f"run {row['number']}: `{again}{store_option(store)}` tries them again")
        if not rows and not trained and not results.unreadable:
            message(f"store {results.where} has no runs")
            tell_without_trials(store)


def _shown(row: dict[str, Any], **what: str) -> dict[str, object]:
    """A run as its table shows it; ``what`` names its protocol or plan. Of many architectures the first are named."""
    names = row["architectures"]
    sizes = (
        {"budgets": len(row["budgets"]), "training runs done": f"{row['done']} of {row['training_runs']}"}
        if "plan" in what
        else {"tasks": len(row["tasks"]), "seeds": len(row["seeds"]), "trials done": f"{row['done']} of {row['trials']}"}
    )
    return {
        "run": row["number"],
        **({} if "plan" in what else {"label": row["label"]}),
        "date": (row["started"] or "unknown")[:16].replace("T", " "),
        **what,
        "architectures": ", ".join(names if len(names) <= 5 else [*names[:4], f"{len(names) - 4} more"]),
        **sizes,
        "ended": row["ended"] or "",
        "host": row["host"] or "",
    }
