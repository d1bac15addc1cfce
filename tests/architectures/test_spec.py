import re
import signal

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
        ('linear-attention(feature_map="elu")', [layer("linear-attention", feature_map="elu")]),
        ("linear-attention(feature_map='elu')", [layer("linear-attention", feature_map="elu")]),
        ("mlp(expand=2)", [layer("mlp", expand=2.0)]),
        ("mlp(expand=2.5e-1)", [layer("mlp", expand=0.25)]),
        ("mlp(expand=.5)", [layer("mlp", expand=0.5)]),
        ("parallel(mamba, mh-attention)", [layer("parallel", MAMBA, ATTENTION)]),
        ("2*parallel( mamba , 1*[hyena], gate = true )swiglu", [*2 * [layer("parallel", MAMBA, HYENA, gate=True)], SWIGLU]),
        ("experts(mamba(d_state=8), num=4)", [layer("experts", layer("mamba", d_state=8), num=4)]),
        ("parallel(experts(mamba), hyena)", [layer("parallel", layer("experts", MAMBA), HYENA)]),
        ("parallel(1*hyena, mlp)", [layer("parallel", HYENA, layer("mlp"))]),
        ("stripe(mamba, mh-attention, every=4)", [*3 * [MAMBA], ATTENTION]),
        ("stripe([mamba swiglu], [mh-attention swiglu], every=2)", [MAMBA, SWIGLU, ATTENTION, SWIGLU]),
        ("2*stripe(2*hyena, parallel(mamba, mlp), every=3)", 2 * [*4 * [HYENA], layer("parallel", MAMBA, layer("mlp"))]),
        ("stripe(transformer++, mamba, every=2)", [ATTENTION, SWIGLU, ATTENTION, SWIGLU, MAMBA]),
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
        ("mamba d_state=8", "malformed spec 'mamba d_state=8': knobs stand in parentheses: mamba(d_state=8)"),
        ("2*[mh-attention swiglu inner=", "knobs stand in parentheses: swiglu(inner=...)"),
        ("d_state=8 mamba", "knobs stand in parentheses: name(d_state=8)"),
        ("mamba(d_state", "expected '=' after 'd_state': knobs of mamba are given as name=value, found the end"),
        ("mamba(d_state=)", "no value for mamba(d_state=...)"),
        ("mamba(d_state=8", "expected ',' between knobs, or ')' after the last, found the end"),
        ("mamba(d_state=8 expand=2)", "or ')' after the last, found 'expand' at character 17"),
        ("mamba(d_state=8,)", "')' at character 17: the name of a knob of mamba was expected"),
        ("mamba(d_state=8, d_state=9)", "mamba(d_state=...) is given twice"),
        ("mamba(dstate=8)", "unknown knob of mamba: 'dstate': did you mean 'd_state'?"),
        ("mamba(d_state=8.5)", "mamba(d_state=8.5): 8.5 is of type float, give a value of type int"),
        ("mamba(d_state=true)", "mamba(d_state=True): True is of type bool, give a value of type int"),
        ("mamba(d_state=0)", "mamba: d_state=0: give a whole number of at least 1"),
        ("mamba(hyena)", "expected '=' after 'hyena': knobs of mamba are given as name=value, found ')' at character 12"),
        ("parallel", "parallel: give two layers or more to add, as in parallel(mamba, mh-attention)"),
        ("parallel(mamba)", "parallel(mamba): give two layers or more to add, as in parallel(mamba, mh-attention)"),
        ("parallel(gate=true)", "parallel(gate=True): give two layers or more to add"),
        ("parallel(mamba, hyena", "expected ',' between layers or knobs, or ')' after the last, found the end"),
        ("parallel(mamba hyena)", "expected ',' between layers or knobs, or ')' after the last, found 'hyena' at character 16"),
        ("parallel(mamba,", "'(' at character 9 is never closed: add ')'"),
        ("parallel(mamba, )", "')' at character 17: a layer's name was expected"),
        ("parallel(gate=true, mamba)", "'mamba' at character 21: the layers of parallel come before its knobs"),
        ("parallel(mamba, hyena, gates=true)", "unknown knob of parallel: 'gates': did you mean 'gate'?"),
        ("parallel(mamba, hyena, gate=1)", "parallel(gate=1): 1 is of type int, give a value of type bool"),
        ("parallel(mamba, hyena, layers=mlp)", "unknown knob of parallel: 'layers'"),
        ("parallel([mamba swiglu], hyena)", "layer 1 of parallel at character 1 is a stack of 2: give one layer"),
        ("paralel(mamba, hyena)", "unknown layer 'paralel': did you mean 'parallel'?"),
        ("experts(mamba, hyena)", "experts(mamba, hyena): give one layer to make copies of, as in experts(mamba, num=4)"),
        ("experts(mamba, active=1)", "experts: active=1: give a whole number of at least 2"),
        ("experts(mlp, num=-1)", "experts: num=-1: give a whole number of at least 1"),
        ("experts(mamba, num=10000000000000)", "experts(num=10000000000000): give a number of at most 1,000,000,000,000"),
        ("mlp(expand=1e308)", "mlp: expand=1e+308: give a number above 0, of at most 1,000,000,000,000"),
        ("mlp(expand=-1e999)", "mlp(expand=-inf): give a finite number"),
        ("gated-linear-attention(expand_k=nan)", "gated-linear-attention(expand_k=nan): give a finite number"),
        ("gated-linear-attention(expand_v=1e308)", "expand_v=1e+308: give a number above 0, of at most 1,000,000,000,000"),
        ("experts(mamba, num=4, active=5)", "experts(num=4, active=5): active must be at most num"),
        ("experts(mamba(d_state=0))", "mamba: d_state=0: give a whole number of at least 1"),
        ("stripe(mamba, hyena)", "stripe at character 1 takes two layers or [groups], then every from 2 to 10000, as in stripe("),
        ("stripe(mamba, every=4)", "stripe at character 1 takes two layers or [groups]"),
        ("hyena stripe(mamba, hyena, every=1)", "stripe at character 7 takes two layers or [groups]"),
        ("stripe(mamba, hyena, every=true)", "stripe at character 1 takes two layers or [groups]"),
        ("stripe(mamba, hyena, ever=4)", "unknown knob of stripe: 'ever': did you mean 'every'?"),
        ("stripe([hyena mlp], hyena, every=9999)", "more than 10000 layers"),
    ],
)
def test_malformed_specs_are_refused_with_the_place_and_the_fix(spec, message):
    with pytest.raises(ArchlabError, match=re.escape(message)) as refusal:
        architecture(spec)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("spec", ["swiglu", "2*[mlp swiglu]", "parallel(mlp, swiglu)"])
def test_an_architecture_without_a_sequence_mixer_warns_in_one_line(spec):
    value = architecture(spec)
    assert value.warning().startswith(f"{value} has no sequence mixer, so none of its outputs depends on an earlier token: ")
    quoted = re.search("as in '(.*)'$", value.warning())
    assert architecture(quoted[1]).warning() == ""


@pytest.mark.parametrize(
    "spec",
    [
        9000 * "9" + "*hyena",
        5000 * "[" + "hyena" + 5000 * "]",
        300 * "hyena " + "]",
        5000 * "experts(" + "hyena" + 5000 * ")",
        5000 * "[parallel(" + "hyena" + 5000 * ")]",
    ],
)
def test_absurd_specs_are_refused_briefly(spec):
    with pytest.raises(ArchlabError) as refusal:
        architecture(spec)
    assert len(str(refusal.value)) < 10_000


@pytest.mark.parametrize(
    ("spec", "message"),
    [("_absent.Mixer", "_absent.Mixer: _absent cannot be imported"), ("mamba(_d=1)", "unknown knob of mamba: '_d'")],
)
def test_names_may_start_with_an_underscore(spec, message):
    with pytest.raises(ArchlabError, match=f"^{re.escape(message)}"):
        architecture(spec)


@pytest.fixture
def at_once():
    """What takes longer than seconds fails, where it might not end in years."""

    def give_up(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    "spec",
    [
        "canon(d_conv=100000000000)",
        "gqa(heads=100000000001, kv_heads=1)",
        "mh-sliding-attention(window=33)",
        "experts(mamba, num=1000000000000)",
        "experts(parallel(mh-attention, mlp), num=1000000000000)",
    ],
)
def test_the_costs_of_what_no_machine_holds_are_counted_at_once(spec):
    stack = architecture(spec)
    for length in (128, 10**12):
        assert stack.flops(length=length) > 0
        assert stack.layer_params(length=length) > 0
        assert stack.matrix_state(length=length) >= 0


def test_knobs_within_a_composite_that_do_not_fit_the_width_are_named():
    with pytest.raises(ArchlabError, match=r"^experts: parallel: mh-attention\(heads=3\): width 128 .*that fits is heads="):
        architecture("experts(parallel(mamba, mh-attention(heads=3)))").validate(128)


def test_a_composite_mixes_positions_if_one_of_its_layers_does():
    assert architecture("parallel(mlp, mamba) parallel(mlp, swiglu) experts(swiglu)").num_mixing == 1
    assert architecture("mamba experts(parallel(hyena, mlp)) mlp").num_mixing == 2


def test_knobs_that_do_not_fit_the_width_are_refused_where_the_width_is_known():
    value = architecture("mh-attention(heads=3) swiglu")
    with pytest.raises(ArchlabError, match=r"mh-attention\(heads=3\): width 128 .*the nearest that fits is heads="):
        value.validate(128)
    value.validate(96)
    with pytest.raises(ArchlabError, match="width 128"):
        value.build(vocab_size=16, max_length=8)
    with pytest.raises(ArchlabError, match="dim=0: give a whole number of at least 1"):
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


def test_layer_defaults_reach_into_composites():
    read = architecture(
        "experts(parallel(mh-attention, mlp))", layer_defaults={"mh-attention": {"heads": 4}, "experts": {"num": 3}}
    )
    assert str(read) == "experts(parallel(mh-attention(heads=4), mlp), num=3)"
    assert architecture(str(read)) == read


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
