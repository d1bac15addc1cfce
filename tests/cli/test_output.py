"""Commands that take long say what they do."""

import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.cli.command_line import CommandLine

from archlab.cli import output
from archlab.cli.output import thinking


def test_only_what_takes_long_is_named(monkeypatch, capsys):
    monkeypatch.setattr(output, "PATIENCE_SECONDS", 0.05)
    with thinking("reading the store"):
        time.sleep(0.5)
    assert capsys.readouterr() == ("", "reading the store ...\n")
    monkeypatch.setattr(output, "PATIENCE_SECONDS", 60.0)
    with thinking("reading the store"):
        pass
    assert capsys.readouterr() == ("", "")


def test_what_is_done_already_is_not_named_and_what_is_done_next_is(monkeypatch, capsys):
    monkeypatch.setattr(output, "PATIENCE_SECONDS", 0.3)
    with thinking("reading the store") as begin:
        begin("")
        time.sleep(0.6)
        assert capsys.readouterr() == ("", "")
        begin("scoring")
        time.sleep(0.6)
    assert capsys.readouterr() == ("", "scoring ...\n")


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (("scores", "--json"), "reading the store ..."),
        (("report", "-o", "page.html"), "reading the store ..."),
        (("run", "attention mlp", "--protocol", "smoke", "--tasks", "copy", "--dry-run"), "estimating time and memory ..."),
    ],
)
def test_commands_that_take_long_say_what_they_do(command, line, archlab: CommandLine, tmp_path):
    archlab.patience = 0.0
    shutil.copy(Path(__file__).parents[1] / "fixtures" / "smoke.db", tmp_path / "smoke.db")
    archlab.monkeypatch.chdir(tmp_path)
    outcome = archlab(*command, "--store", "smoke.db")
    assert (outcome.status, outcome.err.splitlines()[0]) == (0, line)


def direct(redirection: str, *arguments: str) -> tuple[int, str]:
    """Status and standard error of the command line in a process whose standard output the shell redirects."""
    program = f'"{sys.executable}" -m archlab {shlex.join(arguments)} {redirection}'
    done = subprocess.run(["sh", "-c", program], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize("command", [("--version",), ("tasks",), ("store", "export", "-o", "-"), ("store", "check")])
def test_a_full_standard_output_is_one_line(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(Path(__file__).parent.parent / "fixtures" / "smoke.db", "archlab.db")
    status, error = direct("> /dev/full", *command)
    lines = [line for line in error.splitlines() if not line.endswith("...")]
    assert (status, lines) == (2, ["error: the output cannot be written: No space left on device"])


def test_a_closed_standard_output_is_one_line():
    assert direct(">&-", "--version") == (2, "error: standard output is closed: send it to a file, or to /dev/null\n")
    assert direct("2>&-", "--version")[0] == 0
