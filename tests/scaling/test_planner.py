"""From ladders to plans: which sizes are chosen, and what they are trained with."""

from itertools import groupby, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.corpora.corpora_of_text import small_corpus

from archlab.architectures import architecture
from archlab.architectures.catalogue import CATALOGUE
from archlab.errors import ArchlabError
from archlab.scaling.flops import training_flops
from archlab.scaling.ladder import Ladder, central_params, load_ladder
from archlab.scaling.objections import objections
from archlab.scaling.planner import all_sizes, make_plan, matched_sizes, up_to
from archlab.scaling.training_plan import Size

SPECS = ["transformer++", "striped-hyena", "mamba"]
VOCAB, LENGTH = 99, 64


def ladder(**values) -> Ladder:
    return Ladder(**{"name": "test", "budgets": (2e11,), "vocab_size": 99} | values)


@settings(deadline=None)  # the first example may import torch
@given(
    budgets=st.lists(st.integers(103, 200), min_size=1, max_size=3, unique=True).map(lambda ns: [10 ** (n / 10) for n in ns]),
    sizes=st.integers(1, 6),
    spread=st.floats(1.2, 3),
    length=st.sampled_from([64, 128, 500, 2048]),
    min_steps=st.integers(50, 300),
    convention=st.sampled_from(["exact", "paper", "6nd"]),
    spec=st.sampled_from(SPECS),
)
def test_every_plan_spends_its_budgets(budgets, sizes, spread, length, min_steps, convention, spec):
    asked = ladder(budgets=tuple(budgets), sizes=sizes, spread=spread, length=length, min_steps=min_steps, convention=convention)
    try:
        plan = make_plan(asked, [spec])
    except ArchlabError as error:
        assert "is too small for" in str(error)  # noqa: PT017 - a plan, or this refusal
        assert min(budgets) < 1e13
        return
    plan.check()
    assert len(plan.runs) == sizes * len(budgets)
    for run in plan.runs:
        cost = training_flops(run.architecture, dim=run.dim, length=length, vocab_size=99, convention=convention)
        assert run.flops == cost * run.steps * run.batch_size
        assert abs(run.flops / run.budget - 1) <= 0.01
        assert run.steps >= min_steps
        assert run.tokens == run.steps * run.batch_size * length
    for _, group in groupby(plan.runs, key=lambda run: run.budget):
        runs = list(group)
        assert len({run.batch_size for run in runs}) == 1
        assert len({run.params for run in runs}) == sizes
        assert all(a.learning_rate >= b.learning_rate for a, b in pairwise(runs))


def test_architectures_share_the_batch_and_have_like_sizes():
    """Hyena once had 12 where Transformer++ had 16, and sizes a factor of 1.6 apart."""
    for name, most in (("smoke", 1.4), ("quick", 1.4)):
        runs = make_plan(load_ladder(name).with_values(vocab_size=99), ["transformer++", "hyena", "mamba"]).runs
        for budget in {run.budget for run in runs}:
            group = [run for run in runs if run.budget == budget]
            (batch,) = {run.batch_size for run in group}
            assert batch & (batch - 1) == 0
            by_label = [[run.params for run in group if run.label == label] for label in {run.label for run in group}]
            assert all(max(sizes) < most * min(sizes) for sizes in zip(*by_label, strict=True))


def test_tokens_a_parameter_in_place_of_budgets():
    asked = ladder(budgets=(), params=(1e5, 3e5), tokens_per_param=(5, 20), seeds=(0, 1))
    runs = make_plan(asked, ["transformer++", "mamba"]).runs
    assert len(runs) == 2 * 2 * 2 * 2
    assert [run.tokens / run.params for run in runs] == pytest.approx([5, 5, 20, 20] * 4, rel=0.01)
    for one, other in zip(runs[:8], runs[8:], strict=True):
        assert one.batch_size == other.batch_size
    assert all(run.budget == run.flops for run in runs)


def test_few_steps_that_miss_the_budget_are_said_to():
    with pytest.raises(
        ArchlabError, match=r"batch_size=1300: \d+ whole steps of .* miss budget 2e\+11 by [1-9].*%, more than 1%"
    ):
        make_plan(ladder(batch_size=1300, min_steps=1), ["transformer++"])


def test_sizes_lie_around_the_rule():
    runs = make_plan(ladder(budgets=(1e15,), sizes=5, spread=2), ["transformer++"]).runs
    centre = central_params(1e15)
    for run, factor in zip(runs, (1 / 4, 1 / 2, 1, 2, 4), strict=True):
        assert run.params == pytest.approx(factor * centre, rel=0.3)  # depth grows in steps


def test_sizes_below_the_least_are_left_out_of_small_budgets():
    asked = ladder(budgets=(2e11, 8e11), sizes=5, spread=2)
    every, some = (make_plan(one, ["transformer++"]).runs for one in (asked, asked.with_values(least_params=6e3)))
    assert len(every) == 10
    assert some == every[1:]  # 3k is too small at 2e11
    with pytest.raises(ArchlabError, match=r"least_params=1e\+06: the largest size of budget 2e\+11 has 5\.2e\+04: give less"):
        make_plan(asked.with_values(least_params=1e6), ["transformer++"])


def test_rules_can_be_overridden():
    plan = make_plan(ladder(params=(1e4, 3e4), batch_size=8, learning_rate=3e-3, seeds=(0, 5)), ["transformer++"])
    assert [run.seed for run in plan.runs] == [0, 5, 0, 5]
    assert {run.batch_size for run in plan.runs} == {8}
    assert {run.learning_rate for run in plan.runs} == {3e-3}
    assert [run.params for run in plan.runs[::2]] == pytest.approx([1e4, 3e4], rel=0.15)


def test_names_are_kept_and_specs_may_be_named():
    plan = make_plan(ladder(), {"mine": "mh-attention swiglu", "theirs": "2*[mamba swiglu]"})
    assert {run.label for run in plan.runs} == {"mine", "theirs"}
    twice = make_plan(ladder(), ["transformer++", "2*[mh-attention swiglu]", "mamba"])
    assert list(dict.fromkeys(run.label for run in twice.runs)) == ["transformer++", "mamba"]


def test_a_corpus_gives_vocabulary_hash_and_epochs(tmp_path: Path):
    corpus = small_corpus(tmp_path)
    asked = ladder(vocab_size=None, budgets=(1e10,), sizes=2, spread=1.5, data=corpus.source, tokenizer="ascii", min_steps=50)
    plan = make_plan(asked, ["transformer++"], corpus)
    for run in plan.runs:
        assert (run.vocab_size, run.corpus_hash, run.tokenizer) == (99, corpus.hash, "ascii")
        assert run.epochs == pytest.approx(run.tokens / corpus.num_tokens("train"), rel=1e-2)
    again = make_plan(asked.with_values(budgets=(1e11,), repeat=True), ["transformer++"], corpus)
    assert max(run.epochs for run in again.runs) > 1
    with pytest.raises(ArchlabError, match="tokens are less than one sequence of 100000"):
        make_plan(asked.with_values(length=100_000), ["transformer++"], corpus)


@pytest.mark.parametrize(
    ("values", "specs", "message"),
    [
        ({"budgets": (1e6,)}, SPECS[:1], r"budget 1e\+06 is too small for transformer\+\+ with [\d,]+ parameters"),
        ({"batch_size": 4096}, SPECS[:1], "takes 9 steps of 4096 sequences, the least is 150"),
        ({}, [], "no architecture: give at least one spec"),
        ({}, {"a\x1b": "mamba"}, r"label 'a\\x1b' of mamba: give it a name that can be printed"),
        ({"vocab_size": None}, SPECS, "vocab_size: give it, to plan without the corpus"),
    ],
)
def test_what_cannot_be_planned_is_refused(values, specs, message):
    with pytest.raises(ArchlabError, match=message):
        make_plan(ladder(**values), specs)


@pytest.mark.parametrize("name", ["smoke", "quick", "standard", "paper"])
def test_ladders_of_the_package_plan(name: str):
    loaded = load_ladder(name)
    specs = loaded.architectures or SPECS[:2]
    plan = make_plan(loaded.with_values(vocab_size=loaded.vocab_size or 99), specs)
    plan.check()
    whole = len(specs) * len(loaded.budgets) * loaded.sizes
    assert len(plan.runs) == whole - (name == "paper") * len(specs) * (2 + 1)  # below least_params at 4e18 and 8e18
    assert objections(plan, loaded) == []


def test_the_ladder_of_the_paper_has_its_extent():
    paper = load_ladder("paper")
    runs = make_plan(paper, paper.architectures).runs
    assert sorted({run.budget for run in runs}) == [4e18, 8e18, 2e19, 4e19, 8e19]
    assert len({run.label for run in runs}) == 8
    assert len(make_plan(paper.with_values(convention="paper"), paper.architectures).runs) == len(runs)
    assert 65e6 < min(run.params for run in runs) < 80e6  # the paper's smallest has 70M,
    assert 6.5e9 < max(run.params for run in runs) < 7.5e9  # and its largest 7B
    assert {run.vocab_size for run in runs} == {50_304}
    assert all(run.dim % 64 == 0 for run in runs)
    heads = {run.dim // layer.heads for run in runs for layer in run.architecture.layers if layer.head_knob == "heads"}
    assert heads == {64, 128}


def sizes_of(spec: str, below: float = 1e8, aspect: float = Ladder.aspect, head_dim: int = Ladder.head_dim):
    found = []
    for size in all_sizes(spec, vocab_size=VOCAB, length=LENGTH, aspect=aspect, head_dim=head_dim):
        if size.params > below:
            break
        found.append(size)
    return found


def nearest_sizes(spec: str, targets: list[float]) -> list[Size]:
    known = up_to(all_sizes(spec, vocab_size=VOCAB, length=LENGTH), max(targets), len(targets))
    return matched_sizes({spec: known}, targets)[spec]


def depth(size: Size) -> int:
    return len(size.architecture.layers)


@pytest.mark.parametrize("spec", CATALOGUE)
def test_every_architecture_grows(spec: str):
    found = sizes_of(spec)
    assert len(found) > 20
    assert all(one.params < other.params and one.dim < other.dim and depth(one) <= depth(other) for one, other in pairwise(found))
    written = architecture(spec)
    for size in found:
        assert depth(size) >= len(written.layers)
        assert size.architecture.unit == size.architecture.layers[: len(written.unit)]
        size.architecture.validate(size.dim)


def test_predictions_are_what_is_built():
    import torch

    for spec in ("striped-mh-hyena", "mamba", "3*[mh-gated-linear-attention swiglu] mh-attention swiglu"):
        (size,) = nearest_sizes(spec, [60_000])
        with torch.device("meta"):
            model = size.architecture.build(vocab_size=VOCAB, max_length=LENGTH, dim=size.dim)
        assert size.params == sum(p.numel() for p in model.parameters())
        ends = [*model.embedding.parameters(), *model.unembedding.parameters()]
        assert size.params_non_embedding == size.params - sum(p.numel() for p in ends)


def test_depth_follows_from_width_and_aspect():
    depths = {size.dim: depth(size) for size in sizes_of("transformer++", aspect=64, below=1e9)}
    assert (depths[32], depths[128], depths[256], depths[1024]) == (4, 4, 8, 32)
    # A unit of eight layers is repeated whole.
    striped = {size.dim: depth(size) for size in sizes_of("3*[mh-hyena swiglu] mh-attention swiglu", aspect=64, below=1e9)}
    assert (striped[32], striped[256], striped[512], striped[1024]) == (8, 8, 16, 32)


def test_heads_follow_from_width_unless_the_spec_gives_them():
    heads = {size.dim: size.architecture.layers[0].heads for size in sizes_of("transformer++", head_dim=32)}
    assert (heads[16], heads[32], heads[64], heads[72], heads[256]) == (1, 1, 2, 2, 8)
    size = sizes_of("mh-attention(heads=2) swiglu attention swiglu mh-attention", head_dim=8)[-1]
    given, single, by_width = (config.heads for config in size.architecture.layers[:5:2])
    assert (given, single) == (2, 1)
    assert by_width > 2


@settings(deadline=None)  # the first example may import torch
@given(targets=st.lists(st.floats(3e3, 1e7), min_size=1, max_size=6))
def test_sizes_are_different_and_near_their_targets(targets: list[float]):
    found = nearest_sizes("transformer++", targets)
    assert len(found) == len(targets)
    assert all(one.params < other.params for one, other in pairwise(found))
    if all(other > 2 * one for one, other in pairwise(sorted(targets))) and min(targets) > 6e3:
        for size, target in zip(found, sorted(targets), strict=True):
            assert target / 1.5 < size.params < target * 1.5


@pytest.mark.parametrize(
    ("spec", "target", "message"),
    [
        ("mh-attention(heads=3001) swiglu", 1e5, "fits no width"),
        ("swiglu", 1e15, "swiglu: no size near 1e[+]15 parameters: the widest has"),
        ("swigul", 1e5, "unknown layer 'swigul'"),
    ],
)
def test_what_has_no_size_is_refused(spec: str, target: float, message: str):
    with pytest.raises(ArchlabError, match=message):
        nearest_sizes(spec, [target])
