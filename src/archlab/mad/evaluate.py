"""How good a model's predictions are: token accuracy, macro accuracy, loss, and the score by test unit."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from archlab.architectures.backbones import Backbone
from archlab.mad.recipe import Recipe
from archlab.mad.trial import Metrics
from archlab.tasks import IGNORE

BATCH = 128
"""Sequences a batch. Part of the definition of macro accuracy, which the reference code averages over batches of 128."""


@dataclass(frozen=True)
class Evaluation:
    """Predictions on one split, judged."""

    metrics: Metrics
    numerators: NDArray[np.float32]
    """With ``denominators``, the score by unit (a sequence, or a batch for macro accuracy); see TrialResult."""
    denominators: NDArray[np.float32]
    log_perplexity: float
    """Logarithm of the perplexity, the exponential of a batch's loss, averaged over batches: it chooses the checkpoint."""

    @property
    def score(self) -> float:
        """The metric that was asked for, in [0, 1]."""
        return float(self.numerators.sum(dtype=np.float64) / self.denominators.sum(dtype=np.float64))


@torch.no_grad()
def evaluate(model: Backbone, inputs: Tensor, targets: Tensor, recipe: Recipe) -> Evaluation:
    """Judge the model on ``inputs`` and ``targets``, each ``(n, length)`` on the model's device, by the recipe's metric.

    The model runs in the recipe's precision, as the reference code has it.
    With levels every sequence counts as much as the others, otherwise every answer does: levels differ in the number of answers.
    """
    wanted = targets.cpu()
    answered = wanted != IGNORE
    labels_n = torch.split(wanted[answered], [int(batch.sum()) for batch in torch.split(answered, BATCH)])
    predicted_n, losses, num_classes = _predict(model, inputs, answered, labels_n, recipe.precision == "bf16")
    macro = [macro_accuracy(*batch, num_classes) for batch in zip(predicted_n, labels_n, strict=True)]
    hits = torch.zeros_like(answered)
    hits[answered] = torch.cat(predicted_n) == torch.cat(labels_n)
    answers = torch.split(answered.sum(dim=1), BATCH)
    right_n = hits.sum(dim=1).numpy().astype(np.float32)
    answers_n = answered.sum(dim=1).numpy().astype(np.float32)
    sizes = np.array([len(batch) for batch in torch.split(inputs, BATCH)], dtype=np.float32)
    batch_macro = np.array(macro, dtype=np.float32)
    num_answers = float(answers_n.sum(dtype=np.float64))
    if recipe.levels:
        right_n, answers_n = right_n / answers_n, np.ones_like(answers_n)
    total = float(answers_n.sum(dtype=np.float64))
    batch_loss = torch.tensor(losses, dtype=torch.float64) / torch.tensor([float(n.sum()) for n in answers])
    log_perplexity = float(torch.logsumexp(batch_loss + torch.from_numpy(np.log(sizes / sizes.sum())), 0))
    metrics = Metrics(
        accuracy=float(right_n.sum(dtype=np.float64)) / total,
        macro_accuracy=float((batch_macro * sizes).sum(dtype=np.float64) / sizes.sum(dtype=np.float64)),
        loss=sum(losses) / num_answers,
    )
    if recipe.metric == "macro-accuracy":
        return Evaluation(metrics, batch_macro * sizes, sizes, log_perplexity)
    return Evaluation(metrics, right_n, answers_n, log_perplexity)


def _predict(
    model: Backbone, inputs: Tensor, answered: Tensor, labels_n: Sequence[Tensor], is_half: bool
) -> tuple[tuple[Tensor, ...], list[float], int]:
    """The predictions of every batch and its summed loss, on the host, and the number of classes.

    Nothing is read from the device before all batches are under way.
    """
    predicted: list[Tensor] = []
    losses: list[Tensor] = []
    model.eval()
    for ids, asked, labels in zip(torch.split(inputs, BATCH), torch.split(answered, BATCH), labels_n, strict=True):
        positions = asked.flatten().nonzero().flatten().to(ids.device, non_blocking=True)
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=is_half):
            features = model.features(ids).flatten(0, 1).index_select(0, positions)
            logits = model.logits(features[None])[0].float()
        predicted.append(logits.argmax(dim=-1))
        losses.append(F.cross_entropy(logits, labels.to(ids.device, non_blocking=True), reduction="sum"))
    model.train()
    on_host = torch.split(torch.cat(predicted).cpu(), [len(labels) for labels in labels_n])
    return on_host, torch.stack(losses).tolist(), logits.shape[-1]


def macro_accuracy(predicted: Tensor, labels: Tensor, num_classes: int) -> float:
    """Recall averaged over classes, from predicted and true class ids ``(n,)`` below ``num_classes``.

    Absent classes count 0 if they were predicted, and not at all otherwise.
    """
    hits = torch.bincount(labels[predicted == labels], minlength=num_classes)
    present = torch.bincount(labels, minlength=num_classes)
    counted = (present + torch.bincount(predicted, minlength=num_classes)) > 0
    recall = hits / present.clamp(min=1)
    return float(recall[counted].mean())
