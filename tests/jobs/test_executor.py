"""An executor by its name."""

import pytest
from tests.cli.command_line import CommandLine

from archlab.errors import ArchlabError
from archlab.jobs.executor import EXECUTORS, make_executor


def test_an_unknown_executor_is_refused_with_the_nearest_name():
    with pytest.raises(ArchlabError, match="unknown executor 'locl': did you mean 'local'"):
        make_executor(print, name="locl")


def test_a_new_executor_is_one_file_and_one_line(archlab: CommandLine, monkeypatch: pytest.MonkeyPatch):
    """It keeps the contract by tests/contracts/test_executors.py; from its line on, every command and function takes its name."""
    monkeypatch.setitem(EXECUTORS, "threads", "tests.jobs.thread_executor:ThreadExecutor")
    smoke = ("--protocol", "smoke", "--tasks", "compression", "--executor", "threads", "--workers", "1")
    outcome = archlab("run", "mlp", *smoke)
    assert outcome.status == 0, outcome.err
    assert "1 trial computed in" in outcome.err
