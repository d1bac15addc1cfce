"""The code that is cut out of archlab computes what archlab computes, and nothing of it is missing."""

import ast
import sys
from pathlib import Path

import pytest
import torch
from tests.exports.kept_models import imported

from archlab.errors import ArchlabError
from archlab.exports.code import Bundle, file_name
from archlab.layers.registry import composites, layer, registry

OWN = sorted(name for name, config in registry().items() if config.__module__.startswith("archlab."))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory):
    """The folder with the code of all layers."""
    folder = tmp_path_factory.mktemp("code") / "exported_layers"
    folder.mkdir()
    bundle = Bundle()
    for config in (*(registry()[name] for name in OWN), *composites().values()):
        bundle.add(config.__module__, config.__name__)
    for name, text in bundle.files().items():
        (folder / name).write_text(text)
    with pytest.MonkeyPatch.context() as context:
        context.setattr(sys, "path", [*sys.path])
        yield folder


@pytest.mark.parametrize("name", OWN)
def test_a_layer_computes_the_same_without_archlab(exported: Path, name: str):
    config = layer(name)
    theirs = getattr(imported(exported, file_name(type(config).__module__)), type(config).__name__)
    torch.manual_seed(0)
    ours = config.build(64, 12)
    other = theirs(**config.knobs()).build(64, 12)
    assert type(other).__module__.startswith("exported_layers.")
    other.load_state_dict(ours.state_dict())
    x_bld = torch.randn(2, 12, 64)
    torch.testing.assert_close(other(x_bld), ours(x_bld), atol=0, rtol=0)
    assert (theirs.name, theirs().num_params(64, 12)) == (name, config.num_params(64, 12))


def test_no_file_imports_archlab_or_what_a_layer_does_not_need(exported: Path):
    found = set()
    for path in exported.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            found |= {one.name.partition(".")[0] for one in node.names} if isinstance(node, ast.Import) else set()
            found |= {(node.module or "").partition(".")[0]} if isinstance(node, ast.ImportFrom) and not node.level else set()
    assert found - sys.stdlib_module_names == {"torch", "typing_extensions"}


def test_only_what_is_reached_is_there():
    bundle = Bundle()
    bundle.add("archlab.layers.mlp", "SwiGLUConfig")
    files = bundle.files()
    text = files["archlab_layers_mlp.py"]
    assert "class SwiGLU(" in text
    assert "class MLP(" not in text
    assert "yaml" not in "".join(files.values())
    assert not any("ops" in name for name in files)


def test_two_copies_of_an_operator_live_in_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    outputs = []
    for name in ("first_copy", "second_copy"):
        (tmp_path / name).mkdir()
        bundle = Bundle()
        bundle.add("archlab.layers.attention", "AttentionConfig")
        for file, text in bundle.files().items():
            (tmp_path / name / file).write_text(text)
        config = imported(tmp_path / name, "archlab_layers_attention").AttentionConfig
        torch.manual_seed(0)
        outputs.append(config().build(64, 8)(torch.ones(1, 8, 64)))
    assert torch.equal(*outputs)


FILE = '''
"""A layer, with more in its file than it needs."""
from dataclasses import dataclass
from helper_of_mine import twice as double
import torch
from torch import nn
from archlab.layers import LayerConfig, register
from archlab.tasks import Task, sample
SCALE: float = 3.0
"""How much."""
# What it is not known for.
other = sample
def unused(): return Task
@register("mine")
class Mine(LayerConfig):
    paper = ""
    kind = "channel"
    def num_params(self, dim, length): return 0
    def state_size(self, dim, length): return 0
    def flops(self, dim, length): return 0
    def build(self, dim, max_length): return Module()
class Module(nn.Module):
    def forward(self, x_bld):
        from helper_of_mine import ADDED as added
        return SCALE * double(x_bld) + added
if __name__ == "__main__":
    import archlab
    archlab.run("mine")
'''


def test_a_layer_of_a_file_brings_what_it_needs_from_beside(outside: Path):
    (outside / "helper_of_mine.py").write_text("ADDED = 1\ndef twice(x): return 2 * x\ndef unused(): import archlab\n")
    (outside / "my_layers.py").write_text(FILE)
    sys.path.append(str(outside))
    bundle = Bundle("my_layers")
    bundle.add("my_layers", "Mine")
    files = bundle.files()
    assert "unused" not in "".join(files.values())
    assert not any("tasks" in name for name in files)
    assert "# Taken from the module my_layers, of outside archlab.\n" in files["my_layers.py"]
    place = outside / "exported_of_mine"
    place.mkdir()
    for name, text in files.items():
        (place / name).write_text(text)
    module = imported(place, "my_layers").Mine().build(4, 4)
    assert torch.equal(module(torch.ones(1, 1, 4)), torch.full((1, 1, 4), 7.0))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("import helper_of_mine as helper", "broken_\\w+ imports helper_of_mine as a whole, .* import the names that it uses"),
        ("from helper_of_mine import *", "broken_\\w+ imports all of helper_of_mine: import the names that it uses"),
        ("from fast_of_mine import helper", "module fast_of_mine has no source, only fast_of_mine.abi3.so"),
        ("exec('helper = 1')\nfrom helper_of_mine import helper", "helper_of_mine.helper is not defined by a statement"),
    ],
)
def test_what_cannot_be_followed_is_refused(outside: Path, line: str, reason: str):
    (outside / "helper_of_mine.py").write_text("")
    (outside / "fast_of_mine.abi3.so").write_bytes(b"")
    name = f"broken_{hash(line) % 1000}"  # sources are read once
    (outside / f"{name}.py").write_text(f"{line}\nclass Layer:\n    value = helper\n")
    sys.path.append(str(outside))
    with pytest.raises(ArchlabError, match=reason):
        Bundle(name).add(name, "Layer")
