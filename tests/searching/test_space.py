from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.searching.spaces import SMOKE, VARIED, space

from archlab.architectures import architecture
from archlab.errors import ArchlabError
from archlab.mad.protocol import load_protocol
from archlab.searching.costs import COSTS, DECODE_LENGTH
from archlab.searching.space import Space, canonical, load_space, space_names

seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return space(VARIED, tmp_path_factory.mktemp("space"))


def test_the_packages_spaces_have_the_sizes_that_they_state():
    sizes = {name: load_space(name, SMOKE).grammar.num_derivations for name in space_names()}
    assert sizes == {"hybrids": 6**4, "mixers": 2 * (12 + 2 * 12**2) * 5, "stacks6": 64}
    assert load_space("stacks6", SMOKE).size == (64, True)


def test_an_enumeration_has_no_doubles_and_every_member_is_within_the_limits(varied: Space, tmp_path: Path):
    found = [one.architecture for one in varied.members]
    assert len(set(map(str, found))) == len(found) == varied.size.number
    for value in found:
        assert canonical(value) == value
        assert architecture(str(value)) == value
        assert value.layer_params(length=varied.length, dim=varied.dim) <= 60_000
    beyond = space(VARIED.replace("at_most: {params: 60000}", "at_least: {params: 60001}"), tmp_path)
    everything = space(VARIED.replace("at_most: {params: 60000}", ""), tmp_path)
    assert len(beyond.members) + len(found) == everything.size.number < everything.grammar.num_derivations
    assert min(len(beyond.members), len(found)) > 30


@given(seeds)
def test_what_is_drawn_mutated_and_crossed_is_in_the_space(varied: Space, seed: int):
    rng = np.random.default_rng(seed)
    members = {one.architecture for one in varied.members}
    first, second = varied.sample(rng), varied.sample(rng)
    mutated, crossed = varied.mutate(first, rng), varied.cross(first, second, rng)
    for one in (first, second, mutated, crossed):
        if one is not None:
            assert one.architecture in members
            assert varied.derive(lambda name, _, one=one: one.choices[name]) == one
    assert mutated is not None
    assert mutated.architecture != first.architecture
    assert crossed is None or crossed.architecture not in (first.architecture, second.architecture)


@given(seeds)
def test_a_mutation_of_a_stack_changes_one_layer_or_exchanges_two(seed: int):
    stacks, rng = load_space("stacks6", SMOKE), np.random.default_rng(seed)
    first = stacks.sample(rng)
    mutated = stacks.mutate(first, rng)
    assert mutated is not None
    changed = [a != b for a, b in zip(first.architecture.layers, mutated.architecture.layers, strict=True)]
    assert sum(changed) in (1, 2)
    if sum(changed) == 2:
        assert sorted(map(str, first.architecture.layers)) == sorted(map(str, mutated.architecture.layers))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("parallel(mamba, mh-attention)", "parallel(mh-attention, mamba)"),
        ("parallel(mamba, mh-attention, gate=true)", "parallel(mh-attention, mamba, gate=true)"),
        ("parallel(mamba, parallel(mlp, mh-attention))", "parallel(mlp, mamba, mh-attention)"),
        ("experts(parallel(mamba, mlp), num=4)", "experts(parallel(mlp, mamba), num=4)"),
        ("transformer++", "2*[mh-attention swiglu]"),
    ],
)
def test_architectures_that_compute_the_same_have_one_form(one: str, other: str):
    first, second = canonical(architecture(one)), canonical(architecture(other))
    assert (first, str(first)) == (second, str(second))
    assert canonical(first) == first
    assert first.name is None


def test_gated_branches_are_not_flattened():
    nested = "parallel(parallel(mamba, mlp, gate=true), mh-attention)"
    assert len(canonical(architecture(nested)).layers[0].layers) == 2


def test_every_member_has_the_state_that_is_asked_for(tmp_path: Path):
    found = space("summary: x\nspec: '{mamba|mh-linear-attention} swiglu'\nstate: 512\ndim: 64\nlength: 64\n", tmp_path)
    assert {one.architecture.matrix_state(length=64, dim=64) for one in found.members} == {512}


def test_limits_are_at_the_width_and_length_of_the_protocol_or_of_the_file(tmp_path: Path):
    text = "summary: one\nspec: '{mh-attention|mamba} swiglu'\nat_most: {decode-memory: 1.0e+6}\n"
    assert [str(one.architecture) for one in space(text, tmp_path).members] == ["mamba swiglu"]
    attention = architecture("mh-attention")
    assert COSTS["decode-memory"].of(attention, 64, 1) == 2 * attention.state_size(dim=64, length=DECODE_LENGTH)
    own = space(f"{text}dim: 16\nlength: 77\n", tmp_path, load_protocol("quick"))
    assert (own.dim, own.length, own.widths) == (16, 77, (64,))
    assert COSTS["attention"].of(architecture("mamba swiglu mh-attention swiglu mamba"), 64, 64) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("spec: a\n", "space own: summary is missing"),
        ("summary: x\nspec: '{layer}'\nrules: {layer: [mh-atention]}\n", "space own: unknown layer 'mh-atention'"),
        ("summary: x\nspec: '{layer}'\nrules: {layer: [mlp, 'mamba(d_stat=4)']}\n", "unknown knob of mamba: 'd_stat'"),
        ("summary: x\nspec: mlp\nat_most: {parameters: 4}\n", "unknown cost 'parameters': did you mean 'params'"),
        ("summary: x\nspec: mlp\nrules: {layer: []}\n", "rules.layer"),
        ("summary: x\nspec: mlp\ndepth: 4\n", "unknown field 'depth'"),
        ("summary: x\nspec: '{mlp|swiglu} mambo'\n", "space own: unknown layer 'mambo'"),
        ("summary: x\nspec: mlp\nat_most: {params: -1}\n", "at_most.params=-1: give a number of at least 0"),
        (
            "summary: x\nspec: mlp\nat_most: {params: 1}\nat_least: {params: 2}\n",
            "at_least.params=2: is more than at_most.params=1",
        ),
        ("summary: x\nspec: 'mamba(d_state={4|x})'\n", "mamba.d_state=x.: 'x' is of type str"),
    ],
)
def test_a_wrong_space_is_refused_in_one_line(text: str, reason: str, tmp_path: Path):
    with pytest.raises(ArchlabError, match=reason) as refusal:
        space(text, tmp_path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("knobs", ["num={4|8}, active={2|8}", "num={4|8}, active={8|2}", "num={8|4}, active={2|8}"])
def test_knobs_that_do_not_go_together_are_outside_the_space(knobs: str, tmp_path: Path):
    found = space(f"summary: x\nspec: 'hyena {{2|4}}*[experts(mlp, {knobs})]'\n", tmp_path)
    assert {tuple(sorted(one.architecture.layers[1].knobs().items())) for one in found.members} == {
        tuple(sorted(architecture(f"experts(mlp, num={num}, active={active})").layers[0].knobs().items()))
        for num, active in ((4, 2), (8, 2), (8, 8))
    }
    assert found.size == (6, True)
    drawn = {str(found.sample(np.random.default_rng(seed)).architecture) for seed in range(20)}
    assert len(drawn) > 3


def test_an_alternative_may_be_nothing(tmp_path: Path):
    found = space("summary: x\nspec: '{first} {last}'\nrules: {first: ['', mh-attention], last: ['', mlp]}\n", tmp_path)
    assert [[layer.name for layer in one.architecture.layers] for one in found.members] == [
        ["mlp"],
        ["mh-attention"],
        ["mh-attention", "mlp"],
    ]


def test_a_space_without_members_and_one_that_is_too_large_say_so(tmp_path: Path):
    none = space("summary: x\nspec: '{mlp|swiglu}'\nat_most: {params: 1}\n", tmp_path)
    assert none.size == (0, True)
    with pytest.raises(ArchlabError, match="none of 1000 samples is within the limits"):
        none.sample(np.random.default_rng(0))
    large = space("summary: x\nspec: '{layer:40}'\nrules: {layer: [mlp, swiglu]}\n", tmp_path)
    assert large.size == (2**40, False)
    with pytest.raises(ArchlabError, match="more than 10,000 derivations cannot be walked"):
        _ = large.members
    with pytest.raises(ArchlabError, match="unknown space 'stack6': did you mean 'stacks6'"):
        load_space("stack6", SMOKE)
