import pickle

import pytest

from archlab.architectures import architecture
from archlab.architectures.catalogue import CATALOGUE
from archlab.architectures.parser import layer_names
from archlab.architectures.stored import StoredArchitecture, UnavailableLayers, is_available, is_known_by_name
from archlab.errors import ArchlabError
from archlab.layers import registry
from archlab.layers.registry import composites, own_names


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_stored_text_stands_for_the_architecture(name):
    value = architecture(name)
    stored = StoredArchitecture(str(value), 128, name)
    assert (stored, hash(stored), stored.label) == (value, hash(value), value.label)
    assert value == stored
    assert is_known_by_name(stored)
    assert "layers" not in vars(stored), "nothing has asked for them"
    assert stored.layers == value.layers
    assert pickle.loads(pickle.dumps(stored)) == value


@pytest.mark.parametrize(("spec", "reason"), [("gone swiglu", "unknown layer 'gone'"), ("mh-attention(heads=3)", "width 128")])
def test_layers_that_cannot_be_read_or_do_not_fit_are_unavailable(spec, reason):
    stored = StoredArchitecture(spec, 128)
    assert not is_available(stored)
    (config,) = stored.layers
    assert isinstance(config, UnavailableLayers)
    assert reason in config.reason
    assert str(stored) == str(config) == spec
    assert is_known_by_name(stored) == (spec != "gone swiglu")


def test_what_is_no_text_is_refused():
    with pytest.raises(ArchlabError, match="architecture=3: give text"):
        StoredArchitecture(3, 128)
    with pytest.raises(ArchlabError, match="architecture: name=3: give text"):
        StoredArchitecture("mamba", 128, 3)


def test_another_name_leaves_the_text_as_it_is():
    stored = StoredArchitecture("2*[mamba swiglu]", 128).named("mine")
    assert (str(stored), stored.label) == ("2*[mamba swiglu]", "mine")
    assert "layers" not in vars(stored)


def test_names_of_layers_stand_where_the_grammar_has_them():
    spec = "3*[parallel(mamba(d_state=8), mh-attention, gate=true)] my.Foo(mode='it''s', x=y) swiglu"
    assert layer_names(spec) == {"parallel", "mamba", "mh-attention", "my.Foo", "swiglu"}


def test_own_layers_are_known_by_name_without_an_import():
    known = {**registry(), **composites()}
    assert own_names() == {name for name, config in known.items() if config.__module__.startswith("archlab.")}
