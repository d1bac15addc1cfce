"""The loss of a kept model on held-out text, own or other, in nats a token, bits a byte, and by position in the sequence."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from archlab.corpora import Corpus, prepare
from archlab.corpora.tokenizers import TOKENIZER_FILE
from archlab.fields import Count, checked
from archlab.machine import Device
from archlab.scaling.models import KeptModel, load_model
from archlab.training.context import computing

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class PositionLoss:
    """The loss of some neighbouring positions of a sequence."""

    first: int
    """From 1, the prediction behind the first token of a sequence."""
    last: int
    loss: float
    """Mean over these positions, in nats a token."""


@dataclass(frozen=True)
class Evaluation:
    """The loss of a kept model on one corpus."""

    model: str
    """Key, architecture and size, budget and seed."""
    data: str
    """Source of the corpus; its held-out documents were read."""
    tokens: int
    """Predicted."""
    loss: float
    """In nats a token."""
    bits_per_byte: float
    """The loss for each byte of the documents: compares across tokenizers. Bytes a token are those of all held-out documents."""
    positions: tuple[PositionLoss, ...]
    """By octaves of the position in the sequence: 1, 2, 3-4, 5-8 and so on."""


@dataclass(frozen=True)
class Evaluations:
    """The losses of a kept model on several corpora."""

    rows: tuple[Evaluation, ...]

    def to_dict(self) -> list[dict[str, Any]]:
        """Return a list with an entry for each corpus, JSON-ready."""
        return [asdict(row) | {"positions": [asdict(part) for part in row.positions]} for row in self.rows]

    def to_frame(self) -> pd.DataFrame:
        """Return a data frame with a row for each corpus and octave of positions."""
        import pandas as pd

        whole = {name: [getattr(row, name) for row in self.rows for _ in row.positions] for name in ("model", "data")}
        parts = [asdict(part) for row in self.rows for part in row.positions]
        return pd.DataFrame(whole).join(pd.DataFrame(parts))

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html(index=False, float_format="{:.4g}".format))


@checked
def evaluate(
    run: str | KeptModel,
    data: str | Sequence[str] | None = None,
    *,
    tokens: Count | None = None,
    store: str | os.PathLike[str] = "archlab.db",
    device: Device = "cpu",
) -> Evaluations:
    """Evaluate a kept model on the held-out documents of corpora, cut by its own tokenizer into sequences as in training.

    On the corpus that it was trained on, and with the default of ``tokens``, this is the loss that is stored.

    Args:
        run: a kept model, or what :func:`archlab.load_model` finds it by.
        data: sources of corpora, as for :func:`archlab.scaling.plan`; by default the one that it was trained on.
        tokens: the most to predict in each; by default as many as after training.
        store: the store beside which the model was kept.
        device: ``"cpu"`` or ``"cuda"``, for a model that is not loaded yet.

    Raises:
        ArchlabError: there is no such model or corpus, or its held-out text is shorter than one sequence.
    """
    kept = run if isinstance(run, KeptModel) else load_model(run, store, device=device)
    sources = [kept.trial.run.corpus] if data is None else [data] if isinstance(data, str) else data
    corpora = [_prepared(kept, source) for source in sources]
    for corpus in corpora:  # before anything is computed
        corpus.num_sequences("validation", kept.trial.run.length)
    return Evaluations(tuple(_evaluated(kept, corpus, tokens or kept.trial.recipe.validation_tokens) for corpus in corpora))


def _prepared(kept: KeptModel, source: str) -> Corpus:
    """The corpus of a source, cut by the model's own tokenizer: one that is trained anew would give tokens other meanings."""
    run, file = kept.trial.run, kept.folder / TOKENIZER_FILE
    if not file.is_file():
        return prepare(source, run.tokenizer)
    if source == run.corpus and (corpus := prepare(source, run.tokenizer)).hash == run.corpus_hash:
        return corpus
    return prepare(source, f"hf:{file}")


@torch.inference_mode()
def _evaluated(kept: KeptModel, corpus: Corpus, tokens: int) -> Evaluation:
    run, recipe, device = kept.trial.run, kept.trial.recipe, kept.device
    totals_l, number = torch.zeros(run.length, dtype=torch.float64), 0
    size, half = min(recipe.micro_batch or run.batch_size, run.batch_size), recipe.precision == "bf16"
    kernels = recipe.kernels if device.type == "cuda" else "torch"
    with computing(kernels, recipe.precision, device.type), torch.autocast(device.type, torch.bfloat16, enabled=half):
        for batch in corpus.validation_batches(size, run.length, max(1, tokens // run.length)):
            rows = torch.from_numpy(batch).to(device)
            logits_bvl = kept.model(rows[:, :-1]).float().mT
            totals_l += F.cross_entropy(logits_bvl, rows[:, 1:], reduction="none").double().sum(0).cpu()
            number += len(batch)
    losses = (totals_l / number).tolist()
    loss = math.fsum(losses) / run.length
    tokens_per_byte = corpus.num_tokens("validation") / corpus.num_bytes("validation")
    ends = [*(1 << octave for octave in range((run.length - 1).bit_length())), run.length]
    parts = [(first + 1, last) for first, last in zip([0, *ends], ends, strict=False)]
    return Evaluation(
        model=str(kept),
        data=corpus.source,
        tokens=number * run.length,
        loss=loss,
        bits_per_byte=loss * tokens_per_byte / math.log(2),
        positions=tuple(PositionLoss(a, b, math.fsum(losses[a - 1 : b]) / (b - a + 1)) for a, b in parts),
    )
