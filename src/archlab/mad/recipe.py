"""The recipe of a trial: optimiser, schedule, budget, stopping, selection."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from archlab.errors import ArchlabError
from archlab.fields import Count, Natural, NonNegative, at_least, between, check_fields
from archlab.tasks import Task
from archlab.training.steps import evenly_spaced, learning_rate

Rows = TypeVar("Rows", range, NDArray[np.float32])


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training recipe. The defaults are the paper's (arXiv 2403.17844, sec. 3 and App. B).

    The learning rate and weight decay are not here: they are the grid that a protocol spans.
    """

    steps: Natural = 0
    """Optimiser steps; 0 means that ``epochs`` decides."""
    epochs: Count = 200
    """Passes over the training examples when ``steps`` is 0."""
    batch_size: Count = 128
    schedule: Literal["cosine", "constant", "wsd"] = "cosine"
    """Course of the learning rate after warm-up; cosine and wsd end at ``final_lr`` of the peak."""
    warmup: Annotated[float, between(0, 0.999)] = 0.0
    """Fraction of the steps with linear warm-up, in [0, 1)."""
    decay: Annotated[float, between(0, 1)] = 0.2
    """Fraction of the steps over which ``wsd`` decays linearly at the end."""
    final_lr: Annotated[float, between(0, 1)] = 0.0
    """Learning rate of the last step, as a fraction of the peak."""
    beta1: Annotated[float, between(0, 0.9999)] = 0.9
    beta2: Annotated[float, between(0, 0.99999)] = 0.98
    decay_all: bool = False
    """Weight decay on every parameter, as the reference code has it; otherwise on matrices only, and never
    on embeddings or on parameters that a layer exempts."""
    grad_clip: NonNegative = 0.0
    """Largest gradient norm; 0 does not clip."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 is autocast, in training and evaluation: parameters, optimiser and sensitive operations stay in fp32."""
    compiled: bool = False
    """Compile forward and backward pass with :func:`torch.compile` (on a CPU that takes g++). Pays for its minute or so in
    long trainings only, see docs/speed.md; trainings that are stacked are not compiled."""
    kernels: Literal["torch", "fla"] = "torch"
    """Kernels for the layers' recurrences: PyTorch's operations, or on a GPU, where there are such, those of
    flash-linear-attention (:mod:`archlab.layers.ops.kernels`). These multiply in TF32, with ``precision="bf16"`` in bfloat16."""
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    embedding_std: Annotated[float, between(1e-6, 100)] = 0.02
    """Standard deviation of the token embedding's initialisation. At 0.02 the first layers' outputs drown the tokens'
    identity in the residual stream, and recall takes several times as many steps to be learned as at 1."""
    reference_init: bool = False
    """Initialise as the reference code does: the biases of linear layers at 0, and in the auto-encoder every linear layer
    anew, which undoes the layers' own initialisation (Mamba's step sizes, Hyena's filters)."""
    evaluations: Natural = 20
    """Evenly spaced evaluations on the selection split, the last after the last step; 0: one an epoch."""
    num_evaluation: Count = 1280
    """Sequences in the validation split and in the test split, each."""
    stop_accuracy: Annotated[float, at_least(0.001)] = 0.999
    """Training stops once the selection split's score reaches this; above 1 never stops."""
    checkpoint: Literal["last", "best"] = "last"
    """Weights that are scored: those of the last step, or those with the lowest perplexity on the selection split, averaged over
    batches of 128 sequences as in the reference code."""
    select_on: Literal["validation", "test"] = "validation"
    """Split that stops the training, chooses the checkpoint and the best grid point. The reference code uses test."""
    metric: Literal["accuracy", "macro-accuracy"] = "accuracy"
    """The score: token accuracy over all answers, or the reference code's: macro accuracy over classes per batch
    of 128 sequences, averaged over batches."""

    flat: NonNegative = 0.0
    """With the schedule wsd: the decay begins early, once the lowest loss on the selection split has fallen by less than this, in
    nats, over the last half of the steps so far, which are at least an eighth of all; not while it is above nine tenths of that
    of guessing, for many trainings begin with a plateau. 0: never early."""
    levels: tuple[Count, ...] = ()
    """Values of the task's level knob, such as the number of keys. Each sequence is of one of these levels, as many of each, and
    the test tells them apart; the score is the mean over the levels. Empty: the setting as it is."""
    test_lengths: tuple[Count, ...] = ()
    """Lengths at which the final weights are tested too, beside that of the training: longer ones show what a model makes of
    sequences beyond those that it has seen. Tasks that pose nothing new at another length leave them out."""

    def __post_init__(self) -> None:
        """Check every field; refusals name field, value and what is allowed."""
        check_fields(self, "recipe")
        if self.flat and self.schedule != "wsd":
            raise ArchlabError(f"recipe: flat={self.flat} begins the decay of wsd early: the schedule is {self.schedule}")

    def num_steps(self, num_train_examples: int) -> int:
        """Optimiser steps for a training set of this size; the last batch of an epoch may be smaller."""
        return self.steps or self.epochs * self.steps_per_epoch(num_train_examples)

    def steps_per_epoch(self, num_train_examples: int) -> int:
        """Batches in one pass over the training examples."""
        return -(-num_train_examples // self.batch_size)

    def num_examples(self, num_train_examples: int) -> int:
        """Sequences that all steps together train on, those of earlier epochs counted again."""
        epochs, rest = divmod(self.num_steps(num_train_examples), self.steps_per_epoch(num_train_examples))
        return epochs * num_train_examples + rest * self.batch_size

    def rate(self, step: int, num_steps: int) -> float:
        """Learning rate of a step (from 1) as a fraction of the peak."""
        return learning_rate(step, num_steps, self.schedule, warmup=self.warmup, final=self.final_lr, decay=self.decay)

    def evaluation_steps(self, num_train_examples: int) -> frozenset[int]:
        """Steps after which the selection split is evaluated: evenly spaced or one an epoch, and always the last."""
        num_steps, per_epoch = self.num_steps(num_train_examples), self.steps_per_epoch(num_train_examples)
        if self.evaluations:
            return evenly_spaced(self.evaluations, num_steps)
        return frozenset(range(per_epoch, num_steps + 1, per_epoch)) | {num_steps}


def at_levels(setting: Task, levels: tuple[int, ...]) -> list[Task]:
    """The setting at each of a recipe's ``levels``, without levels as it is; refuses a task without them, and impossible ones."""
    if levels and not setting.level_knob:
        raise ArchlabError(f"recipe: levels={list(levels)}: {setting.name} has no levels: leave them out")
    return [replace(setting, **{setting.level_knob: level}) for level in levels] or [setting]


def by_level(levels: tuple[int, ...], sequences: Rows) -> list[Rows]:
    """The part of a split's sequences that are drawn from each of a recipe's ``levels``, as many of each; without levels all."""
    bounds = [len(sequences) * i // max(len(levels), 1) for i in range(max(len(levels), 1) + 1)]
    return [sequences[first:end] for first, end in pairwise(bounds)]
