"""Help answers at once, whatever else is asked for."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer

import archlab
from archlab.cli import app

HEAVY = ["torch", "pandas", "scipy", "sqlalchemy", "altair", "jinja2", "yaml"]
SCRIPT = f"""
import json, resource, sys
from archlab.cli import main
try:
    main()
except SystemExit as end:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    found = [name for name in {HEAVY} if name in sys.modules]
    print(json.dumps([end.code or 0, usage.ru_utime + usage.ru_stime, found]), file=sys.stderr)
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
    if options & {"--protocol", "--store"} and path[0] != "scale" and path != ("store", "merge"):
        assert {"--layers", "--tasks-file"} - options <= ({"--layers"} if path[0] == "tasks" else set())
    if {"--workers"} & options:
        assert "--executor" in options


def ask(arguments: list[str]) -> tuple[str, float, list[str]]:
    """What is printed, the CPU seconds it took, and the heavy modules that it loaded."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=True)
    status, seconds, heavy = json.loads(done.stderr)
    assert status == 0
    return done.stdout, seconds, heavy


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_is_quick_and_light(path: tuple[str, ...]):
    text, seconds, heavy = ask([*path, "--help"])
    assert " ".join(["Usage: archlab", *path]) in text
    assert heavy == []
    for _ in range(2):  # another process on the machine can only make it slower
        seconds = seconds if seconds < 0.5 else min(seconds, ask([*path, "--help"])[1])
    assert seconds < 0.5


@pytest.mark.parametrize("path", [[], ["tasks"]])
def test_without_a_command_help_is_shown(path: list[str]):
    assert ask(path)[0] == ask([*path, "--help"])[0]


def test_help_has_a_short_name_everywhere():
    for path in ([], ["run"], ["tasks", "show"]):
        assert ask([*path, "-h"])[0] == ask([*path, "--help"])[0]


def test_the_version_is_that_of_the_package():
    text, _, heavy = ask(["--version"])
    assert text == f"archlab {archlab.__version__}\n"
    assert heavy == []


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
