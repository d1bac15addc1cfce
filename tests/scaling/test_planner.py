"""From ladders to plans."""

from itertools import groupby, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.corpora.corpora_of_text import small_corpus

from archlab.errors import ArchlabError
from archlab.scaling import rules
from archlab.scaling.flops import training_flops
from archlab.scaling.ladder import Ladder, load_ladder
from archlab.scaling.planner import make_plan

SPECS = ["transformer++", "striped-hyena", "mamba"]


def ladder(**values) -> Ladder:
    return Ladder(**{"name": "test", "budgets": (2e11,), "vocab_size": 99} | values)


@settings(deadline=None)  # the first example may import torch
@given(
    budgets=st.lists(st.floats(2e10, 1e20), min_size=1, max_size=3, unique=True),
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


def test_sizes_lie_around_the_rule():
    runs = make_plan(ladder(budgets=(1e15,), sizes=5, spread=2), ["transformer++"]).runs
    centre = rules.centre(1e15)
    for run, factor in zip(runs, (1 / 4, 1 / 2, 1, 2, 4), strict=True):
        assert run.params == pytest.approx(factor * centre, rel=0.3)  # depth grows in steps


def test_rules_pass_through_what_is_known():
    assert rules.centre(2e11) == pytest.approx(13_000)
    params = rules.centre(4e18)
    assert 15 < 4e18 / (6 * params) / params < 25  # tokens a parameter
    assert rules.learning_rate(108e6) == 4.7e-3
    assert rules.learning_rate(13_000) == rules.HIGHEST_LEARNING_RATE
    assert rules.batch_size(108e6, 2048) * 2048 == pytest.approx(2048 * 160, rel=0.3)
    assert rules.batch_size(13_000, 128) * 128 == 2048


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
    with pytest.raises(ArchlabError, match=r"needs [\d,]+ tokens, [\d,]+ are for training: .* --repeat to read it \d"):
        make_plan(asked.with_values(budgets=(1e11,)), ["transformer++"], corpus)
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
    assert len(plan.runs) == len(specs) * len(loaded.budgets) * loaded.sizes


def test_the_ladder_of_the_paper_has_its_extent():
    paper = load_ladder("paper")
    runs = make_plan(paper, paper.architectures).runs
    assert sorted({run.budget for run in runs}) == [4e18, 8e18, 2e19, 4e19, 8e19]
    assert len({run.label for run in runs}) == 8
    assert len(make_plan(paper.with_values(convention="paper"), paper.architectures).runs) == len(runs)
    assert min(run.params for run in runs) < 70e6
    assert 5e9 < max(run.params for run in runs) < 9e9


def test_an_own_ladder_is_read(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("budgets: [2e11, 400000000000]\nsizes: 3\nseeds: [0, 1]\nvocab_size: 99\n")
    loaded = load_ladder(str(path))
    assert (loaded.name, loaded.budgets, loaded.sizes, loaded.seeds) == ("mine", (2e11, 4e11), 3, (0, 1))
    assert loaded.to_dict() == {"name": "mine", "budgets": [2e11, 4e11], "sizes": 3, "seeds": [0, 1], "vocab_size": 99}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sizes: 3", "budgets is missing"),
        ("budgets: 2e11", "budgets=200000000000.0: give a list"),
        ("budgets: []", "budgets: give at least one"),
        ("budgets: [-1]", "budgets=-1.0: must be positive and finite"),
        ("budgets: [2e11]\nsize: 3", "unknown field of ladder: 'size': did you mean 'sizes'"),
        ("budgets: [2e11]\nsizes: many", "sizes='many': give a value of type int"),
        ("budgets: [2e11]\nspread: 1", "spread=1.0: give a factor above 1"),
        ("budgets: [2e11]\nconvention: exat", "unknown FLOP convention 'exat': did you mean 'exact'"),
        ("budgets: [2e11]\nutilisation: 40", "utilisation=40.0: give a share of at most 1"),
        ("budgets: [2e11]\narchitectures: {a: 3}", "architectures: give specs as text"),
    ],
)
def test_a_wrong_ladder_is_refused(tmp_path: Path, text: str, message: str):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ArchlabError, match=message):
        load_ladder(str(path))


def test_an_unknown_ladder_or_field_is_named():
    with pytest.raises(ArchlabError, match="unknown ladder 'quik': did you mean 'quick'"):
        load_ladder("quik")
    with pytest.raises(ArchlabError, match="unknown field of a ladder: 'lenght': did you mean 'length'"):
        ladder().with_values(lenght=3)
