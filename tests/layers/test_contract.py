import subprocess
import sys
from dataclasses import FrozenInstanceError, dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from archlab.errors import ArchlabError
from archlab.layers import LayerConfig, composites, divides, layer, positive, register, registry
from archlab.layers.contract import nearest_divisor
from archlab.layers.knobs import knob_text, knob_value
from archlab.layers.registry import _REGISTRY


@dataclass(frozen=True)
class Probe(LayerConfig):
    name = "probe"
    kind = "sequence"
    paper = "none"

    heads: int = 1
    rate: float = 0.5
    tied: bool = False
    feature: str = "elu"

    def __post_init__(self):
        positive(self, "heads")

    def validate(self, dim):
        divides(self, "heads", dim)

    def num_params(self, dim, length):
        return 0

    state_size = flops = num_params

    def build(self, dim, max_length):
        raise NotImplementedError


@pytest.fixture
def probe(monkeypatch):
    monkeypatch.setitem(_REGISTRY, "probe", Probe)


def test_every_family_registers_itself():
    assert {"attention", "mh-attention", "sliding-attention", "mh-sliding-attention", "mlp", "swiglu"} <= set(registry())


def test_the_registry_cannot_be_written_to():
    with pytest.raises(TypeError):
        registry()["mine"] = Probe


def test_every_config_states_its_kind_and_its_paper():
    for name, config in registry().items():
        assert config.name == name
        assert config.kind in ("sequence", "channel")
        assert config.paper


def test_composites_are_made_of_layers():
    assert {"parallel", "experts"} <= set(composites())
    assert not set(composites()) & set(registry())
    inner = layer("parallel", layer("mamba"), layer("mlp"), gate=True)
    outer = layer("experts", inner, num=4)
    assert str(outer) == "experts(parallel(mamba, mlp, gate=True), num=4)"
    assert (outer.knobs(), outer.kind) == ({"num": 4, "active": 2}, "sequence")
    assert hash(outer) == hash(layer("experts", inner, num=4))


def test_what_is_no_layer_is_refused_as_a_part_of_one():
    with pytest.raises(ArchlabError, match=r"^parallel\(mamba\): give layers, then knobs$"):
        layer("parallel", "mamba", layer("mlp"))
    with pytest.raises(ArchlabError, match=r"^mamba\(mlp\): it is made of no layers, give knobs only$"):
        layer("mamba", layer("mlp"))
    with pytest.raises(ArchlabError, match=r"^unknown knob of parallel: 'layers'"):
        layer("parallel", layer("mlp"), layer("mlp"), layers=(layer("mlp"),))


def test_contracts_are_known_without_torch():
    code = "import sys, archlab.layers.contract; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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


@given(st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans())
@example("inf")
@example("-Infinity")
@example("NaN")
@example("true")
@example('say "it\'s"')
@example('"')
@example("")
def test_what_is_written_of_a_knob_reads_back(value):
    read = knob_value(knob_text(value))
    assert (type(read), read) == (type(value), value)


@pytest.mark.parametrize("rate", ["nan", "inf", "-inf"])
def test_numbers_that_are_not_finite_are_refused(probe, rate):
    with pytest.raises(ArchlabError, match=rf"^probe\(rate={rate}\): give a finite number$"):
        layer("probe", rate=float(rate))


def test_whole_numbers_have_a_bound(probe):
    assert layer("probe", heads=10**12).knobs()["heads"] == 10**12
    with pytest.raises(ArchlabError, match=r"^probe\(heads=1000000000001\): give a number of at most 1,000,000,000,000$"):
        layer("probe", heads=10**12 + 1)


@given(st.integers(1, 300), st.integers(1, 400))
def test_the_nearest_divisor_is_that_of_a_search(number, value):
    nearest = min((n for n in range(1, number + 1) if number % n == 0), key=lambda n: abs(n - value))
    assert nearest_divisor(number, value) == nearest


def test_a_knob_without_a_default_is_refused(monkeypatch):
    monkeypatch.setattr(sys.modules["archlab.layers.registry"], "_REGISTRY", {})
    members = {"__annotations__": {"depth": int}, "__module__": __name__}
    required = dataclass(frozen=True, kw_only=True)(type("Required", (Probe,), members))
    with pytest.raises(ArchlabError, match=r"^layer 'required': its knob depth needs a default, as in depth: int = 4$"):
        register("required")(required)
    assert not sys.modules["archlab.layers.registry"]._REGISTRY


@pytest.mark.parametrize("knob", ["nope", "rate"])
def test_a_knob_for_the_state_is_a_whole_number_of_the_layer(monkeypatch, knob):
    monkeypatch.setattr(sys.modules["archlab.layers.registry"], "_REGISTRY", {})
    with pytest.raises(ArchlabError, match=rf"^unknown state_knob of layer 'probe': '{knob}': known: heads$"):
        register("probe")(type("Other", (Probe,), {"state_knob": knob}))


def test_the_text_form_names_only_what_differs():
    assert str(Probe()) == "probe"
    assert str(Probe(heads=2, feature="relu")) == "probe(heads=2, feature=relu)"


def test_a_config_is_a_frozen_value():
    assert Probe(heads=2) == Probe(heads=2) != Probe()
    assert len({Probe(heads=2), Probe(heads=2)}) == 1
    with pytest.raises(FrozenInstanceError):
        Probe().heads = 2


def test_positive_names_layer_knob_and_value():
    with pytest.raises(ArchlabError, match=r"^probe\(heads=0\): heads must be at least 1$"):
        Probe(heads=0)


@pytest.mark.parametrize(("heads", "nearest"), [(3, 2), (100, 128), (5, 4)])
def test_divides_names_the_nearest_that_fits(heads, nearest):
    with pytest.raises(ArchlabError, match=rf"^probe\(heads={heads}\): width 128 .* nearest that fits is heads={nearest}$"):
        Probe(heads=heads).validate(128)
