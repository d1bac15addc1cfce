"""The command line: reads what was asked for, calls the library, prints. No logic.

Every import of weight stands inside a command, so that ``--help`` answers at once.
"""

import errno
import gc
import io
import os
import re
import sys
from typing import Annotated

import typer

from archlab.cli import (
    bench,
    correlate,
    describe,
    design,
    evaluate,
    export,
    layers,
    normalise,
    reproduce,
    run,
    scale,
    scale_laws,
    scale_models,
    scores,
    search,
    store,
    tasks,
    trials,
    work,
)
from archlab.errors import ArchlabError, in_one_line

app = typer.Typer(
    name="archlab",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command()(run.run)
app.command()(work.work)
app.command()(bench.bench)
app.command()(scores.scores)
app.command()(scores.report)
app.command()(scores.runs)
app.command()(search.search)
app.command()(search.spaces)
app.command()(correlate.correlate)
app.command("check-table")(correlate.check_table)
app.command()(design.design)
app.command()(export.export)
app.command("eval")(evaluate.evaluate)
app.command()(reproduce.reproduce)
app.command()(describe.describe)
app.command()(normalise.normalise)
app.command()(describe.architectures)
app.command()(layers.layers)
app.command()(describe.protocols)
app.add_typer(trials.app, name="trials")
app.add_typer(store.app, name="store")
app.add_typer(tasks.app, name="tasks")
scale.app.command()(scale_laws.fit)
scale.app.command()(scale_laws.compare)
scale.app.command()(scale_laws.predict)
scale.app.command()(scale_laws.report)
scale.app.command()(scale_models.sample)
scale.app.command()(scale_models.evaluate)
app.add_typer(scale.app, name="scale")


def _show_version(wanted: bool) -> None:
    if wanted:
        import archlab

        typer.echo(f"archlab {archlab.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def archlab(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)] = False,
) -> None:
    """A laboratory for sequence-model architectures: how well does an architecture recall, copy, compress, memorize?

    Start with `archlab run transformer++ mamba --dry-run`, then without `--dry-run`, then `archlab report`.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


_LONGEST_LINE = 2000
_CANNOT_WRITE = {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}


def main() -> None:
    """Run the command line; a request that cannot be met is one line on standard error and status 2."""
    gc.set_threshold(100_000, 50, 50)  # a large store is many small objects, none of them garbage
    if sys.stderr is None:  # closed, as by 2>&-
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    if sys.stdout is None:  # else the first file that is opened would take its place
        sys.exit(_refuse("standard output is closed: send it to a file, or to /dev/null"))
    if sys.platform == "win32":
        sys.exit(_refuse("archlab runs on Linux and macOS: on Windows, install it in WSL"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # letters that the terminal cannot show
    try:
        try:
            status = app(prog_name="archlab", standalone_mode=False)
            if status == 130:  # Ctrl-C outside what says by itself how to go on
                print("stopped", file=sys.stderr)
        except SystemExit as end:
            status = end.code
        sys.stdout.flush()
    except ArchlabError as error:
        status = _refuse(str(error))
    except typer.TyperException as error:
        status = _refuse(_with_hint(error.format_message()))
    except typer.Abort as error:  # Ctrl-C, or a question that was not answered with yes
        print("stopped", file=sys.stderr)
        status = 130 if isinstance(error.__cause__ or error.__context__, KeyboardInterrupt) else 1
    except OSError as error:
        if error.errno not in _CANNOT_WRITE or error.filename is not None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        enough = isinstance(error, BrokenPipeError)  # for the reader, as for `head`
        status = 1 if enough else _refuse(f"the output cannot be written: {error.strerror}")
    except MemoryError:
        status = _refuse("there is not enough memory: close other programs, or ask for less")
    except BaseException as error:
        if isinstance(error, Exception | KeyboardInterrupt):
            raise
        status = _refuse(f"code from outside archlab raised {in_one_line(error)}: have it raise an Exception")
    sys.exit(status)


def _with_hint(reason: str) -> str:
    """A refusal of the parser, with what was probably meant."""
    if extra := re.fullmatch(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", reason):
        return f"{extra[1]}: one argument too many: quote what belongs together, as in 'mamba(d_state=8) swiglu'"
    if missing := re.fullmatch(r"No such command '(.*)'\.", reason):  # nor one that is like it
        if sys.argv[1:2] == ["tasks"] and _is_task(missing[1]):
            return f"{reason} `archlab tasks show {missing[1]}` shows the task of that name"
        group = " ".join(["archlab", *sys.argv[1 : sys.argv.index(missing[1])]])
        return f"{reason} `{group} --help` lists the commands"
    return reason


def _is_task(name: str) -> bool:
    from archlab.tasks.registry import find_task

    try:
        return bool(find_task(name))
    except ArchlabError:
        return False


def _refuse(reason: str) -> int:
    hidden = re.sub(r"://[^\s@]*:[^\s@]*@", "://***@", " ".join(reason.split()))  # a URL where none belongs
    if len(hidden) > _LONGEST_LINE:
        hidden = f"{hidden[: _LONGEST_LINE // 2]} ... {hidden[-_LONGEST_LINE // 2 :]}"
    print(f"error: {hidden}", file=sys.stderr)
    return 2
