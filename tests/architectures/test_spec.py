import re

import pytest
from hypothesis import given, settings
from tests.architectures.strategies import architectures

import archlab
from archlab.architectures import CATALOGUE, Architecture, architecture
from archlab.errors import ArchlabError
from archlab.layers import layer

ATTENTION, SWIGLU, HYENA, MAMBA = layer("mh-attention"), layer("swiglu"), layer("hyena"), layer("mamba")


@pytest.mark.parametrize(
    ("spec", "layers"),
    [
        ("mh-attention swiglu", [ATTENTION, SWIGLU]),
        ("  mh-attention\n\tswiglu ", [ATTENTION, SWIGLU]),
        ("2*hyena", [HYENA, HYENA]),
        ("2 * [ hyena swiglu ] mh-attention", [HYENA, SWIGLU, HYENA, SWIGLU, ATTENTION]),
        ("2*[hyena 2*[swiglu]]", [HYENA, SWIGLU, SWIGLU, HYENA, SWIGLU, SWIGLU]),
        ("[hyena][swiglu]", [HYENA, SWIGLU]),
        ("mamba(d_state=8, expand=2)", [layer("mamba", d_state=8, expand=2)]),
        ("mamba( d_state = 8 )hyena", [layer("mamba", d_state=8), HYENA]),
        ("1*mamba", [MAMBA]),
        ("mamba", 4 * [MAMBA]),
        ("mamba()", [MAMBA]),
        ("mamba swiglu", [MAMBA, SWIGLU]),
        ("striped-hyena swiglu", [HYENA, SWIGLU, ATTENTION, SWIGLU, SWIGLU]),
        ("2*striped-hyena", 2 * [HYENA, SWIGLU, ATTENTION, SWIGLU]),
        ("linear-attention(feature_map=elu, normalize=false)", [layer("linear-attention", feature_map="elu", normalize=False)]),
        ("linear-attention(feature_map='elu')", [layer("linear-attention", feature_map="elu")]),
        ("mlp(expand=2)", [layer("mlp", expand=2.0)]),
        ("mlp(expand=2.5e-1)", [layer("mlp", expand=0.25)]),
        ("mlp(expand=.5)", [layer("mlp", expand=0.5)]),
    ],
)
def test_specs_read_as_they_look(spec, layers):
    assert list(architecture(spec).layers) == layers


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "an architecture needs at least one layer, for example 'mh-attention swiglu'"),
        (" \n", "an architecture needs at least one layer, for example 'mh-attention swiglu'"),
        ("atention", "unknown layer 'atention': did you mean 'attention'?"),
        ("hyena striped-hyna", "unknown layer 'striped-hyna': did you mean 'striped-hyena'?"),
        ("3*[hyena", "malformed spec '3*[hyena': '[' at character 3 is never closed: add ']'"),
        ("hyena]", "malformed spec 'hyena]': ']' at character 6 closes nothing: remove it"),
        ("3*[]", "malformed spec '3*[]': '[' at character 3 holds no layer"),
        ("3*", "malformed spec '3*': nothing to repeat after 3*: add a layer or [layers]"),
        ("3 hyena", "malformed spec '3 hyena': expected '*' after 3, as in 3*[...], found 'hyena' at character 3"),
        ("2*3*hyena", "malformed spec '2*3*hyena': '3' at character 3: a layer's name was expected"),
        ("-1*hyena", "malformed spec '-1*hyena': '-1' at character 1: a layer's name was expected"),
        ("0*hyena", "malformed spec '0*hyena': 0 at character 1: repeat from 1 to 10000 times"),
        ("200*[100*hyena]", "malformed spec '200*[100*hyena]': more than 10000 layers"),
        ("6000*hyena 6000*hyena", "malformed spec '6000*hyena 6000*hyena': more than 10000 layers"),
        ("hyena, swiglu", "malformed spec 'hyena, swiglu': ',' at character 6: a layer's name was expected"),
        ("hyena $", "malformed spec 'hyena $': '$' at character 7 has no meaning here"),
        ("hyena(", "malformed spec 'hyena(': '(' at character 6 is never closed: add ')'"),
        ("mamba(8)", "malformed spec 'mamba(8)': '8' at character 7: the name of a knob of mamba was expected"),
        ("mamba(d_state", "expected '=' after 'd_state': knobs of mamba are given as name=value, found the end"),
        ("mamba(d_state=)", "no value for mamba(d_state=...)"),
        ("mamba(d_state=8", "expected ',' between knobs, or ')' after the last, found the end"),
        ("mamba(d_state=8 expand=2)", "or ')' after the last, found 'expand' at character 17"),
        ("mamba(d_state=8,)", "')' at character 17: the name of a knob of mamba was expected"),
        ("mamba(d_state=8, d_state=9)", "mamba(d_state=...) is given twice"),
        ("mamba(dstate=8)", "unknown knob of mamba: 'dstate': did you mean 'd_state'?"),
        ("mamba(d_state=8.5)", "mamba(d_state=8.5): 8.5 is of type float, give a value of type int"),
        ("mamba(d_state=true)", "mamba(d_state=True): True is of type bool, give a value of type int"),
        ("mamba(d_state=0)", "mamba(d_state=0): d_state must be at least 1"),
    ],
)
def test_malformed_specs_are_refused_with_the_place_and_the_fix(spec, message):
    with pytest.raises(ArchlabError, match=re.escape(message)) as refusal:
        architecture(spec)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("spec", [9000 * "9" + "*hyena", 5000 * "[" + "hyena" + 5000 * "]", 300 * "hyena " + "]"])
def test_absurd_specs_are_refused_briefly(spec):
    with pytest.raises(ArchlabError) as refusal:
        architecture(spec)
    assert len(str(refusal.value)) < 10_000


def test_knobs_that_do_not_fit_the_width_are_refused_where_the_width_is_known():
    value = architecture("mh-attention(heads=3) swiglu")
    with pytest.raises(ArchlabError, match=r"mh-attention\(heads=3\): width 128 .*the nearest that fits is heads="):
        value.validate(128)
    value.validate(96)
    with pytest.raises(ArchlabError, match="width 128"):
        value.build(vocab_size=16, max_length=8)
    with pytest.raises(ArchlabError, match="width 0: must be at least 1"):
        value.validate(0)


def test_an_empty_stack_is_no_architecture():
    with pytest.raises(ArchlabError, match="at least one layer"):
        Architecture(())


@settings(deadline=None, max_examples=200)
@given(architectures())
def test_text_round_trips(value):
    read = architecture(str(value))
    assert read == value
    assert hash(read) == hash(value)
    assert str(read) == str(value)


def test_values_with_other_knobs_or_order_differ():
    assert architecture("hyena swiglu") != architecture("swiglu hyena")
    assert architecture("mamba(d_state=8)") != architecture("1*mamba")
    assert architecture("mamba(d_state=4)") == architecture("1*mamba")  # the default, written out


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("hyena hyena hyena", "3*hyena"),
        ("hyena swiglu hyena swiglu", "2*[hyena swiglu]"),
        ("hyena swiglu hyena", "hyena swiglu hyena"),
        ("1*mamba", "1*mamba"),
        ("1*swiglu", "swiglu"),
        ("2*mamba(d_state=8)", "2*mamba(d_state=8)"),
    ],
)
def test_text_is_short(spec, text):
    assert str(architecture(spec)) == text


def test_layer_defaults_fill_the_knobs_that_the_text_leaves_open():
    defaults = {"mh-attention": {"heads": 4}, "mamba": {"d_state": 8, "expand": 1}}
    read = architecture("mh-attention mh-attention(heads=2) mamba(expand=3) hyena", layer_defaults=defaults)
    assert list(read.layers) == [
        layer("mh-attention", heads=4),
        layer("mh-attention", heads=2),
        layer("mamba", d_state=8, expand=3),
        HYENA,
    ]
    assert architecture(str(read)) == read  # the text says what the defaults said


def test_layer_defaults_reach_into_the_catalogue():
    for spec in ("transformer++", "hyena transformer++"):
        layers = architecture(spec, layer_defaults={"mh-attention": {"heads": 4}}).layers
        assert {x.heads for x in layers if x.name == "mh-attention"} == {4}


def test_the_label_is_the_name_that_was_asked_for():
    assert architecture(" transformer++ ").label == "transformer++"
    assert architecture(CATALOGUE["transformer++"].spec).label == CATALOGUE["transformer++"].spec
    assert architecture("transformer++") == architecture(CATALOGUE["transformer++"].spec)


def test_the_package_reads_specs():
    assert archlab.architecture("hyena").layers == (HYENA, SWIGLU, HYENA, SWIGLU)


@pytest.mark.parametrize(
    ("spec", "unit"),
    [
        ("2*[mh-attention swiglu]", "mh-attention swiglu"),
        ("4*mamba", "1*mamba"),
        ("3*[mh-hyena swiglu] mh-attention swiglu", "3*[mh-hyena swiglu] mh-attention swiglu"),
        ("mamba mamba(d_state=8)", "mamba mamba(d_state=8)"),
    ],
)
def test_the_unit_is_the_shortest_run_that_repeats(spec, unit):
    assert architecture(spec).unit == architecture(unit).layers
