"""How commands print: documents and tables on standard output, messages on standard error."""

import json
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from archlab.mad.results import Results
    from archlab.mad.scores import Scores

PATIENCE_SECONDS = 2.0
"""A command that takes longer says what it is doing."""
_NARROWEST = 80
"""Columns of a table, at least; a narrower terminal breaks its lines, but leaves nothing out."""


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(document, indent=2, allow_nan=False))


def print_table(table: "RenderableType") -> None:
    """A table on standard output, as wide as the terminal (100 columns where there is none)."""
    _print(output_console(), table)


def print_scores(scores: "Scores") -> None:
    """Leaderboard, learning and differences on standard output."""
    from archlab.reports.tables import differences_table, further_tables, leaderboard, learning_table

    console = output_console()
    scored = sum(architecture.score is not None for architecture in scores.architectures)
    tables = [leaderboard(scores, console.width), *further_tables(scores)]
    if scored:
        tables.append(learning_table(scores))
    if scored > 1:
        tables.append(differences_table(scores))
    for position, table in enumerate(tables):
        if position:
            console.print()
        _print(console, table)


def message(text: str) -> None:
    """One line for the person, on standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)


@contextmanager
def thinking(what: str) -> "Iterator[Callable[[str], None]]":
    """Say on standard error ``what`` is done inside, if it takes long; yields a function for what is done next, or ``""``."""
    timer: Timer | None = None

    def begin(what: str) -> None:
        nonlocal timer
        if timer:
            timer.cancel()
        timer = Timer(PATIENCE_SECONDS, message, [f"{what} ..."]) if what else None
        if timer:
            timer.daemon = True
            timer.start()

    begin(what)
    try:
        yield begin
    finally:
        begin("")


@contextmanager
def opened(store: str) -> "Iterator[Results]":
    """A store, opened for reading; in the end what could not be read of it is named on standard error."""
    import archlab

    with thinking("reading the store"), archlab.open(store) as results:
        yield results
        for line in results.unreadable.values():
            message(f"warning: {line}")


def tell_without_trials(store: str) -> None:
    """If a store has no trials, say so on standard error, what it has instead, and which commands read that."""
    import archlab
    from archlab.format import count
    from archlab.store.database import shown

    found = archlab.check_store(store)
    numbers = {row["what"]: row["all"] for row in found.tables}
    if numbers["trials"] or found.unreadable:  # which may be trials
        return
    names = {"language models": "language model", "imported runs": "imported training run"}
    held = " and ".join(count(numbers[what], name) for what, name in names.items() if numbers[what])
    readers = f"`archlab scale fit{store_option(store)}`, `compare`, `predict` and `report`"
    message(f"store {shown(store)} has no trials{f', but {held}, for {readers}' if held else ''}")


def store_option(location: str) -> str:
    """The option by which a command finds a store again, with a space before it; empty if it finds it by itself."""
    from archlab.cli.options import DEFAULT_STORE
    from archlab.store.database import shown

    by_itself = os.environ.get("ARCHLAB_STORE") or DEFAULT_STORE
    return "" if location == by_itself else f" --store {shlex.quote(shown(location))}"


def how_to_go_on(store: str, executor: str) -> str:
    """The line after a command that was stopped while it computed."""
    from archlab.store.database import shown

    if executor == "workers":
        return "the workers go on; the same command watches again, `archlab runs --withdraw N` ends what it has submitted"
    return f"what is done is in {shown(store)}; the same command does the rest"


def output_console() -> Console:
    """Standard output: as wide as the terminal, 100 columns where there is none; never narrower than tables need for names."""
    console = Console()
    return Console(width=max(console.width, _NARROWEST)) if console.is_terminal else Console(width=100)


def _print(console: Console, shown: "RenderableType") -> None:
    """Tables with their notes over the whole width: within a table's own they would be a narrow column."""
    for part in shown.renderables if isinstance(shown, Group) else (shown,):
        notes = None
        if isinstance(part, Table):
            notes, part.caption = part.caption, None
        console.print(part)
        if notes:
            console.print(notes, width=min(console.width, 100))
