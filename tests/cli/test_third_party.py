"""Layers from outside on the command line: known everywhere, tried before they are trained, refused in one line."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.command_line import CommandLine, start

from archlab.execution import LocalExecutor
from archlab.testing import LayerContract

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "custom_layer.py"
SMOKE = ("--protocol", "smoke", "--tasks", "compression", "--workers", "1")
FAULTY = """
from torch import nn

class Sum(nn.Module):
    def __init__(self, dim, heads=1):
        super().__init__()
        self.out = nn.Linear(dim, dim)

    def forward(self, x):
        return self.out(x.cumsum(1))

class Peeks(Sum):
    def forward(self, x):
        return super().forward(x.roll(-1, 1))

class Widens(Sum):
    def forward(self, x):
        return super().forward(x).repeat(1, 1, 2)

class HasNaNGradients(Sum):
    def forward(self, x):
        return super().forward(x) + (x - x).sqrt()
"""


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalExecutor, "submit", lambda *_: pytest.fail("a training was started"))


REFUSED = [
    ("faulty.Peeks", "faulty.py", "faulty.Peeks: reads the future: a change of token 1 moves the output of token 0"),
    ("faulty.Widens swiglu", "faulty.py", "faulty.Widens: returns the shape (2, 8, 64) for an input of shape (2, 8, 32)"),
    ("faulty.HasNaNGradients", "faulty.py", "faulty.HasNaNGradients: the gradient of the input is not finite: 512 of 512"),
    ("faulty.Absent", "faulty.py", "unknown class of faulty: 'Absent': known: HasNaNGradients, Peeks, Sum, Widens"),
    ("faulty.Sum(head=2)", "faulty.py", "unknown knob of faulty.Sum: 'head': did you mean 'heads'?"),
    (
        "faulty.Sum(heads=2)",
        "broken.py",
        "layers file broken.py: cannot be imported: ModuleNotFoundError: No module named 'not_there'",
    ),
    (
        "not_there.Sum",
        "faulty.py",
        "not_there.Sum: not_there cannot be imported: ModuleNotFoundError: No module named 'not_there'",
    ),
    ("ema", "absent.py", "layers file absent.py: there is no such Python file"),
    ("ema", "faulty.py", "unknown layer 'ema'"),
]


@pytest.mark.parametrize("command", [["run"], ["run", "--dry-run"]], ids=" ".join)
@pytest.mark.parametrize(("spec", "file", "reason"), REFUSED, ids=[spec for spec, *_ in REFUSED])
def test_an_unsound_layer_is_refused_before_training(
    archlab: CommandLine, tmp_path: Path, monkeypatch, no_training, command: list[str], spec: str, file: str, reason: str
):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "faulty.py").write_text(FAULTY)
    (tmp_path / "broken.py").write_text("import not_there\n")
    outcome = archlab(*command, "transformer++", spec, "--layers", file, "--protocol", "smoke", "--tasks", "compression")
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.startswith(f"error: {reason}")
    assert outcome.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.py", "faulty.py"]


def test_bench_refuses_it_too(archlab: CommandLine, tmp_path: Path):
    (tmp_path / "faulty.py").write_text(FAULTY)
    outcome = archlab("bench", "faulty.Peeks", "--layers", "faulty.py")
    assert outcome.status == 2
    assert "reads the future" in outcome.err


def test_layers_of_a_file_run_in_workers_and_are_scored(archlab: CommandLine, tmp_path: Path):
    (tmp_path / "sound.py").write_text(FAULTY)
    files = ("--layers", str(EXAMPLE), "--layers", "sound.py")
    outcome = archlab("run", "2*[ema swiglu]", "sound.Sum(heads=2) swiglu", *files, *SMOKE, "--json")
    assert outcome.status == 0, outcome.err
    document = json.loads(outcome.out)
    assert document["complete"] is True
    states = {a["architecture"]: a["state_size"] for a in document["architectures"]}
    assert states == {"2*[ema swiglu]": 64, "sound.Sum(heads=2) swiglu": None}
    table = archlab("scores", *files)
    assert table.status == 0
    assert "state ?: a layer does not say what it carries" in table.out
    assert archlab("report", *files).status == 0
    page = (tmp_path / "report.html").read_text()
    assert "what sound.Sum(heads=2) swiglu carries is not known" in page
    assert '<td class="n">?</td>' in page
    again = archlab("run", "2*[ema swiglu]", *files, *SMOKE)
    assert again.err.startswith("nothing was left to compute; 1 trial taken from the store")
    without = start("scores", folder=tmp_path)  # in a process of its own, which has not imported the files
    error = without.communicate(timeout=60)[1]
    assert without.returncode == 2
    assert "its runs cannot be read: unknown layer 'ema'" in error
    assert "give the files of their layers by --layers" in error


def test_describe_and_layers_know_them(archlab: CommandLine, tmp_path: Path):
    (tmp_path / "sound.py").write_text(FAULTY)
    document = json.loads(archlab("describe", "ema sound.Sum", "--layers", str(EXAMPLE), "--layers", "sound.py", "--json").out)
    assert [layer["state"] for layer in document["layers"]] == [128, None]
    assert document["layers"][1]["parameters"] == 128 * 128 + 128
    assert document["layers"][1]["flops"] == 2 * 128 * 128 * 128
    assert document["total"]["state"] is None
    rows = [line.split() for line in archlab("describe", "ema sound.Sum(state=5)", "--layers", "sound.py").out.splitlines()]
    assert ["total", "70,288", "133"] in [row[:3] for row in rows]
    assert "?" in archlab("describe", "sound.Sum", "--layers", "sound.py").out
    listed = {row["layer"]: row for row in json.loads(archlab("layers", "--layers", str(EXAMPLE), "--json").out)}
    assert (listed["ema"]["state"], listed["ema"]["mixes"]) == (128, "sequence")


PACKAGE = {
    "pyproject.toml": """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "toy-mixers"
version = "0.1"

[project.entry-points."archlab.layers"]
toy = "toy_mixers"
broken = "toy_mixers.broken"
""",
    "toy_mixers/__init__.py": "from toy_mixers import ema\n",
    "toy_mixers/broken.py": "import not_there\n",
    "toy_mixers/ema.py": EXAMPLE.read_text().replace('@register("ema")', '@register("toy-ema")'),
    "test_toy_mixers.py": """
import pytest
from archlab import ArchlabError, architecture
from archlab.layers import layer
from archlab.testing import LayerContract

class TestEMA(LayerContract):
    config = layer("toy-ema")

def test_specs_know_it():
    assert architecture("2*[toy-ema swiglu]").state_size(length=128) == 256

def test_what_cannot_be_imported_is_named_with_the_reason():
    reason = "did you mean 'toy-ema'.; the layers of toy-mixers cannot be imported: ModuleNotFoundError: No module named"
    with pytest.raises(ArchlabError, match=reason):
        architecture("toy-emma")
""",
}


def test_an_installed_package_brings_layers_and_runs_the_contract_suite(tmp_path: Path):
    for name, text in PACKAGE.items():
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_text(text)
    site = tmp_path / "site"
    offline = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet")
    pip = (sys.executable, "-m", "pip", "install", *offline, "--target", str(site), str(tmp_path / "source"))
    subprocess.run(pip, check=True, capture_output=True)
    shutil.copy(tmp_path / "source" / "test_toy_mixers.py", tmp_path)
    tests = subprocess.run(
        (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_toy_mixers.py"),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert tests.returncode == 0, tests.stdout
    passed = re.search(r"(\d+) passed", tests.stdout)
    assert passed
    assert int(passed[1]) == 2 + sum(name.startswith("test_") for name in dir(LayerContract)) - 1  # one is of channel mixers only
