"""archlab store: look after a store."""

from typing import Annotated

import typer

from archlab.cli.options import DEFAULT_STORE, Architectures, Json, LayerFiles, Store, TaskFiles, Tasks
from archlab.cli.trials import Run, Status

app = typer.Typer(help="Look after a store: info, check, merge, export, rekey, migrate, compact.")


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
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete what cannot be read, with what a later version of archlab has written.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Read everything in a store, and count it; status 1 if something cannot be read and is not deleted.

    Counts results of the present code, and those of an earlier version, which still count where the present one has none.
    """
    import sys

    import archlab
    from archlab.cli.output import message, print_json, print_table, thinking
    from archlab.format import count
    from archlab.reports.tables import plain_table

    with thinking("reading the store"):
        found = archlab.check_store(store, delete=delete)
    if as_json:
        print_json(found.to_dict())
    else:
        print_table(plain_table(found.tables))
        for line in found.unreadable:
            message(f"warning: {line}")
    if delete:
        message(f"deleted {count(found.deleted, 'row')}")
    if len(found.unreadable) > found.deleted:
        sys.exit(1)


@app.command()
def info(
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Show what a store is: its database, schema version, size, rows, and who computes with it now."""
    from rich.table import Table
    from rich.text import Text

    from archlab.cli.output import print_json, print_table
    from archlab.format import human
    from archlab.store.maintenance import info as info_of

    found = info_of(store)
    if as_json:
        print_json(found)
        return
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, value in found.items():
        if isinstance(value, dict):
            for what, statuses in value.items():
                shown = ", ".join(f"{number:,} {status}" for status, number in statuses.items())
                table.add_row(what.replace("_", " "), Text(shown or "none"))
        elif name == "bytes":
            table.add_row("size", f"{human(value)}B")
        else:
            text = ", ".join(value) or "nobody" if isinstance(value, list) else str(value)
            table.add_row(name.replace("_", " "), Text(text))
    print_table(table)


@app.command()
def migrate(store: Store = DEFAULT_STORE) -> None:
    """Bring a store that an earlier archlab has written to the present version of its schema. Nothing in it is lost.

    It is one transaction: it happens as a whole or not at all. Other machines that share the store need the same archlab then.
    """
    from archlab.cli.output import message
    from archlab.store.database import shown
    from archlab.store.maintenance import migrate as migrate_store

    before, after = migrate_store(store)
    message(f"{shown(store)} has schema version {after}" + (", as before" if before == after else f"; it had {before}"))


@app.command()
def compact(store: Store = DEFAULT_STORE) -> None:
    """Give back the space of rows that were deleted or replaced. Nobody may compute with the store meanwhile."""
    from archlab.cli.output import message, thinking
    from archlab.format import human
    from archlab.store.database import shown
    from archlab.store.maintenance import compact as compact_store

    with thinking("compacting the store"):
        before, after = compact_store(store)
    message(f"{shown(store)}: {human(after)}B; it had {human(before)}B")


@app.command()
def rekey(
    store: Store = DEFAULT_STORE,
    files: LayerFiles = None,
    task_files: TaskFiles = None,
) -> None:
    """Carry results over a change of the code that is known to change no number.

    Every result gets the key that the present code has for it, so that no run computes it again. Do this only if you know
    that the change is harmless: archlab cannot tell.
    """
    import archlab
    from archlab.cli.output import message, thinking

    with thinking("reading the store"):
        counts = archlab.rekey_store(store)
    message(f"{counts['moved']} results have the key of the present code now; {counts['current']} had it already")
    if counts["kept"]:
        message(f"{counts['kept']} keep their old key: the present code has a result of its own for the same job")
    if counts["left"]:
        message(
            f"{counts['left']} keep their old key: they cannot be read (`archlab store check` names these), or a layer or task "
            "is not available"
        )


@app.command()
def merge(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Stores to copy from; they stay as they are.")],
    store: Store = DEFAULT_STORE,
) -> None:
    """Copy the results and runs of other stores into one. Results that it has already stay as they are.

    For example: `archlab store merge colleague.db --store archlab.db`
    """
    import archlab
    from archlab.cli.output import message, thinking
    from archlab.format import count
    from archlab.store.database import shown

    with thinking("copying results"):
        copied = archlab.merge_stores(sources, store)
    if left := copied.pop("left"):
        message(f"{count(left, 'row')} left: damaged; `archlab store check --store SOURCE` names them")
    counts = ", ".join(f"{number} {table.replace('_', ' ')}" for table, number in copied.items())
    message(f"{counts} copied into {shown(store)}")


@app.command()
def export(
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="A .csv or .jsonl file; - for standard output.")
    ] = "trials.csv",
    store: Store = DEFAULT_STORE,
    run: Run = None,
    architectures: Architectures = None,
    tasks: Tasks = None,
    status: Status = None,
    files: LayerFiles = None,
    task_files: TaskFiles = None,
) -> None:
    """Write the trials of a store as a table, one row a trial.

    For example: `archlab store export -o - | head`
    """
    from pathlib import Path

    from archlab.cli.options import task_names
    from archlab.cli.output import message, opened, tell_without_trials
    from archlab.errors import ArchlabError
    from archlab.files import is_stream, write_whole
    from archlab.format import csv_text

    place = Path(output)
    if not (is_stream(place) or output.endswith((".csv", ".jsonl"))):
        raise ArchlabError(f"--output {output}: give a name that ends in .csv or .jsonl")
    with opened(store) as results:
        frame = results.trials(run=run, architectures=architectures, tasks=task_names(tasks), status=status)
    text = frame.to_json(orient="records", lines=True) if output.endswith(".jsonl") else csv_text(frame)
    write_whole(place, text, "--output")
    message(f"wrote {len(frame)} trials to {output}")
    if frame.empty and not any((run, architectures, tasks, status)):
        tell_without_trials(store)
