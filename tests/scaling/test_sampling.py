"""Text is drawn by the step form, whose logits are those of the parallel form."""

import math

import pytest
import torch
from tests.scaling.language_models import LENGTH, tiny_corpus
from tests.scaling.test_models import keep

from archlab.architectures.decoding import Decoder
from archlab.errors import ArchlabError
from archlab.layers import LayerConfig
from archlab.scaling import sample
from archlab.scaling.models import load_model
from archlab.scaling.sampling import _pick

SPECS = ["mh-attention(heads=2) swiglu", "swiglu mamba swiglu hyena", "parallel(mamba, swiglu) experts(swiglu, num=3)"]


@pytest.mark.parametrize("spec", SPECS)
def test_steps_give_the_logits_of_the_whole_sequence(tmp_path, spec):
    keep(tmp_path, spec=spec)
    kept = load_model("tiny", tmp_path / "a.db")
    ids_bl = torch.randint(kept.tokenizer.vocab_size, (3, LENGTH), generator=torch.Generator().manual_seed(0))
    decoder = Decoder(kept.model, batch_size=3)
    steps_blv = torch.stack([decoder.step(ids_b) for ids_b in ids_bl.T], 1)
    torch.testing.assert_close(steps_blv, kept.model(ids_bl), atol=1e-4, rtol=1e-4)


def test_text_follows_from_model_prompt_and_seed(tmp_path):
    keep(tmp_path, steps=300, learning_rate=1e-2)
    store = tmp_path / "a.db"
    likeliest = sample("tiny", "line 7 of", store=store, tokens=6, temperature=0)
    assert likeliest.startswith(" the ")
    assert sample("tiny", "line 7 of", store=store, tokens=6, top_k=1, seed=5) == likeliest
    assert sample("tiny", "line 7 of", store=store, tokens=6, temperature=1e-300) == likeliest
    drawn = [sample("tiny", "l", store=store, tokens=40, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    kept = load_model("tiny", store)
    assert sample(kept, "l", tokens=40, seed=1) == drawn[0]
    assert sample(kept, tokens=3 * LENGTH, seed=3)  # without a prompt, and beyond the length of training


def test_a_document_ends_where_the_model_ends_it(tmp_path):
    keep(tmp_path)
    kept = load_model("tiny", tmp_path / "a.db")
    kept.model.unembedding.bias[kept.tokenizer.end] = 1e4
    assert sample(kept, "line") == ""


def test_draws_follow_the_softmax_of_the_top():
    logits, generator = torch.log(torch.tensor([0.5, 0.3, 0.2])), torch.Generator().manual_seed(0)
    drawn = torch.tensor([_pick(logits, 1.0, 2, generator) for _ in range(4000)])
    share = (drawn == 0).double().mean().item()
    assert set(drawn.tolist()) == {0, 1}
    assert share == pytest.approx(0.625, abs=4 * math.sqrt(0.625 * 0.375 / 4000))


@pytest.mark.parametrize("wrong", [{"tokens": 0}, {"temperature": -1.0}, {"top_k": -1}, {"seed": -1}, {"temperature": math.inf}])
def test_values_that_make_no_sense_are_refused(tmp_path, wrong):
    with pytest.raises(ArchlabError, match=next(iter(wrong))):
        sample("tiny", store=tmp_path / "a.db", **wrong)


def test_a_layer_without_a_step_form_is_named(tmp_path, monkeypatch):
    keep(tmp_path)
    kept = load_model("tiny", tmp_path / "a.db")
    monkeypatch.setattr("archlab.architectures.decoding.Recurrent", LayerConfig)  # what no module is
    with pytest.raises(ArchlabError, match=r"layer mh-attention\(heads=2\): has no step form"):
        sample(kept)
    assert tiny_corpus(tmp_path).tokenizer == "ascii"
