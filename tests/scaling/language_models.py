"""Trials of tiny language models on a tiny corpus."""

from functools import cache
from pathlib import Path

from archlab import architecture
from archlab.corpora import Corpus, prepare
from archlab.scaling.recipe import LMRecipe
from archlab.scaling.training_plan import LMRun, Size
from archlab.scaling.trial import LMTrial

LENGTH = 16


def write_corpus(folder: Path) -> Path:
    """A text of 3000 lines that are not all alike."""
    path = folder / "text.txt"
    if not path.exists():
        path.write_text("".join(f"line {i} of the text, whose square is {i * i}\n" for i in range(3000)))
    return path


@cache
def tiny_corpus(folder: Path) -> Corpus:
    return prepare(str(write_corpus(folder)), "ascii", folder / "corpora")


def tiny_run(
    corpus: Corpus, spec="mh-attention(heads=2) swiglu", *, dim=16, steps=20, batch_size=6, label="tiny", **values
) -> LMRun:
    model = architecture(spec)
    size = Size(model, dim, corpus.vocab_size, LENGTH)
    flops = 3 * model.flops(length=LENGTH, dim=dim, vocab_size=corpus.vocab_size) * steps * batch_size
    known = {
        "budget": float(flops),
        "learning_rate": 3e-3,
        "corpus_hash": corpus.hash,
    }
    return LMRun(
        label=label,
        spec=str(model),
        dim=dim,
        flops=flops,
        params=size.params,
        params_non_embedding=size.params_non_embedding,
        state=size.state,
        steps=steps,
        batch_size=batch_size,
        length=LENGTH,
        tokens=steps * batch_size * LENGTH,
        corpus=corpus.source,
        tokenizer=corpus.tokenizer,
        vocab_size=corpus.vocab_size,
        **known | values,
    )


def tiny_trial(corpus: Corpus, recipe: LMRecipe | None = None, **values) -> LMTrial:
    return LMTrial(tiny_run(corpus, **values), recipe or LMRecipe(evaluations=2, validation_tokens=160))
