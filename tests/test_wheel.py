"""The wheel, built and used in an environment of its own, away from the repository; no network is needed."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def call(*command: str | Path, folder: Path) -> str:
    """What a command prints, without what this environment tells Python about paths."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ARCHLAB"))}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder, folder=ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an environment that has the wheel; its dependencies are this environment's."""
    folder = tmp_path_factory.mktemp("elsewhere")
    call(sys.executable, "-m", "venv", "--without-pip", folder / "venv", folder=folder)
    python = folder / "venv" / "bin" / "python"
    call(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, folder=folder)
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path):
    source = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*") if path.is_file()}
    source = {name for name in source if "__pycache__" not in name}
    inside = set(zipfile.ZipFile(wheel).namelist())
    about = {name for name in inside if ".dist-info/" in name}
    assert inside - about == source
    assert {Path(name).suffix for name in source} >= {".py", ".yaml", ".jinja", ".typed"}
    assert any(name.endswith("licenses/LICENSE") for name in about)


def test_the_package_is_found_in_its_environment_and_imports(environment: Path):
    script = "import archlab, archlab.layers, archlab.reports.html; print(archlab.__file__, archlab.architecture('mamba'))"
    file, *spec = call(environment / "venv" / "bin" / "python", "-c", script, folder=environment).split()
    assert Path(file).is_relative_to(environment)
    assert spec == ["4*mamba"]


def test_the_commands_work_away_from_the_repository(environment: Path):
    def archlab(*arguments: str) -> str:
        return call(environment / "venv" / "bin" / "archlab", *arguments, folder=environment)

    assert archlab("--version").startswith("archlab ")
    assert "smoke" in archlab("protocols")
    assert "mamba" in archlab("run", "mamba", "--protocol", "smoke", "--dry-run")
    archlab("run", "mlp", "--protocol", "smoke", "--tasks", "compression")
    archlab("report", "-o", "report.html")
    assert "mlp" in (environment / "report.html").read_text()
    assert (
        "mlp" in archlab("scale", "plan", "mlp", "--ladder", "smoke", "-o", "plan.yaml") + (environment / "plan.yaml").read_text()
    )
