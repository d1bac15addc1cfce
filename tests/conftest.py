"""What several test packages share."""

import os
from pathlib import Path

import pytest

from tests.cli.command_line import SMOKE_RUN, CommandLine, Outcome, start

# Before anything imports torch: two test processes with two threads each wait for each other at every small operation,
# which has cost a factor of 200.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture
def archlab(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> CommandLine:
    """The command line in an empty folder, without what `archlab bench` has measured on this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ARCHLAB_STORE", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    return CommandLine(monkeypatch, capsys)


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """The store that one real run of the smoke protocol leaves, and what the run printed (as JSON)."""
    folder = tmp_path_factory.mktemp("smoke")
    process = start(*SMOKE_RUN, "--json", folder=folder)
    out, err = process.communicate(timeout=120)
    assert [path.name for path in folder.iterdir()] == ["archlab.db"], err
    return folder / "archlab.db", Outcome(process.returncode, out, err)
