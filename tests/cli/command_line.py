"""The command line as a test calls it: in this process, or in one of its own."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from archlab.cli import main, output


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit status, standard output, standard error."""

    status: int
    out: str
    err: str


class CommandLine:
    """Calls the command line in this process, in the current folder; it has the ``patience`` of a machine that is never busy."""

    patience = 600.0

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *arguments: str) -> Outcome:
        self.monkeypatch.setattr(sys, "argv", ["archlab", *arguments])
        self.monkeypatch.setattr(output, "PATIENCE_SECONDS", self.patience)
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        captured = self.capsys.readouterr()
        return Outcome(int(end.value.code or 0), captured.out, captured.err)


ELSEWHERE = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from archlab.cli import main, output
output.PATIENCE_SECONDS = 600
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["archlab", *arguments]
    status, out, err = 0, io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
    print(json.dumps([status, out.getvalue(), err.getvalue()]))
"""


def elsewhere(*commands: tuple[str, ...], folder: Path) -> list[Outcome]:
    """What commands leave in one process of their own, which has imported nothing else."""
    program = [sys.executable, "-c", ELSEWHERE, json.dumps(commands)]
    environment = {name: value for name, value in os.environ.items() if name != "ARCHLAB_STORE"}
    done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, check=True, timeout=120)
    return [Outcome(*json.loads(line)) for line in done.stdout.splitlines()]


def hear_interrupts() -> None:
    """In a child before it starts: Ctrl-C counts even if the tests run in the background, where it is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(*arguments: str, folder: Path) -> "subprocess.Popen[str]":
    """The command line in a process (and a process group) of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", "from archlab.cli import main, output; output.PATIENCE_SECONDS = 600; main()", *arguments],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "ARCHLAB_STORE"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_interrupts,
    )


SMOKE_RUN = ("run", "transformer++", "mamba", "--protocol", "smoke", "--tasks", "compression,in-context-recall", "--workers", "2")
