"""Any nn.Module as a layer: how its path is read, how it is built, what is measured."""

import pickle
from pathlib import Path

import pytest
import torch

from archlab.architectures import architecture
from archlab.errors import ArchlabError
from archlab.isolation import changed, snapshot
from archlab.layers import layer
from archlab.sources import import_file

CODE = """
from torch import nn

class Mixer(nn.Module):
    def __init__(self, dim, heads=2, bias=False):
        super().__init__()
        self.heads, self.out = heads, nn.Linear(dim, dim, bias=bias)

    def forward(self, x):
        return self.out(x.cumsum(1) / self.heads)

class Several(Mixer):
    def __init__(self, mode="chunk", hidden_size=8, **more):
        super().__init__(hidden_size, **more)
        self.mode = mode

    def forward(self, x):
        return super().forward(x), None, {}

class FirstIsWidth(nn.Module):
    def __init__(self, features, hidden_size=3):
        super().__init__()
        self.up, self.down = nn.Linear(features, hidden_size), nn.Linear(hidden_size, features)

    def forward(self, x):
        return self.down(self.up(x))

class LastIsWidth(Mixer):
    def __init__(self, heads, *, d_model):
        super().__init__(d_model, heads)

class ReadsData(Mixer):
    def forward(self, x):
        return super().forward(x) * (2.0 if x.sum().item() > 1e9 else 1.0)

class HasState(Mixer):
    def __init__(self, dim, state=1):
        super().__init__(dim)
        self.state = state

class ChangesTheProcess(Mixer):
    def forward(self, x):
        import os
        import torch
        os.environ["ATEN_CPU_CAPABILITY"] = "default"
        torch.set_flush_denormal(True)
        return super().forward(x)

class Fails(Mixer):
    def __init__(self, dim):
        raise ValueError("not today")

class Exits(Mixer):
    def __init__(self, dim):
        raise SystemExit(0)

def not_a_class(dim):
    return Mixer(dim)
"""


@pytest.fixture(autouse=True)
def mixers(outside: Path) -> None:
    (outside / "mixers.py").write_text(CODE)
    import_file(outside / "mixers.py", "layers")


def test_it_is_a_value_with_a_text_form():
    one = layer("mixers.Mixer", heads=4)
    assert one == layer("mixers.Mixer", heads=4)
    assert hash(one) == hash(layer("mixers.Mixer", heads=4))
    assert one not in (layer("mixers.Mixer"), layer("mixers.Several", heads=4))
    assert layer("mixers.Mixer", heads=4, bias=True) == layer("mixers.Mixer", bias=True, heads=4)
    assert one.knobs() == {"heads": 4}
    spec = '2*[mixers.Mixer(heads=4, bias=True) swiglu] mixers.Several(mode="two words", state=7)'
    stack = architecture(spec)
    assert architecture(str(stack)) == stack
    assert "mixers.Mixer(heads=4, bias=True)" in str(stack)
    assert pickle.loads(pickle.dumps(stack)) == stack


@pytest.mark.parametrize(
    "mode", ["inf", "nan", "Infinity", "true", "12", "", 'say "hi"', 'it\'s "this"', "two\nlines", "a=b, [c]"]
)
def test_strings_read_back_from_a_spec(mode: str):
    stack = architecture("mixers.Several swiglu")
    stack = type(stack)((layer("mixers.Several", mode=mode), *stack.layers))
    assert architecture(str(stack)) == stack


def test_names_may_start_with_an_underscore(outside: Path):
    (outside / "_private.py").write_text("from mixers import Mixer as _Mixer\n")
    assert architecture("_private._Mixer(heads=1)").layers[0].knobs() == {"heads": 1}


def test_counting_its_costs_changes_nothing_of_the_process():
    expected = layer("mixers.Mixer").flops(6, 10)  # PyTorch's fake tensors set a variable the first time
    before = snapshot()
    assert layer("mixers.ChangesTheProcess").flops(6, 10) == expected
    assert changed(before) == ""


def test_importing_it_changes_nothing_of_the_process(outside: Path):
    (outside / "settings.py").write_text(
        "import os\nimport torch\nfrom mixers import Mixer\nos.environ['MKL_CBWR'] = 'AVX2'\ntorch.set_grad_enabled(False)\n"
    )
    before = snapshot()
    assert architecture("settings.Mixer").layers[0].knobs() == {}
    assert changed(before) == ""


@pytest.mark.parametrize("name", ["Mixer", "Several", "FirstIsWidth", "ReadsData"])
def test_it_is_built_at_the_width(name: str):
    module = layer(f"mixers.{name}").build(6, 10)
    assert module(torch.randn(2, 5, 6)).shape == (2, 5, 6)


def test_the_width_may_have_any_place_that_its_name_tells():
    module = layer("mixers.LastIsWidth", heads=3).build(6, 10).module
    assert (module.heads, module.out.in_features) == (3, 6)
    assert layer("mixers.FirstIsWidth", hidden_size=4).build(6, 10).module.up.out_features == 4


@pytest.mark.parametrize("name", ["Mixer", "ReadsData"])
def test_parameters_and_flops_are_measured(name: str):
    config = layer(f"mixers.{name}", bias=True)
    assert config.num_params(6, 10) == 6 * 6 + 6
    assert config.flops(6, 10) == 2 * 10 * 6 * 6


def test_measuring_draws_nothing():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    config = layer("mixers.ReadsData")
    assert config.num_params(5, 3)
    assert config.flops(5, 3)
    assert torch.equal(torch.rand(3), expected)


def test_state_is_unknown_unless_given():
    assert layer("mixers.Mixer").state_size(6, 10) is None
    assert layer("mixers.Mixer", state=48).state_size(6, 10) == 48
    assert architecture("mixers.Mixer swiglu").state_size(length=10, dim=6) is None
    assert architecture("mixers.Mixer(state=48) swiglu").state_size(length=10, dim=6) == 48
    assert layer("mixers.HasState", state=3).state_size(6, 10) is None
    assert layer("mixers.HasState", state=3).build(6, 10).module.state == 3


def test_a_module_of_torch_is_one_too():
    recurrent = layer("torch.nn.GRU", hidden_size=6, batch_first=True)
    assert recurrent.num_params(6, 10) == 2 * 3 * (6 * 6 + 6)
    assert recurrent.build(6, 10)(torch.randn(2, 5, 6)).shape == (2, 5, 6)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mixers.Mixr", "unknown class of mixers: 'Mixr': did you mean 'Mixer'?"),
        ("mixers.Mixer(head=2)", "unknown knob of mixers.Mixer: 'head': did you mean 'heads'?"),
        ("mixers.LastIsWidth", "mixers.LastIsWidth: heads has no default: give it, as in mixers.LastIsWidth(heads=...)"),
        ("mixers.Mixer(dim=2)", "unknown knob of mixers.Mixer: 'dim': known: bias, heads, state"),
        ("mixers.Several(head=2)", "unknown knob of mixers.Several: 'head': did you mean 'heads'?"),
        (
            "mixers.Mixer(state=few)",
            "mixers.Mixer(state=few): give the scalars that are carried from token to token, a",
        ),
        ("mixers.Mixer(heads=nan)", "mixers.Mixer(heads=nan): give a finite number"),
        ("mixers.Mixer(heads=-1e999)", "mixers.Mixer(heads=-inf): give a finite number"),
        ("mixers.Mixer(state=1e999)", "mixers.Mixer(state=inf): give a finite number"),
        ("mixers.not_a_class", "mixers.not_a_class: not_a_class is not a class of nn.Module"),
        (
            "mixrs.Mixer",
            "mixrs.Mixer: mixrs cannot be imported: ModuleNotFoundError: No module named 'mixrs': install it, or",
        ),
        ("hub:Mixer", "unknown prefix 'hub': known: fla"),
        ("fla:GatedDeltaNet", "fla:GatedDeltaNet: the kernels of flash-linear-attention need a GPU, and none is visible here"),
    ],
)
def test_what_cannot_be_read_is_named(monkeypatch, spec: str, message: str):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ArchlabError) as refusal:
        architecture(spec)
    assert str(refusal.value).startswith(message)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mixers.Fails", "mixers.Fails: cannot be built at width 6: ValueError: not today"),
        ("mixers.Exits", "mixers.Exits: cannot be built at width 6: SystemExit: 0"),
    ],
)
def test_what_cannot_be_built_does_not_fit(spec: str, message: str):
    with pytest.raises(ArchlabError, match=message):
        architecture(spec).validate(6)


def test_the_short_form_of_flash_linear_attention(outside: Path, monkeypatch):
    """With a stand-in: the package itself needs a GPU."""
    (outside / "fla").mkdir()
    (outside / "fla" / "__init__.py").touch()
    (outside / "fla" / "layers.py").write_text("from mixers import Several as GatedDeltaNet\n")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config = layer("fla:GatedDeltaNet", heads=4)
    assert str(config) == "fla:GatedDeltaNet(heads=4)"
    assert config.num_params(6, 10) == 6 * 6
    assert config.build(6, 10)(torch.randn(2, 5, 6)).shape == (2, 5, 6)
    with pytest.raises(ArchlabError, match="did you mean 'GatedDeltaNet'"):
        layer("fla:GatedDeltNet")


def test_without_flash_linear_attention_its_layers_say_what_to_install(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ArchlabError, match=r"fla:GLA: fla.layers cannot be imported: .*: pip install 'archlab\[gpu\]'"):
        layer("fla:GLA")


def test_what_a_spec_cannot_write_is_no_knob():
    with pytest.raises(ArchlabError, match=r"^mixers.Several\(mode=None\): a spec cannot write it; give a number, a string,"):
        layer("mixers.Several", mode=None)
