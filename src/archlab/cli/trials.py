"""archlab trials: list the trials of a store, delete some, or compute some again."""

import sys
from typing import Annotated, Any

import typer

from archlab.cli.options import (
    DEFAULT_STORE,
    Architectures,
    Executor,
    Json,
    KeepTrials,
    LayerFiles,
    Store,
    TaskFiles,
    Tasks,
    TimeLimit,
    Workers,
    refuse_options_before_command,
)

app = typer.Typer(help="The trials of a store: list them, delete some, or compute some again.")

Keys = Annotated[list[str] | None, typer.Argument(metavar="[KEY...]", help="Keys, or their first letters.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Run = Annotated[str | None, typer.Option("--run", metavar="N|LABEL", help="Only trials of this run.")]
Status = Annotated[
    str | None, typer.Option("--status", help="Only trials with this status: finished, diverged, dropped, failed or running.")
]


@app.callback(invoke_without_command=True)
def trials(
    context: typer.Context,
    store: Store = DEFAULT_STORE,
    run: Run = None,
    architectures: Architectures = None,
    tasks: Tasks = None,
    status: Status = None,
    files: LayerFiles = None,
    task_files: TaskFiles = None,
    as_json: Json = False,
) -> None:
    """List the trials of a store, oldest first.

    For example: `archlab trials --status failed`, then `archlab trials rerun --status failed`
    """
    if context.invoked_subcommand is not None:
        refuse_options_before_command(context)
        return
    from archlab.cli.output import print_json, print_table, tell_without_trials
    from archlab.format import percent
    from archlab.reports.tables import plain_table

    rows = _chosen(store, run, architectures, tasks, status)
    if as_json:
        print_json(rows)
    elif rows:
        print_table(
            plain_table(
                [
                    {
                        "key": row["key"][:8],
                        "architecture": row["architecture"],
                        "setting": row["setting"],
                        "lr": f"{row['learning_rate']:g}",
                        "wd": f"{row['weight_decay']:g}",
                        "seed": row["seed"],
                        "status": row["status"],
                        "score": percent(row["score"]),
                        "error": row["error"] or "",
                    }
                    for row in rows
                ]
            )
        )
    elif not any((run, architectures, tasks, status)):
        tell_without_trials(store)


@app.command()
def delete(
    keys: Keys = None,
    store: Store = DEFAULT_STORE,
    run: Run = None,
    architectures: Architectures = None,
    tasks: Tasks = None,
    status: Status = None,
    files: LayerFiles = None,
    task_files: TaskFiles = None,
    yes: Yes = False,
) -> None:
    """Delete trials, so that the next run computes them again. Asks first, unless --yes is given.

    Without keys: those that the options choose. Trials that are being computed are left alone.
    """
    from archlab.cli.output import message
    from archlab.format import count
    from archlab.mad.store import TrialStore

    if not (doomed := _keys("delete", keys, store, run, architectures, tasks, status)):
        message("no trial is chosen")
        return
    with TrialStore(store) as results:
        if not yes:
            typer.confirm(f"Delete {count(len(doomed), 'trial')} of {results.where}?", abort=True)
        message(f"deleted {count(results.delete(doomed), 'trial')}; the next run computes what it needs of them again")


@app.command()
def rerun(
    keys: Keys = None,
    store: Store = DEFAULT_STORE,
    run: Run = None,
    architectures: Architectures = None,
    tasks: Tasks = None,
    status: Status = None,
    files: LayerFiles = None,
    task_files: TaskFiles = None,
    workers: Workers = None,
    time_limit: TimeLimit = None,
    executor: Executor = "local",
    keep: KeepTrials = "none",
    yes: Yes = False,
) -> None:
    """Compute trials again, by the present code. Asks before, unless --yes is given.

    Each result stays until the new one is there. Without keys: those that the options choose. Trials that are being
    computed are left alone.

    For example: `archlab trials rerun --status failed`
    """
    import archlab
    from archlab.cli.output import message
    from archlab.cli.signals import status_of, terminable
    from archlab.format import count
    from archlab.store.database import shown

    if not (chosen := _keys("rerun", keys, store, run, architectures, tasks, status)):
        message("no trial is chosen")
        return
    if not yes:
        typer.confirm(f"Compute {count(len(chosen), 'trial')} of {shown(store)} again, and replace the results?", abort=True)
    try:
        with terminable():
            ended = archlab.rerun_trials(
                chosen, store=store, executor=executor, workers=workers, time_limit=time_limit, keep=keep
            )
    except KeyboardInterrupt as stopped:
        message(f"what is done is in {shown(store)}; the others have the results that they had")
        sys.exit(status_of(stopped))
    message(f"computed {count(ended.computed, 'trial')}")
    for key, why in ended.failed.items():
        message(f"failed: {key[:8]}: {why}")
    if ended.failed:
        sys.exit(1)


def _keys(
    command: str,
    keys: list[str] | None,
    store: str,
    run: str | None,
    architectures: list[str] | None,
    tasks: str | None,
    status: str | None,
) -> list[str]:
    """The keys of the trials that a command is asked to take."""
    import archlab
    from archlab.cli.options import task_names
    from archlab.cli.output import thinking
    from archlab.errors import ArchlabError

    if "" in (keys or ()):  # as of an empty variable of the shell; every key begins with it
        raise ArchlabError(f"archlab trials {command} '': no key is empty: `archlab trials` lists them")
    if not keys and not any((run, architectures, tasks, status)):
        raise ArchlabError(f"archlab trials {command}: say which: keys, --run, --architecture, --tasks or --status")
    with thinking("reading the store"), archlab.open(store) as results:
        chosen = [*results.trials(run=run, architectures=architectures, tasks=task_names(tasks), status=status).key]
        if not any((run, architectures, tasks, status)):
            chosen += results.unreadable  # by their keys, damaged rows can be deleted too
    for key in keys or []:
        if not any(one.startswith(key) for one in chosen):
            raise ArchlabError(f"no trial that is chosen has a key that begins with {key!r}: `archlab trials` lists them")
    return [one for one in chosen if not keys or any(one.startswith(key) for key in keys)]


def _chosen(
    store: str, run: str | None, architectures: list[str] | None, tasks: str | None, status: str | None
) -> list[dict[str, Any]]:
    from archlab.cli.options import task_names
    from archlab.cli.output import opened

    with opened(store) as results:
        frame = results.trials(run=run, architectures=architectures, tasks=task_names(tasks), status=status)
    return [{str(name): None if value != value else value for name, value in row.items()} for row in frame.to_dict("records")]
