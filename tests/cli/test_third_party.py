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

from archlab.jobs.local import LocalExecutor
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

class MixesTheBatch(Sum):
    def forward(self, x):
        return super().forward(x) + x.mean(0, keepdim=True)

class Detaches(Sum):
    def forward(self, x):
        return super().forward(x).detach()

class Exits(Sum):
    def __init__(self, dim):
        raise SystemExit(0)

class Deep(Sum):
    def __init__(self, dim, depth):
        super().__init__(dim)
"""
REGISTERED = """
from dataclasses import dataclass
from torch import nn
from archlab.layers import LayerConfig, register

@register("registered")
@dataclass(frozen=True)
class Config(LayerConfig):
    kind, paper = "sequence", "none"
    {knob}

    def num_params(self, dim, length):
        return {num_params}

    def state_size(self, dim, length):
        return {state}

    def flops(self, dim, length):
        return {flops}

    def build(self, dim, max_length):
        return nn.Linear(dim, dim)
"""
SOUND = {"knob": "", "num_params": "dim * dim + dim", "state": "dim", "flops": "2 * length * dim * dim"}
REGISTERED_FILES = {
    "registered.py": {},
    "lies.py": {"num_params": "7"},
    "negative.py": {"state": "-dim"},
    "raises.py": {"flops": "length // 0"},
    "required.py": {"knob": "depth: int"},
    "stateless.py": {"knob": "state_knob = 'nope'"},
    "unmade.py": {"knob": "__post_init__ = lambda self: 1 // 0"},
    "gone.py": {"knob": "__post_init__ = lambda self: exit(0)"},
    "invalid.py": {"knob": "validate = lambda self, dim: dim // 0"},
}


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalExecutor, "submit", lambda *_: pytest.fail("a training was started"))


REFUSED = [
    ("faulty.Peeks", "faulty.py", "faulty.Peeks: reads the future: a change of token 1 moves the output of token 0"),
    ("faulty.Widens swiglu", "faulty.py", "faulty.Widens: returns the shape (2, 8, 64) for an input of shape (2, 8, 32)"),
    ("faulty.HasNaNGradients", "faulty.py", "faulty.HasNaNGradients: the gradient of the input is not finite: 512 of 512"),
    ("faulty.MixesTheBatch", "faulty.py", "faulty.MixesTheBatch: mixes the sequences of a batch: a change of sequence 0 moves"),
    ("torch.nn.GRU(hidden_size=32)", "faulty.py", "torch.nn.GRU(hidden_size=32): mixes the sequences of a batch: a change of"),
    (
        "faulty.Detaches",
        "faulty.py",
        "faulty.Detaches: its output is detached: no gradient reaches the input; compute it without",
    ),
    ("faulty.Exits", "faulty.py", "faulty.Exits: cannot be built at width 32: SystemExit: 0"),
    ("faulty.Deep", "faulty.py", "faulty.Deep: depth has no default: give it, as in faulty.Deep(depth=...)"),
    ("torch.nn.Absent", "faulty.py", "unknown class of torch.nn: 'Absent': "),
    ("registered", "exits.py", "layers file exits.py: cannot be imported: SystemExit"),
    ("registered", "lies.py", "registered: num_params says 7 at width 32, length 8, but the module has 1056 trainable scalars"),
    ("registered", "negative.py", "registered: state_size gives -32 at width 32, length 8: return a whole number of at least 0"),
    ("registered", "raises.py", "registered: flops fails at width 32, length 8: ZeroDivisionError: "),
    (
        "registered",
        "required.py",
        "layers file required.py: cannot be imported: layer 'registered': its knob depth needs a default",
    ),
    (
        "registered",
        "stateless.py",
        "layers file stateless.py: cannot be imported: unknown state_knob of layer 'registered': 'nope'",
    ),
    ("registered", "unmade.py", "registered: its config cannot be made: ZeroDivisionError: "),
    ("registered", "gone.py", "registered: its config cannot be made: SystemExit: 0"),
    ("registered", "invalid.py", "registered: validate fails at width 32: ZeroDivisionError: "),
    ("faulty.Absent", "faulty.py", "unknown class of faulty: 'Absent': known: Deep, Detaches, Exits, HasNaNGradients, Mixes"),
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
@pytest.mark.parametrize(("spec", "file", "reason"), REFUSED, ids=[f"{spec} {file}" for spec, file, _ in REFUSED])
def test_an_unsound_layer_is_refused_before_training(
    archlab: CommandLine, tmp_path: Path, monkeypatch, no_training, command: list[str], spec: str, file: str, reason: str
):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "faulty.py").write_text(FAULTY)
    (tmp_path / "broken.py").write_text("import not_there\n")
    (tmp_path / "exits.py").write_text("import sys; sys.exit()\n")
    for name, wrong in REGISTERED_FILES.items():
        (tmp_path / name).write_text(REGISTERED.format(**SOUND | wrong))
    files = sorted(path.name for path in tmp_path.iterdir())
    outcome = archlab(*command, "transformer++", spec, "--layers", file, "--protocol", "smoke", "--tasks", "compression")
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.startswith(f"error: {reason}")
    assert outcome.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    assert len(outcome.err) < 500


@pytest.mark.parametrize("command", [["describe", "registered"], ["normalise", "registered", "--state", "9"]], ids=" ".join)
def test_costs_that_cannot_be_had_are_one_line(archlab: CommandLine, tmp_path: Path, command: list[str]):
    (tmp_path / "raises.py").write_text(REGISTERED.format(**SOUND | REGISTERED_FILES["raises.py"]))
    outcome = archlab(*command, "--layers", "raises.py")
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.startswith("error: registered: flops fails at width 128, length 128: ZeroDivisionError: ")
    assert outcome.err.count("\n") == 1
    rows = json.loads(archlab("layers", "--layers", "raises.py", "--json").out)
    assert [row["flops"] for row in rows if row["layer"] == "registered"] == [None]


def test_a_sound_layer_that_prints_as_it_is_imported_is_described(archlab: CommandLine, tmp_path: Path):
    (tmp_path / "talkative.py").write_text("print('hello')\n" + REGISTERED.format(**SOUND))
    outcome = archlab("describe", "registered", "--layers", "talkative.py", "--json")
    assert (outcome.status, outcome.err) == (0, "hello\n")
    assert json.loads(outcome.out)["layers"][0]["parameters"] == 128 * 128 + 128


def test_what_reads_the_future_of_the_longest_sequences_only_is_refused(archlab: CommandLine, tmp_path: Path, no_training):
    late = (
        "class Late(Peeks):\n    def forward(self, x):\n        return super().forward(x) if x.shape[1] > 20 else self.out(x)\n"
    )
    (tmp_path / "faulty.py").write_text(FAULTY + late)
    outcome = archlab("run", "faulty.Late", "--layers", "faulty.py", "--protocol", "smoke")
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert outcome.err.startswith("error: faulty.Late: reads the future: a change of token 1 moves the output of token 0")
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".db"] == []


def test_describe_warns_of_what_a_run_refuses(archlab: CommandLine, tmp_path: Path):
    (tmp_path / "faulty.py").write_text(FAULTY)
    outcome = archlab("describe", "faulty.Peeks swiglu", "--layers", "faulty.py", "--length", "16")
    assert outcome.status == 0
    assert outcome.err.startswith("warning: faulty.Peeks: reads the future: a change of token 1 moves the output of token 0")
    assert outcome.err.count("\n") == 1
    assert archlab("describe", "faulty.Sum swiglu", "--layers", "faulty.py", "--length", "16").err == ""


def test_bench_refuses_it_too(archlab: CommandLine, tmp_path: Path):
    (tmp_path / "faulty.py").write_text(FAULTY)
    outcome = archlab("bench", "faulty.Peeks", "--layers", "faulty.py")
    assert outcome.status == 2
    assert "reads the future" in outcome.err


@pytest.mark.slow
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
    assert "the state of sound.Sum(heads=2) swiglu is not known" in page
    assert '<td class="n">?</td>' in page
    again = archlab("run", "2*[ema swiglu]", *files, *SMOKE)
    assert again.err.startswith("nothing was left to compute; 1 trial taken from the store")
    without = start("scores", folder=tmp_path)  # in a process of its own, which has not imported the files
    table, error = without.communicate(timeout=60)
    assert without.returncode == 0, error
    row = next(line for line in table.splitlines() if line.startswith("2*[ema swiglu]"))
    assert row.split()[-2] == "64"  # the store has its costs
    assert "layer not available: scores are from the store" in table


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


@pytest.mark.slow
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


TINY = ("--ladder", "smoke", "--budgets", "2e9", "--sizes", "1", "--set", "min_steps=20")


@pytest.mark.slow
def test_language_models_of_a_layer_in_a_file_are_planned_and_trained(archlab: CommandLine):
    known = ("--layers", str(EXAMPLE))
    assert archlab("scale", "plan", "ema swiglu", *TINY, *known).status == 0
    outcome = archlab("scale", "run", "plan.yaml", "--workers", "1", *known, "--json")
    assert outcome.status == 0, outcome.err
    (run,) = json.loads(outcome.out)["runs"]
    assert run["result"]["status"] == "finished"


def test_a_language_model_that_reads_the_future_is_not_planned(archlab: CommandLine):
    Path("faulty.py").write_text(FAULTY)
    outcome = archlab("scale", "plan", "faulty.Peeks swiglu", *TINY, "--layers", "faulty.py")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "faulty.Peeks: reads the future" in outcome.err
    assert not Path("plan.yaml").exists()
