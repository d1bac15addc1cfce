"""Objections: one plan that is bad on purpose for each, and the paper's, to which there is none."""

from pathlib import Path
from typing import get_args

import pytest
from tests.corpora.corpora_of_text import small_corpus

from archlab.errors import ArchlabError
from archlab.scaling.ladder import Ladder, ObjectionName, load_ladder
from archlab.scaling.objections import CHECKS, objections, refuse
from archlab.scaling.planner import make_plan

PAPER = load_ladder("paper").with_values(budgets=(2e19,), sizes=3)
SMALL = Ladder(name="test", budgets=(2e11,), vocab_size=99)
BAD = {
    "corpus": (PAPER.with_values(corpus_tokens=1e9), r"needs [\d,]+ tokens, 1,000,000,000 are for training"),
    "tokens-per-param": (
        PAPER.with_values(budgets=(1e22,), params=(7e7, 7e9), corpus_tokens=1e15),
        r"with \d\d,\d+,\d+ parameters gets \d.*, sane at its FLOPs are .*: give larger sizes",
    ),
    "gpus": (
        PAPER.with_values(gpus=1024),
        "gpus=1024: 3 runs share them, and batch_size=512 .* is smaller than them: give gpus=512",
    ),
    "sizes": (
        SMALL.with_values(params=(1e3, 2e3)),
        r"params: 1,000 became [\d,]+ \(transformer\+\+\), .*: give sizes that exist",
    ),
    "embeddings": (SMALL.with_values(vocab_size=4000), r"embeddings: \d+% of the [\d,]+ parameters of .* are in its tables"),
    "memory": (
        PAPER.with_values(memory=2e9),
        r"memory=2e\+09: .* bytes on each of 8 GPUs that share it: give more gpus",
    ),
}


def test_every_objection_has_a_bad_plan():
    assert set(BAD) == set(CHECKS) == set(get_args(ObjectionName))


@pytest.mark.parametrize("name", BAD)
def test_a_bad_plan_is_refused_unless_it_is_allowed(name: str):
    ladder, message = BAD[name]
    plan = make_plan(ladder, ["transformer++"])
    found = objections(plan, ladder)
    assert name in [objection.name for objection in found]
    with pytest.raises(ArchlabError, match=rf"{message}.* or accept it by allow=\['{name}'\] \(--allow {name}\)"):
        refuse(plan, ladder.with_values(allow=tuple(other for other in CHECKS if other != name)))
    refuse(plan, ladder.with_values(allow=tuple(objection.name for objection in found)))


def test_the_paper_and_small_ladders_of_the_package_are_planned_without_an_objection():
    for name, specs in (("paper", None), ("quick", ["transformer++", "striped-hyena"])):
        ladder = load_ladder(name)
        plan = make_plan(ladder.with_values(vocab_size=ladder.vocab_size or 99), specs or ladder.architectures)
        assert objections(plan, ladder) == []


def test_the_corpus_itself_counts_where_it_is_there(tmp_path: Path):
    corpus = small_corpus(tmp_path)
    asked = Ladder(name="test", budgets=(1e11,), sizes=2, spread=1.5, data=corpus.source, tokenizer="ascii", min_steps=50)
    plan = make_plan(asked, ["transformer++"], corpus)
    with pytest.raises(ArchlabError, match=r"needs [\d,]+ tokens, [\d,]+ are for training: .* repeat=True \(--repeat\) to read"):
        refuse(plan, asked, corpus)
    refuse(plan, asked.with_values(repeat=True), corpus)


def test_sizes_by_tokens_a_parameter_are_compared_too():
    ladder = SMALL.with_values(params=(1e5, 3e5), tokens_per_param=(10, 20))
    assert objections(make_plan(ladder, ["transformer++"]), ladder) == []
