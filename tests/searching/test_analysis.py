import pytest

from archlab.architectures import architecture
from archlab.errors import ArchlabError
from archlab.searching.analysis import as_typed, consensus, features, importance, stack, stretch


def specs(*texts: str):
    return [architecture(text) for text in texts]


def test_a_choice_that_decides_explains_all_and_one_that_does_not_explains_nothing():
    choices = [{"a": str(i % 2), "b": str(i // 2 % 2), "same": "x"} for i in range(8)]
    found = importance(choices, [float(i % 2) for i in range(8)])
    assert [(one.choice, one.explained, one.evaluated, one.best) for one in found] == [("a", 1.0, 8, "1"), ("b", 0.0, 8, "0")]


def test_a_choice_is_judged_among_those_that_have_it():
    found = importance([{"a": "1"}, {"a": "1"}, {"a": "2"}, {"a": "2"}, {}], [0.0, 1.0, 2.0, 3.0, 100.0])
    assert [(one.explained, one.evaluated) for one in found] == [(pytest.approx(1 - (1.0 / 2) / (5.0 / 3)), 4)]
    assert importance([{"a": "1"}, {"a": "2"}], [0.0, 1.0]) == ()


def test_features_count_layers_also_where_there_are_none():
    assert features(specs("2*mlp swiglu", "1*mamba"), [{"c": "x"}, {}]) == [
        {"c": "x", "number of mlp": "2", "number of swiglu": "1", "number of mamba": "0"},
        {"number of mlp": "0", "number of swiglu": "0", "number of mamba": "1"},
    ]


def test_the_consensus_is_the_majority_of_the_best_at_their_usual_depth():
    best = specs("mlp mamba", "mlp swiglu", "mamba mamba mlp", "mamba swiglu")
    assert str(consensus([*best, *specs(*["swiglu mlp"] * 12)])) == "mlp swiglu"
    assert str(consensus(specs("mlp mamba", "swiglu mlp"))) == "mlp mamba", "of equals that of the better one"


def test_a_pattern_is_stretched_or_stacked():
    pattern = architecture("mh-attention mlp mlp")
    assert str(stretch(pattern, 6)) == "mh-attention mh-attention mlp mlp mlp mlp"
    assert str(stretch(pattern, 4)) == "mh-attention mh-attention mlp mlp"
    assert str(stack(pattern, 6)) == "2*[mh-attention mlp mlp]"
    assert str(stack(pattern, 4)) == "mh-attention mlp mlp mh-attention"
    for change in (stretch, stack):
        assert change(pattern, 3) == pattern
        with pytest.raises(ArchlabError, match="layers=2: the pattern has 3: give as many or more"):
            change(pattern, 2)


def test_knobs_that_a_protocol_sets_are_left_out():
    defaults = {"mh-attention": {"heads": 2}, "mamba": {"d_state": 8, "expand": 1}}
    for text in ("mh-attention mamba", "experts(parallel(mh-attention, mamba(d_state=32)), num=2)", "mh-attention(heads=4)"):
        assert str(as_typed(architecture(text, layer_defaults=defaults), defaults)) == str(architecture(text))
