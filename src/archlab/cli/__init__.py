"""The command line: reads what was asked for, calls the library, prints. No logic.

Every import of weight stands inside a command, so that ``--help`` answers at once.
"""

import sys

import typer

from archlab.cli import describe, run, scores, tasks
from archlab.errors import ArchlabError

app = typer.Typer(
    name="archlab",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""A laboratory for sequence-model architectures: how well does an architecture recall, copy, compress, memorise?

    Start with `archlab run transformer++ mamba --dry-run`, then without `--dry-run`, then `archlab report`.""",
)
app.command()(run.run)
app.command()(scores.scores)
app.command()(scores.report)
app.command()(describe.describe)
app.command()(describe.architectures)
app.command()(describe.layers)
app.command()(describe.protocols)
app.add_typer(tasks.app, name="tasks", help="List the synthetic tasks and look at what they draw.", no_args_is_help=True)


def main() -> None:
    """Run the command line; a request that cannot be met is one line on standard error and status 2."""
    try:
        app()
    except ArchlabError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
