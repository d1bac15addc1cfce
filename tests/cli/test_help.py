"""Help answers at once, whatever else is asked for."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import typer

import archlab
from archlab.cli import app

HEAVY = ["torch", "pandas", "scipy", "sqlalchemy", "altair", "jinja2", "yaml"]
SCRIPT = f"""
import contextlib, io, json, sys
from archlab.cli import main
answers = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["archlab", *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        main()
    answers.append([printed.getvalue(), [name for name in {HEAVY} if name in sys.modules]])
print(json.dumps(answers))
"""


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


COMMANDS = list(commands(typer.main.get_command(app)))


def test_every_command_is_found():
    assert {("run",), ("scores",), ("report",), ("describe",), ("normalise",), ("tasks", "show"), ("protocols",)} < set(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_files_of_layers_and_tasks_are_taken_wherever_they_may_be_needed(path: tuple[str, ...]):
    command = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]
    options = {option for parameter in command.params for option in parameter.opts}
    of_rows = path[:1] not in {("scale",), ("export",), ("eval",)} and path not in {
        ("store", name) for name in ("merge", "info", "migrate", "compact")
    }
    if options & {"--protocol", "--store"} and of_rows:
        assert {"--layers", "--tasks-file"} - options <= ({"--layers"} if path[0] == "tasks" else set())
    if {"--workers"} & options:
        assert "--executor" in options


def ask(*questions: Sequence[str]) -> list[str]:
    """What one process prints for each list of arguments; it has loaded nothing heavy."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, json.dumps(questions)], capture_output=True, text=True, check=True)
    answers = json.loads(done.stdout)
    for question, (_, heavy) in zip(questions, answers, strict=True):
        assert heavy == [], question
    return [text for text, _ in answers]


def test_every_command_has_help_that_loads_nothing_heavy():
    texts = ask(*([*path, "--help"] for path in COMMANDS))
    for path, text in zip(COMMANDS, texts, strict=True):
        assert " ".join(["Usage: archlab", *path]) in text


def test_without_a_command_help_is_shown_and_it_has_a_short_name():
    questions = [[], ["--help"], ["-h"], ["tasks"], ["tasks", "--help"], ["run", "--help"], ["run", "-h"]]
    bare, long, short, tasks, tasks_long, run, run_short = ask(*questions)
    assert bare == long == short
    assert tasks == tasks_long
    assert run == run_short


def test_the_version_is_that_of_the_package():
    assert ask(["--version"]) == [f"archlab {archlab.__version__}\n"]


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "archlab", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"archlab {archlab.__version__}\n"


def test_the_shell_completes_commands_and_options():
    def complete(words: str) -> list[str]:
        asked = {"_ARCHLAB_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        script = [sys.executable, "-m", "archlab"]
        return subprocess.run(script, env=os.environ | asked, capture_output=True, text=True, check=True).stdout.split()

    assert complete("archlab norm") == ["normalise"]
    assert complete("archlab tasks sh") == ["show"]
    assert complete("archlab run --proto") == ["--protocol"]


def test_scale_lists_its_commands_in_the_order_of_the_work():
    names = list(typer.main.get_command(app).commands["scale"].commands)
    assert names == ["plan", "tune", "run", "import", "fit", "compare", "predict", "report", "sample", "evaluate"]
