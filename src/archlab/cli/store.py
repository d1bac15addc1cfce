"""archlab store: look after a store."""

from typing import Annotated

import typer

from archlab.cli.options import DEFAULT_STORE, LayerFiles, Store, TaskFiles

app = typer.Typer(help="Look after a store: check, merge, export, rekey.")


@app.callback(invoke_without_command=True)
def store_commands(context: typer.Context) -> None:
    """Look after a store: check that all of it can be read, merge others into it, export its trials."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def check(
    store: Store = DEFAULT_STORE,
    files: LayerFiles = None,
    task_files: TaskFiles = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> None:
    """Read everything in a store, and count it; status 1 if something cannot be read.

    Counts results of the present code, and those of an earlier version, which still count where the present one has none.
    """
    import sys
    from collections import Counter

    from archlab.cli.output import message, print_json, print_table
    from archlab.mad.store import TrialStore
    from archlab.reports.tables import plain_table
    from archlab.scaling.store import StudyStore

    rows, unreadable = [], list[str]()
    for kind, ledger in (("trials", TrialStore), ("training runs", StudyStore)):
        with ledger(store, create=False) as opened:
            records = opened.records(unreadable=unreadable)
            statuses = Counter(record.status for record in records)
            present = sum(record.result is not None and record.key == record.job.key for record in records)
            rows.append(
                {
                    "what": kind,
                    "all": len(records),
                    **{status: statuses[status] for status in ("finished", "diverged", "dropped", "failed", "running")},
                    "of the present code": present,
                    "runs": len(opened.runs()),
                }
            )
    if as_json:
        print_json({"tables": rows, "unreadable": unreadable})
    else:
        print_table(plain_table(rows))
        for line in unreadable:
            message(f"warning: {line}")
    if unreadable:
        sys.exit(1)


@app.command()
def merge(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Stores to copy from; they stay as they are.")],
    store: Store = DEFAULT_STORE,
) -> None:
    """Copy the results and runs of other stores into one. Results that it has already stay as they are.

    For example: `archlab store merge colleague.db --store archlab.db`
    """
    from archlab.cli.output import message
    from archlab.store.database import shown
    from archlab.store.transfer import merge as copy

    for source in sources:
        copied = copy(source, store)
        counts = ", ".join(f"{number} {table.replace('_', ' ')}" for table, number in copied.items())
        message(f"{shown(source)}: {counts} copied into {shown(store)}")


@app.command()
def export(
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="A .csv or .jsonl file.")] = "trials.csv",
    store: Store = DEFAULT_STORE,
    run: Annotated[str | None, typer.Option("--run", metavar="N|LABEL", help="Only the trials of this run.")] = None,
    files: LayerFiles = None,
    task_files: TaskFiles = None,
) -> None:
    """Write the trials of a store as a table, one row a trial."""
    from pathlib import Path

    import archlab
    from archlab.cli.output import message
    from archlab.errors import ArchlabError
    from archlab.files import write_whole

    if not output.endswith((".csv", ".jsonl")):
        raise ArchlabError(f"--output {output}: give a name that ends in .csv or .jsonl")
    with archlab.open(store) as results:
        frame = results.trials(run=run)
    text = frame.to_csv(index=False) if output.endswith(".csv") else frame.to_json(orient="records", lines=True)
    try:
        write_whole(Path(output), text)
    except OSError as error:
        raise ArchlabError(f"--output {output}: cannot be written: {error.strerror}") from None
    message(f"wrote {len(frame)} trials to {output}")
