"""A training run of a plan on its corpus: padded vocabularies and tied embeddings, from the plan to the loss."""

from dataclasses import replace

import pytest
from tests.scaling.language_models import tiny_corpus

from archlab.errors import ArchlabError
from archlab.scaling.ladder import Ladder
from archlab.scaling.planner import make_plan
from archlab.scaling.recipe import LMRecipe
from archlab.scaling.training_loop import train
from archlab.scaling.trial import LMTrial


def test_a_tied_model_of_a_padded_vocabulary_trains_as_it_is_accounted(tmp_path):
    corpus = tiny_corpus(tmp_path)
    shape = {"length": 16, "data": corpus.source, "tokenizer": "ascii", "vocab_multiple": 32}
    ladder = Ladder(name="test", budgets=(5e8,), sizes=1, params=(6e3,), min_steps=50, batch_size=8, tied=True, **shape)
    run = make_plan(ladder, ["mh-attention(heads=2) swiglu"], corpus).runs[0]
    assert (run.vocab_size, corpus.vocab_size, run.backbone) == (128, 99, "tied-language-model")
    trial = LMTrial(run, LMRecipe(validation_tokens=160)).on(corpus)
    assert trial.run.vocab_size == 128
    model = run.architecture.build(vocab_size=run.vocab_size, max_length=run.length, dim=run.dim, backbone=run.backbone)
    assert sum(parameter.numel() for parameter in model.parameters()) == run.params
    result = train(trial, corpus)
    assert result.status == "finished"
    assert result.curve[-1].train_loss < result.curve[0].train_loss
    with pytest.raises(ArchlabError, match=r"vocab_size: the plan is for 160, corpus .* has 128"):
        LMTrial(replace(run, vocab_size=160), LMRecipe()).on(corpus)
