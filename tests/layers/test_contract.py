import subprocess
import sys
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.layers.probe import Probe

from archlab.architectures import architecture
from archlab.errors import ArchlabError
from archlab.layers import layer, registry
from archlab.layers.contract import nearest_divisor
from archlab.layers.registry import composites


def test_every_config_states_its_kind_and_its_paper():
    for name, config in registry().items():
        assert config.name == name
        assert config().kind in ("sequence", "channel")
        assert config.paper


def test_composites_are_made_of_layers():
    assert {"parallel", "experts"} <= set(composites())
    assert not set(composites()) & set(registry())
    inner = layer("parallel", layer("mamba"), layer("mlp"), gate=True)
    outer = layer("experts", inner, num=4)
    assert str(outer) == "experts(parallel(mamba, mlp, gate=True), num=4)"
    assert (outer.knobs(), outer.kind) == ({"num": 4, "active": 2}, "sequence")
    assert hash(outer) == hash(layer("experts", inner, num=4))


def test_contracts_are_known_without_torch():
    code = "import sys, archlab.layers.contract; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(st.integers(1, 300), st.integers(1, 400))
def test_the_nearest_divisor_is_that_of_a_search(number, value):
    nearest = min((n for n in range(1, number + 1) if number % n == 0), key=lambda n: abs(n - value))
    assert nearest_divisor(number, value) == nearest


def test_the_text_form_names_only_what_differs():
    assert str(Probe()) == "probe"
    assert str(Probe(heads=2, feature="relu")) == "probe(heads=2, feature=relu)"


def test_a_config_is_a_frozen_value():
    assert Probe(heads=2) == Probe(heads=2) != Probe()
    assert len({Probe(heads=2), Probe(heads=2)}) == 1
    with pytest.raises(FrozenInstanceError):
        Probe().heads = 2


def test_a_knob_out_of_its_bounds_is_refused_by_layer_knob_and_value():
    with pytest.raises(ArchlabError, match=r"^probe: heads=0: give a whole number of at least 1$"):
        Probe(heads=0)


@pytest.mark.parametrize(("heads", "nearest"), [(3, 2), (100, 128), (5, 4)])
def test_divides_names_the_nearest_that_fits(heads, nearest):
    with pytest.raises(ArchlabError, match=rf"^probe\(heads={heads}\): width 128 .* nearest that fits is heads={nearest}$"):
        Probe(heads=heads).validate(128)


def test_attention_is_what_attends_to_the_whole_past():
    assert {name for name, config in registry().items() if config().is_attention} == {
        *("attention", "mh-attention", "gqa", "mla", "fox", "nsa", "path-attention")
    }
    assert not layer("gqa", window=8).is_attention


@pytest.mark.parametrize(
    ("spec", "attends"),
    [
        ("parallel(mh-attention, swiglu)", True),
        ("experts(mla, num=4)", True),
        ("parallel(mamba, mh-attention)", False),
        ("parallel(mlp, swiglu)", False),
    ],
)
def test_a_composite_is_attention_if_all_that_mixes_the_sequence_in_it_is(spec, attends):
    (config,) = architecture(spec).layers
    assert config.is_attention is attends


def test_every_knob_called_heads_is_said_to_be_the_head_count():
    assert {name for name, config in registry().items() if config.head_knob == "heads"} == {
        name for name, config in registry().items() if "heads" in config().knobs()
    }
