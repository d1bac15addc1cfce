"""The package as Python code meets it."""

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import archlab

SPECS = ["transformer++", "hyena", "mamba", "striped-mh-hyena", "2*[mamba(d_state=8) swiglu] mh-attention(heads=4) mlp"]


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
