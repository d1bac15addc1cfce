"""Commands that take long say what they do."""

import io
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
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


@pytest.fixture
def named(archlab: CommandLine, tmp_path: Path) -> CommandLine:
    """The command line beside a store whose run is called by letters that ASCII does not have."""
    shutil.copy(Path(__file__).parent.parent / "fixtures" / "smoke.db", tmp_path / "archlab.db")
    with closing(sqlite3.connect(tmp_path / "archlab.db")) as store, store:
        store.execute("UPDATE runs SET plan = json_set(plan, '$.label', 'é中')")
    archlab.monkeypatch.chdir(tmp_path)
    return archlab


class Screen(io.TextIOWrapper):
    """A terminal that shows ASCII only."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="ascii", errors="strict")

    def isatty(self) -> bool:
        return True

    @property
    def shown(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode()


@pytest.mark.parametrize("command", [("runs",), ("scores",), ("trials", "--tasks", "copy"), ("layers",)])
def test_names_are_shown_whole_on_a_small_terminal_of_ascii(named: CommandLine, command: tuple[str, ...]):
    for name, value in {"COLUMNS": "40", "TERM": "xterm", "NO_COLOR": "1"}.items():
        named.monkeypatch.setenv(name, value)
    screen, errors = Screen(), Screen()
    named.monkeypatch.setattr(sys, "stdout", screen)
    named.monkeypatch.setattr(sys, "stderr", errors)
    assert named(*command).status == 0
    for name in {"runs": ["\\xe9\\u4e2d", "transformer++", "mamba"], "layers": ["log-linear-gated-deltanet", "heads=8"]}.get(
        command[0], ["2*[mlp swiglu]", "transformer++"]
    ):
        assert name in screen.shown


def test_a_document_on_standard_output_is_utf_8_whatever_the_terminal_takes(named: CommandLine):
    screen = Screen()
    named.monkeypatch.setattr(sys, "stdout", screen)
    assert named("report", "-o", "-").status == 0
    screen.flush()
    assert "–" in screen.buffer.getvalue().decode("utf-8")


def test_windows_is_refused_in_one_line(archlab: CommandLine):
    archlab.monkeypatch.setattr(sys, "platform", "win32")
    outcome = archlab("tasks", "list")
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err == "error: archlab runs on Linux and macOS: on Windows, install it in WSL\n"
