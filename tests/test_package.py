"""The package as Python code meets it."""

import importlib
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import archlab

SPECS = ["transformer++", "hyena", "mamba", "striped-mh-hyena", "2*[mamba(d_state=8) swiglu] mh-attention(heads=4) mlp"]


PUBLIC = {
    "archlab": {
        "Architecture", "ArchlabError", "JobFailed", "JobFinished", "architecture", "bench", "check_store", "correlate",
        "describe", "design", "export", "layer", "load_model", "logger", "merge_stores", "normalise", "open",
        "preview", "rekey_store", "report", "reproduce", "rerun_trials", "run", "sample", "search", "task",
    },
    "archlab.figures": {"cost", "differences", "frontier", "isoflop", "leaderboard", "learning_curves", "save"},
    "archlab.layers": {"Composite", "LayerConfig", "Recurrent", "at_least", "divides", "layer", "register", "registry"},
    "archlab.scaling": {
        "compare", "evaluate", "fit", "fits", "plan", "predict", "read_runs", "report", "sample", "train", "tune",
    },
    "archlab.scaling.fits": {
        "EnvelopeFit", "Frontier", "Interval", "IsoFlopFit", "IsoFlopMinimum", "OverTrainingFit", "ParametricFit", "PowerLaw",
        "Resampling", "StateFit", "bootstrap", "fit_envelope", "fit_isoflop", "fit_over_training", "fit_parametric",
        "fit_power_law", "fit_state", "isoflop_minimum", "jackknife",
    },
    "archlab.tasks": {"IGNORE", "Arrays", "Task", "register", "registry", "sample", "setting"},
    "archlab.testing": {
        "ExecutorContract", "LayerContract", "ProcessExecutorContract", "StoreContract", "TaskContract",
    },
}  # fmt: skip
"""What may be imported; everything else may change without notice."""
NAMES = [(module, name) for module, names in PUBLIC.items() for name in sorted(names)]


SUBPACKAGES = ("figures", "layers", "scaling", "tasks", "testing")


@pytest.mark.parametrize("module", PUBLIC)
def test_a_module_exports_its_public_names_and_completes_them(module: str):
    found = importlib.import_module(module)
    assert set(found.__all__) == PUBLIC[module]
    assert len(found.__all__) == len(PUBLIC[module])
    assert {name for name in dir(found) if name not in (*SUBPACKAGES, "__version__")} == PUBLIC[module]


def test_the_public_names_are_few():
    assert len(NAMES) <= 90


ATTRIBUTES = """
import importlib, pkgutil
import archlab as a
assert a.layers.layer and a.scaling.fits and a.figures.cost and a.testing.LayerContract and a.tasks.sample
for module in pkgutil.walk_packages(a.scaling.__path__, "archlab.scaling."):
    importlib.import_module(module.name)
functions = [getattr(a.scaling, name) for name in ("fit", "plan", "predict", "report", "train", "tune")]
assert all(map(callable, functions)), functions
"""


@pytest.mark.slow
def test_subpackages_are_attributes_and_functions_stay_functions_once_every_module_is_loaded():
    done = subprocess.run([sys.executable, "-c", ATTRIBUTES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(dir(archlab)) >= {*SUBPACKAGES, "__version__"}


READING = """
import sys
import archlab.mad.results, archlab.reports.html, archlab.scaling.study_fit
from archlab.cli import app
app(["architectures"], standalone_mode=False)
assert not {"torch", "scipy.stats"} & {*sys.modules}
import archlab.designs.correlation
assert "torch" not in sys.modules
"""


def test_reading_loads_torch_only_with_a_spec_and_scipys_statistics_only_for_correlations():
    done = subprocess.run([sys.executable, "-c", READING], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "transformer++" in done.stdout


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_a_public_name_is_explained_and_its_signature_can_be_read(module: str, name: str):
    found = getattr(importlib.import_module(module), name)
    if name not in ("IGNORE", "Arrays"):  # a number and an alias
        assert inspect.getdoc(found)
    if inspect.isfunction(found):
        assert len(str(inspect.signature(found))) < 700  # expanded types of arrays would be thousands
    if inspect.isfunction(found) or (inspect.isclass(found) and not issubclass(found, Exception)):
        assert " at 0x" not in str(inspect.signature(found))


@pytest.mark.parametrize("name", sorted(PUBLIC["archlab.scaling.fits"]))
def test_columns_of_a_fit_cannot_be_swapped(name: str):
    found = getattr(importlib.import_module("archlab.scaling.fits"), name)
    if inspect.isfunction(found):
        kinds = [parameter.kind for parameter in inspect.signature(found).parameters.values()]
        assert kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD) <= 1


def test_importing_it_is_cheap():
    script = "import sys, archlab; print([name for name in ('torch', 'numpy', 'sqlalchemy', 'pandas') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("spec", SPECS)
def test_an_architecture_is_a_value_that_builds(spec: str):
    import torch

    value = archlab.architecture(spec)
    assert archlab.architecture(str(value)) == value
    assert hash(archlab.architecture(str(value))) == hash(value)
    with torch.random.fork_rng():
        model = value.build(vocab_size=16, max_length=32, dim=128)
    assert model(torch.zeros(2, 32, dtype=torch.int64)).shape == (2, 32, 16)
    assert sum(p.numel() for p in model.parameters()) == value.num_params(vocab_size=16, length=32)
    assert value.state_size(length=32) <= value.state_size(length=64)
    assert 0 < value.flops(length=32) < value.flops(length=64)


def test_what_cannot_be_read_is_an_archlab_error():
    with pytest.raises(archlab.ArchlabError, match="did you mean 'attention'"):
        archlab.architecture("atention")


def test_tasks_draw_labelled_sequences():
    draw = {"split": "test", "n": 1280, "seed": 0, "vocab_size": 16, "length": 128}
    inputs, targets = archlab.tasks.sample("in-context-recall", **draw)
    assert inputs.shape == targets.shape == (1280, 127)  # the last position has no next token to predict
    assert inputs.dtype == targets.dtype == np.int64
    assert set(np.unique(targets)) == {-100, *range(8, 16)}
    again = archlab.tasks.sample("in-context-recall", **draw)
    assert np.array_equal(inputs, again[0])
    assert np.array_equal(targets, again[1])


def test_the_version_is_that_of_the_project():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert archlab.__version__ == project["version"]


def test_unknown_attributes_stay_unknown():
    with pytest.raises(AttributeError, match="no attribute 'architecure'"):
        _ = archlab.architecure
