"""Trains trials, from their seeds to their results."""

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from archlab.architectures.backbones import Backbone, reinit_as_reference
from archlab.jobs.executor import Thresholds
from archlab.layers.ops.kernels import fused
from archlab.machine import Device
from archlab.mad.evaluate import BATCH, Evaluation, evaluate
from archlab.mad.learner import Examples, Learner, split_tensors
from archlab.mad.programs import Program, choose_program
from archlab.mad.trial import CurvePoint, Metrics, Progress, Trial, TrialResult, alike
from archlab.tasks import IGNORE, Task
from archlab.tasks.contract import Split
from archlab.training.context import computing, initialising
from archlab.training.optimiser import make_optimizer, set_learning_rate
from archlab.training.steps import REPORT_SECONDS, diverged_step

LEARNING = 0.9
"""A loss that is below this fraction of that of guessing has left the plateau on which many trainings begin."""
_LOSSES_READ_EVERY = 50  # steps; reading a loss waits for the device


def train_together(
    trials: Sequence[Trial], on_progress: Callable[[int, Progress], None], thresholds: Sequence[Thresholds]
) -> Iterator[tuple[int, TrialResult]]:
    """Train and evaluate trials that are :func:`alike` step by step, each as it would be alone but for rounding.

    One trial gives the same bits on the same kind of CPU. On a GPU every step is a captured CUDA graph where the layers allow
    it; several trials are one stacked program or run on streams of their own, whichever a few steps show to be faster. A loss
    that is NaN or infinite ends a trial as ``diverged``; its result then holds chance.
    ``on_progress`` is called with a trial's index, after every evaluation and about once a second. Yields each trial's index and
    result as soon as it ends; the others go on.
    """
    if len({alike(trial) for trial in trials}) > 1:
        raise ValueError("only trials that are alike can be trained together")
    first, recipe = trials[0], trials[0].recipe
    evaluate_at = recipe.evaluation_steps(first.setting.num_train_examples)
    with computing(recipe.kernels, recipe.precision, first.device):
        active = {
            index: _Training(trial, pruning, partial(on_progress, index), len(trials))
            for index, (trial, pruning) in enumerate(zip(trials, thresholds, strict=True))
        }
        program = _named(choose_program([one.learner for one in active.values()]), active.values())
        losses = torch.zeros(len(active), _LOSSES_READ_EVERY, device=first.device)
        unread = 0
        clock = reported = time.perf_counter()  # until when training is timed, and when progress was reported
        for step in range(1, first.num_steps + 1):
            for one in active.values():
                rate = recipe.rate(step, one.num_steps)
                set_learning_rate(one.learner.optimizer, one.trial.learning_rate * rate)
            losses[: len(active), unread] = program.step([one.next_batch() for one in active.values()])
            unread += 1
            is_evaluated = step in evaluate_at
            if unread == _LOSSES_READ_EVERY or is_evaluated:
                read = losses[: len(active), :unread].tolist()
                unread = 0
                _count_time(active.values(), clock)
                results = {
                    index: one.judge(step, own, is_evaluated) for (index, one), own in zip(active.items(), read, strict=True)
                }
                ended = {index: result for index, result in results.items() if result is not None}
                kept = [place for place, index in enumerate(active) if index not in ended]
                active = {index: one for index, one in active.items() if index not in ended}
                yield from ended.items()
                if not active:
                    return
                if ended:
                    program = _named(program.keep(kept), active.values())
                clock = time.perf_counter()
                reported = clock if is_evaluated else reported
            elif time.perf_counter() - reported > REPORT_SECONDS:
                clock = reported = _count_time(active.values(), clock)
                for one in active.values():
                    one.report(step)


class _Training:
    """One trial in training: its model, and what is known of it so far."""

    def __init__(self, trial: Trial, thresholds: Thresholds, on_progress: Callable[[Progress], None], together: int) -> None:
        self.trial, self.recipe, self.thresholds, self.on_progress = trial, trial.recipe, thresholds, on_progress
        self.together = together
        self.started, self.cpu_started = time.perf_counter(), time.process_time()
        self.learner = make_learner(trial, Examples.of(*self.split("train")))
        self.model = self.learner.model
        self.order = batches(len(self.learner.examples.inputs), self.recipe.batch_size, trial.seed, trial.device)
        self.program = ""
        self.train_losses: list[float] = []
        self.curve: list[CurvePoint] = []
        self.num_steps = trial.num_steps
        self.best: tuple[float, int, dict[str, Tensor]] | None = None
        self.accuracy: float | None = None
        self.training_seconds = 0.0
        self.examples = 0

    def next_batch(self) -> Tensor:
        batch = next(self.order)
        self.examples += len(batch)
        return batch

    def split(self, split: Split) -> tuple[Tensor, Tensor]:
        n = self.trial.setting.num_train_examples if split == "train" else self.recipe.num_evaluation
        return split_tensors(self.trial.setting, split, n, self.trial.seed, self.trial.device, self.recipe.levels)

    def evaluate(self, split: Split) -> Evaluation:
        return evaluate(self.model, *self.split(split), self.recipe)

    @property
    def speed(self) -> float:
        return self.examples / max(self.training_seconds, 1e-9)

    def report(self, step: int) -> None:
        self.on_progress(Progress(step, self.num_steps, self.speed, self.accuracy))

    def judge(self, step: int, losses: list[float], is_evaluated: bool) -> TrialResult | None:
        """Take in the losses of the steps up to ``step``, and evaluate the model there if asked for; a result if it ends."""
        diverged = diverged_step(step, losses)
        if diverged is not None:
            return self.diverged(diverged)
        self.train_losses += losses
        if not is_evaluated:
            return None
        found = self.evaluate(self.recipe.select_on)
        loss = found.metrics.loss
        if not math.isfinite(loss):
            return self.diverged(step)
        self.accuracy = found.score
        self.curve.append(CurvePoint(step, float(np.mean(self.train_losses)), found.metrics))
        self.train_losses = []
        if self.recipe.checkpoint == "best" and (self.best is None or found.log_perplexity < self.best[0]):
            self.best = (found.log_perplexity, step, deepcopy(self.model.state_dict()))
        self.report(step)
        if found.score >= self.recipe.stop_accuracy:
            return self.finish("finished", step, step)
        if loss > self.thresholds.get(step, math.inf):
            return self.finish("dropped", step, None)
        if step == self.num_steps:
            return self.finish("finished", step, None)
        if self.num_steps == self.trial.num_steps and self.is_flat(step):
            evaluated = self.recipe.evaluation_steps(self.trial.setting.num_train_examples)
            self.num_steps = min(one for one in evaluated if one >= min(step / (1 - self.recipe.decay), self.num_steps))
        return None

    def is_flat(self, step: int) -> bool:
        """Whether the recipe's ``flat`` asks for the decay of the learning rate to begin."""
        if not self.recipe.flat or step < self.trial.num_steps / 8:
            return False
        before = min((point.metrics.loss for point in self.curve if point.step <= step // 2), default=math.inf)
        lowest = min(point.metrics.loss for point in self.curve)
        has_begun = lowest < LEARNING * -math.log(self.trial.setting.chance)
        return has_begun and before - lowest < self.recipe.flat

    def finish(self, status: Literal["finished", "dropped"], step: int, solved: int | None) -> TrialResult:
        last = self.evaluate("test")
        selected, selected_step = last, step
        if self.best is not None and self.best[1] != step:
            selected_step = self.best[1]
            self.model.load_state_dict(self.best[2])
            selected = self.evaluate("test")
        if not math.isfinite(selected.metrics.loss + last.metrics.loss):
            return self.diverged(step)
        return self.result(
            status=status,
            steps=step,
            solved_step=solved,
            selected_step=selected_step,
            selected=next(point.metrics for point in self.curve if point.step == selected_step),
            test=selected.metrics,
            test_last=last.metrics,
            numerators=selected.numerators,
            denominators=selected.denominators,
            by_length=tuple((one.length, self.score_at(one)) for one in other_lengths(self.trial)),
        )

    def score_at(self, setting: Task) -> float:
        """The score on the test split of the same task at another length."""
        split = split_tensors(setting, "test", self.recipe.num_evaluation, self.trial.seed, self.trial.device)
        return evaluate(self.model, *split, self.recipe).score

    def diverged(self, step: int) -> TrialResult:
        """Chance accuracy, and the loss of a uniform guess over the vocabulary."""
        chance = self.trial.setting.chance
        worth = Metrics(accuracy=chance, macro_accuracy=chance, loss=math.log(self.trial.setting.vocab_size))
        if self.recipe.metric == "macro-accuracy":
            sizes = [min(BATCH, self.recipe.num_evaluation - i) for i in range(0, self.recipe.num_evaluation, BATCH)]
            denominators = np.array(sizes, dtype=np.float32)
        else:
            denominators = (self.split("test")[1] != IGNORE).sum(dim=1).cpu().numpy().astype(np.float32)
        return self.result(
            status="diverged",
            steps=step,
            solved_step=None,
            selected_step=step,
            selected=worth,
            test=worth,
            test_last=worth,
            numerators=denominators * np.float32(chance),
            denominators=denominators,
        )

    def result(self, **values: Any) -> TrialResult:
        return TrialResult(
            **values,
            curve=tuple(self.curve),
            examples_per_second=self.speed,
            wall_seconds=(time.perf_counter() - self.started) / self.together,
            cpu_seconds=(time.process_time() - self.cpu_started) / self.together,
            program=f"{self.program}, {fused()}" if fused() else self.program,
        )


def _named(program: Program, trainings: Collection[_Training]) -> Program:
    """The program, known to the trainings by its description."""
    for one in trainings:
        one.program = program.description
    return program


def _count_time(trainings: Collection[_Training], since: float) -> float:
    """Split the time since then evenly among trials trained together; returns the time now."""
    now = time.perf_counter()
    for one in trainings:
        one.training_seconds += (now - since) / len(trainings)
    return now


def build_model(trial: Trial) -> Backbone:
    """The trial's model, initialised from its seed, on its device; torch's global generator is left as it was."""
    with initialising(trial.seed):
        model = trial.architecture.build(
            vocab_size=trial.setting.vocab_size,
            max_length=max(one.length for one in (trial.setting, *other_lengths(trial))),
            dim=trial.dim,
            backbone=trial.setting.backbone,
            norm=trial.recipe.norm,
            embedding_std=trial.recipe.embedding_std,
        )
        if trial.recipe.reference_init:
            reinit_as_reference(model)
    return model.to(trial.device)


def other_lengths(trial: Trial) -> list[Task]:
    """The trial's setting at the recipe's ``test_lengths``; none for a task that cannot be tested at another length."""
    setting = trial.setting
    return [replace(setting, length=length) for length in trial.recipe.test_lengths] if setting.any_length else []


def make_learner(trial: Trial, examples: Examples) -> Learner:
    """The trial's model at its start with its optimiser, and what it will learn from."""
    model, recipe = build_model(trial), trial.recipe
    optimizer = make_optimizer(
        model,
        learning_rate=trial.learning_rate,
        weight_decay=trial.weight_decay,
        betas=(recipe.beta1, recipe.beta2),
        decay_all=recipe.decay_all,
        captured=trial.device == "cuda",
    )
    return Learner(model, optimizer, examples, recipe)


def batches(num_examples: int, batch_size: int, seed: int, device: Device = "cpu") -> Iterator[Tensor]:
    """Indices of one batch after another, without end: each epoch a new permutation, its last batch may be smaller."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 2])))
    while True:
        yield from torch.split(torch.from_numpy(rng.permutation(num_examples)).to(device, non_blocking=True), batch_size)
