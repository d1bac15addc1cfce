"""The loss of a kept model is the stored one on its own data; other data, bits a byte, and positions."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.scaling.language_models import LENGTH, tiny_corpus, tiny_trial, write_corpus
from tests.scaling.test_models import keep

from archlab.corpora import prepare
from archlab.errors import ArchlabError
from archlab.scaling import evaluate, sample
from archlab.scaling.models import load_model
from archlab.scaling.training_loop import train
from archlab.store.kept import beside


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_stored_loss_comes_again_with_its_parts(tmp_path):
    _, result = keep(tmp_path)
    (found,) = evaluate("tiny", store=tmp_path / "a.db").rows
    assert found.loss == pytest.approx(result.loss, abs=1e-6)
    assert found.tokens == 160
    assert [(part.first, part.last) for part in found.positions] == [(1, 1), (2, 2), (3, 4), (5, 8), (9, 16)]
    sizes = [part.last - part.first + 1 for part in found.positions]
    assert np.average([part.loss for part in found.positions], weights=sizes) == pytest.approx(found.loss, rel=1e-12)
    corpus = tiny_corpus(tmp_path)
    nats = found.loss * corpus.num_tokens("validation") / corpus.num_bytes("validation")
    assert found.bits_per_byte == pytest.approx(nats / math.log(2), rel=1e-12)


def test_tied_embeddings_and_a_padded_vocabulary_are_kept_as_they_are(tmp_path):
    corpus = tiny_corpus(tmp_path)
    trial = tiny_trial(corpus, backbone="tied-language-model", vocab_multiple=64, steps=100, learning_rate=1e-2)
    trial = replace(trial, run=replace(trial.run, vocab_size=128))
    result = train(trial, corpus, models=beside(tmp_path / "a.db", "models"))
    kept = load_model("tiny", tmp_path / "a.db")
    assert kept.model.embedding.weight.shape == (128, 16)
    assert not hasattr(kept.model, "unembedding")
    (found,) = evaluate(kept).rows
    assert found.loss == pytest.approx(result.loss, abs=1e-6)
    kept.model.embedding.weight[99] = 1e4  # of these two one is always the likeliest
    kept.model.embedding.weight[100] = -1e4
    assert isinstance(sample(kept, "line", tokens=20), str)  # tokens that mean nothing are never drawn


def test_positions_are_those_of_the_predictions(tmp_path):
    keep(tmp_path)
    kept = load_model("tiny", tmp_path / "a.db")
    (found,) = evaluate(kept, tokens=10**9).rows
    rows = torch.from_numpy(np.concatenate(list(tiny_corpus(tmp_path).validation_batches(64, LENGTH))))
    losses = torch.nn.functional.cross_entropy(kept.model(rows[:, :-1]).mT, rows[:, 1:], reduction="none").mean(0)
    assert found.tokens == rows[:, 1:].numel()
    assert found.positions[0].loss == pytest.approx(losses[0].item(), abs=1e-5)
    assert found.positions[2].loss == pytest.approx(losses[2:4].mean().item(), abs=1e-5)


def test_several_corpora_are_evaluated_by_the_same_model(tmp_path):
    keep(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    for name in range(40):
        (other / f"{name}.txt").write_text(f"Quite another text, number {name}. " * 20)
    found = evaluate("tiny", [tiny_corpus(tmp_path).source, str(other)], store=tmp_path / "a.db")
    assert [row["data"] for row in found.to_dict()] == [tiny_corpus(tmp_path).source, str(other)]
    assert found.rows[0].loss < found.rows[1].loss
    assert list(found.to_frame().columns) == ["model", "data", "first", "last", "loss"]
    assert len(found.to_frame()) == 10
    assert evaluate("tiny", str(other), store=tmp_path / "a.db").rows == found.rows[1:]


def test_what_cannot_be_evaluated_is_refused(tmp_path):
    keep(tmp_path)
    short = tmp_path / "short"
    short.mkdir()
    (short / "a").write_text("a")
    (short / "b").write_text("b")
    for data, words in (("nowhere", "no such file or folder"), (str(short), "are less than one sequence of 16")):
        with pytest.raises(ArchlabError, match=words):
            evaluate("tiny", data, store=tmp_path / "a.db")
    with pytest.raises(ArchlabError, match="tokens=0"):
        evaluate("tiny", tokens=0, store=tmp_path / "a.db")


def test_a_byte_pair_encoding_stays_the_models_own(tmp_path):
    pytest.importorskip("tokenizers")
    corpus = prepare(str(write_corpus(tmp_path)), "bpe:300")
    trial = tiny_trial(corpus)
    trial = replace(trial, run=replace(trial.run, tokenizer="bpe:300"))
    result = train(trial, corpus, models=beside(tmp_path / "a.db", "models"))
    kept = load_model("tiny", tmp_path / "a.db")
    (tokens,) = kept.tokenizer.encode([b"the text, whose square"])
    assert kept.tokenizer.decode(tokens[:-1].tolist()) == "the text, whose square"
    assert len(tokens) < 15
    (own,) = evaluate(kept).rows
    assert own.loss == pytest.approx(result.loss, abs=1e-6)
    other = tmp_path / "other"
    other.mkdir()
    for name in range(40):
        (other / f"{name}.txt").write_text(f"Quite another text, number {name}. " * 20)
    assert evaluate(kept, str(other)).rows[0].loss > own.loss
    assert isinstance(sample(kept, "line", tokens=5), str)
