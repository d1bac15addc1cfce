import sys
from dataclasses import FrozenInstanceError, dataclass, fields

import pytest
from tests.layers.probe import Probe

from archlab.errors import ArchlabError
from archlab.layers import Composite, layer, register, registry
from archlab.layers.registry import _REGISTRY, composites


@pytest.fixture
def probe(monkeypatch):
    monkeypatch.setitem(_REGISTRY, "probe", Probe)


def test_every_family_registers_itself():
    assert {"attention", "mh-attention", "sliding-attention", "mh-sliding-attention", "mlp", "swiglu"} <= set(registry())


def test_configs_have_the_names_of_the_contract():
    """A name that is spelt wrong would leave the default in place, unseen."""
    helpers = {"visible_window", "key_value_heads", "width", "maps", "has_skip"}
    for config in [*registry().values(), *composites().values()]:
        bases = [base for base in config.__mro__ if base.__module__.startswith("archlab.layers.")]
        found = {name for base in bases for name in vars(base) if not name.startswith("_")}
        assert found <= {*dir(Composite), "name", "paper", *(f.name for f in fields(config)), *helpers}


def test_the_registry_cannot_be_written_to():
    with pytest.raises(TypeError):
        registry()["mine"] = Probe


def test_what_is_no_layer_is_refused_as_a_part_of_one():
    with pytest.raises(ArchlabError, match=r"^parallel\(mamba\): give layers, then knobs$"):
        layer("parallel", "mamba", layer("mlp"))
    with pytest.raises(ArchlabError, match=r"^mamba\(mlp\): it is made of no layers, give knobs only$"):
        layer("mamba", layer("mlp"))
    with pytest.raises(ArchlabError, match=r"^unknown knob of parallel: 'layers'"):
        layer("parallel", layer("mlp"), layer("mlp"), layers=(layer("mlp"),))


def test_a_registered_class_is_made_a_frozen_dataclass(monkeypatch):
    monkeypatch.setitem(_REGISTRY, "plain", None)

    @register("plain")
    class Plain(Probe):
        width: int = 3

    assert str(layer("plain", width=2, heads=4)) == "plain(heads=4, width=2)"
    assert layer("plain", width=2) == Plain(width=2) != Plain()
    with pytest.raises(FrozenInstanceError):
        Plain().width = 1


def test_an_unknown_layer_gets_the_nearest_name():
    with pytest.raises(ArchlabError, match=r"^unknown layer 'atention': did you mean 'attention'\?$"):
        layer("atention")


def test_an_unknown_knob_gets_the_nearest_name(probe):
    with pytest.raises(ArchlabError, match=r"^unknown knob of probe: 'head': did you mean 'heads'\?$"):
        layer("probe", head=3)


def test_knobs_are_set_and_defaults_kept(probe):
    assert layer("probe", heads=2).knobs() == {"heads": 2, "rate": 0.5, "tied": False, "feature": "elu"}


def test_an_int_is_taken_for_a_float(probe):
    rate = layer("probe", rate=1).knobs()["rate"]
    assert rate == 1.0
    assert type(rate) is float


@pytest.mark.parametrize(
    ("knobs", "wanted"),
    [
        ({"heads": 2.0}, "int"),
        ({"heads": "2"}, "int"),
        ({"heads": True}, "int"),
        ({"rate": True}, "float"),
        ({"tied": 1}, "bool"),
        ({"feature": 3}, "str"),
    ],
)
def test_nothing_else_converts(probe, knobs, wanted):
    ((knob, value),) = knobs.items()
    with pytest.raises(ArchlabError, match=rf"^probe\({knob}={value}\): .* give a value of type {wanted}$"):
        layer("probe", **knobs)


def test_a_name_is_registered_once(monkeypatch):
    monkeypatch.setattr(sys.modules["archlab.layers.registry"], "_REGISTRY", {"probe": Probe})
    register("probe")(Probe)
    other = type("Other", (Probe,), {"__qualname__": "Other"})
    with pytest.raises(ArchlabError, match=r"^layer name 'probe' is taken by .*Probe$"):
        register("probe")(other)


@pytest.mark.parametrize("rate", ["nan", "inf", "-inf"])
def test_numbers_that_are_not_finite_are_refused(probe, rate):
    with pytest.raises(ArchlabError, match=rf"^probe\(rate={rate}\): give a finite number$"):
        layer("probe", rate=float(rate))


def test_whole_numbers_have_a_bound(probe):
    assert layer("probe", heads=10**12).knobs()["heads"] == 10**12
    with pytest.raises(ArchlabError, match=r"^probe\(heads=1000000000001\): give a number of at most 1,000,000,000,000$"):
        layer("probe", heads=10**12 + 1)


def test_a_knob_without_a_default_is_refused(monkeypatch):
    monkeypatch.setattr(sys.modules["archlab.layers.registry"], "_REGISTRY", {})
    members = {"__annotations__": {"depth": int}, "__module__": __name__}
    required = dataclass(frozen=True, kw_only=True)(type("Required", (Probe,), members))
    with pytest.raises(ArchlabError, match=r"^layer 'required': its knob depth needs a default, as in depth: int = 4$"):
        register("required")(required)
    assert not sys.modules["archlab.layers.registry"]._REGISTRY


@pytest.mark.parametrize("role", ["state_knob", "head_knob"])
@pytest.mark.parametrize("knob", ["nope", "rate"])
def test_a_knob_for_the_state_or_the_heads_is_a_whole_number_of_the_layer(monkeypatch, knob, role):
    monkeypatch.setattr(sys.modules["archlab.layers.registry"], "_REGISTRY", {})
    with pytest.raises(ArchlabError, match=rf"^unknown {role} of layer 'probe': '{knob}': known: heads$"):
        register("probe")(type("Other", (Probe,), {role: knob}))
