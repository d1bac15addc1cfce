"""What several test packages share."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.cli.command_line import SMOKE_RUN, CommandLine, Outcome, start
from tests.postgres import postgres, server  # noqa: F401 - fixtures

# Before anything imports torch: two test processes with two threads each wait for each other at every small operation,
# which has cost a factor of 200.
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_configure(config: pytest.Config) -> None:
    """Draw a quarter of the examples where slow tests are left out."""
    settings.register_profile("default suite", max_examples=25)
    if "not slow" in config.option.markexpr:
        settings.load_profile("default suite")


@pytest.fixture(scope="module", autouse=True)
def few_starts(request: pytest.FixtureRequest) -> Iterator[None]:
    """Laws are polished from the best start alone, not from a dozen, except where the fits themselves are tested."""
    with pytest.MonkeyPatch.context() as context:
        if "fits" not in request.path.parts:
            context.setattr("archlab.scaling.fits.parametric.POLISHED_STARTS", 1)
        yield


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder; what a test imports from there or from the examples is forgotten when it ends."""
    from archlab.layers import registry as layers
    from archlab.layers.external import dotted
    from archlab.layers.registry import _REGISTRY as LAYERS
    from archlab.mad import trial as trials
    from archlab.store import fingerprint
    from archlab.tasks import registry as tasks
    from archlab.tasks.registry import _REGISTRY as TASKS

    known, modules = {*layers(), *LAYERS, *tasks()}, set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for registered in (LAYERS, TASKS):
        for name in set(registered) - known:
            del registered[name]
    homes = (tmp_path, Path(__file__).parent.parent / "examples")
    files = {name: getattr(sys.modules[name], "__file__", None) for name in set(sys.modules) - modules}
    imported = [name for name, file in files.items() if file and any(Path(file).is_relative_to(home) for home in homes)]
    for name in imported:
        del sys.modules[name]
    if imported:
        for cached in (
            trials._key_of_alike,
            trials._validate,
            dotted._config,
            dotted._num_params,
            dotted._flops,
            fingerprint.definitions,
            fingerprint._outside,
            fingerprint.folder_of,
        ):
            cached.cache_clear()


@pytest.fixture
def archlab(
    outside: Path,
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
