"""Trains trials, from their seeds to their results."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from archlab.architectures.backbones import Backbone, reinit_as_reference
from archlab.jobs.executor import Thresholds
from archlab.layers.ops.kernels import fused
from archlab.machine import Device
from archlab.mad.data import Examples, split_tensors
from archlab.mad.evaluate import BATCH, Evaluation, evaluate
from archlab.mad.learner import Learner
from archlab.mad.programs import choose_program
from archlab.mad.trial import CurvePoint, Metrics, Progress, Trial, TrialResult, alike
from archlab.tasks import IGNORE
from archlab.tasks.contract import Split
from archlab.training.context import computing, initialising
from archlab.training.optimiser import make_optimizer, set_learning_rate
from archlab.training.steps import REPORT_SECONDS, diverged_step

_LOSSES_READ_EVERY = 50  # steps; reading a loss waits for the device


def train(
    trial: Trial, on_progress: Callable[[Progress], None] | None = None, thresholds: Thresholds | None = None
) -> TrialResult:
    """Train and evaluate one trial. The same trial gives the same bits on the same kind of CPU.

    A loss that is NaN or infinite ends the training as ``diverged``; the result then holds chance.

    Args:
        trial: what to train.
        on_progress: called after every evaluation and about once a second.
        thresholds: pruning thresholds; none by default.
    """
    ((_, result),) = train_together(
        [trial], lambda _, progress: on_progress(progress) if on_progress else None, [thresholds or {}]
    )
    return result


def train_together(
    trials: Sequence[Trial], on_progress: Callable[[int, Progress], None], thresholds: Sequence[Thresholds]
) -> Iterator[tuple[int, TrialResult]]:
    """Train trials that are :func:`alike` step by step, each as :func:`train` would but for rounding.

    On a GPU every step is a captured CUDA graph where the layers allow it; several trials are one stacked program or run
    on streams of their own, whichever a few steps show to be faster.

    Args:
        trials: what to train.
        on_progress: called with the trial's place among ``trials``, after every evaluation and about once a second.
        thresholds: pruning thresholds of each trial.

    Yields:
        Each trial's place and result, as soon as it ends; the others go on.

    Raises:
        ValueError: the trials are not alike.
        ArchlabError: the recipe's kernels cannot run here.
    """
    if len({alike(trial) for trial in trials}) > 1:
        raise ValueError("only trials that are alike can be trained together")
    recipe = trials[0].recipe
    with computing(recipe.kernels, recipe.precision, trials[0].device):
        yield from _Trainings(trials, on_progress, thresholds).run()


class _Trainings:
    """The loop over the steps of trials that are trained together."""

    def __init__(
        self, trials: Sequence[Trial], on_progress: Callable[[int, Progress], None], thresholds: Sequence[Thresholds]
    ) -> None:
        self.trial, self.recipe, self.on_progress = trials[0], trials[0].recipe, on_progress
        self.active = [_Training(place, *one, len(trials)) for place, one in enumerate(zip(trials, thresholds, strict=True))]
        self.num_steps = self.trial.num_steps
        self.clock = 0.0  # when the time for training was last counted

    def run(self) -> Iterator[tuple[int, TrialResult]]:
        evaluate_at = self.recipe.evaluation_steps(self.trial.setting.num_train_examples)
        losses = torch.zeros(len(self.active), _LOSSES_READ_EVERY, device=self.trial.device)
        unread = 0
        self._choose_program()
        self.clock = reported = time.perf_counter()
        for step in range(1, self.num_steps + 1):
            fraction = self.recipe.rate(step, self.num_steps)
            for one in self.active:
                set_learning_rate(one.learner.optimizer, one.trial.learning_rate * fraction)
            batches = [one.next_batch() for one in self.active]
            losses[: len(self.active), unread] = self.program.step(batches)
            unread += 1
            if unread == _LOSSES_READ_EVERY or step in evaluate_at:
                read = losses[: len(self.active), :unread].tolist()
                self._count_time()
                ended = list(self._end(step, read, is_evaluated=step in evaluate_at))
                unread = 0
                self.clock = time.perf_counter()
                if step in evaluate_at:
                    reported = self.clock
                yield from ended
                if not self.active:
                    return
                if ended:
                    self._choose_program()
                    self.clock = time.perf_counter()
            elif time.perf_counter() - reported > REPORT_SECONDS:
                self._count_time()
                reported = self.clock
                for one in self.active:
                    self._report(one, step)

    def _choose_program(self) -> None:
        self.program = choose_program([one.learner for one in self.active])
        for one in self.active:
            one.program = self.program.description

    def _end(self, step: int, losses: list[list[float]], *, is_evaluated: bool) -> Iterator[tuple[int, TrialResult]]:
        """Judge all trainings after a step whose losses have been read; those that end."""
        for one, read in zip(list(self.active), losses, strict=True):
            result = one.take_losses(step, read)
            if result is None and is_evaluated:
                result = one.evaluate(step, partial(self._report, one, step))
            if result is not None:
                self.active.remove(one)
                yield one.place, result

    def _report(self, one: "_Training", step: int) -> None:
        rate = one.examples / max(one.training_seconds, 1e-9)
        self.on_progress(one.place, Progress(step, self.num_steps, rate, one.accuracy))

    def _count_time(self) -> None:
        now = time.perf_counter()
        for one in self.active:
            one.training_seconds += (now - self.clock) / len(self.active)
        self.clock = now


class _Training:
    """One trial in training: its model, and what is known of it so far."""

    def __init__(self, place: int, trial: Trial, thresholds: Thresholds, together: int) -> None:
        self.place, self.trial, self.recipe, self.thresholds, self.together = place, trial, trial.recipe, thresholds, together
        self.started, self.cpu_started = time.perf_counter(), time.process_time()
        self.learner = make_learner(trial, Examples.of(*self._split("train")))
        self.model = self.learner.model
        self.order = batches(len(self.learner.examples.inputs), self.recipe.batch_size, trial.seed, trial.device)
        self.program = ""
        self.train_losses: list[float] = []
        self.curve: list[CurvePoint] = []
        self.best: tuple[float, int, dict[str, Tensor]] | None = None
        self.accuracy: float | None = None
        self.training_seconds = 0.0
        self.examples = 0

    def next_batch(self) -> Tensor:
        batch = next(self.order)
        self.examples += len(batch)
        return batch

    def take_losses(self, step: int, losses: list[float]) -> TrialResult | None:
        """The losses of the last steps, up to ``step``; a result if one is not a number."""
        diverged = diverged_step(step, losses)
        if diverged is not None:
            return self._diverged(diverged)
        self.train_losses += losses
        return None

    def evaluate(self, step: int, report: Callable[[], None]) -> TrialResult | None:
        """Judge the model on the selection split; a result if that, or the number of steps, ends the training."""
        found = evaluate(self.model, *self._split(self.recipe.select_on), self.recipe.metric)
        if not math.isfinite(found.metrics.loss):
            return self._diverged(step)
        self._remember(step, float(np.mean(self.train_losses)), found)
        self.train_losses = []
        report()
        if found.score >= self.recipe.stop_accuracy:
            return self._finish(step, step, "finished")
        if found.metrics.loss > self.thresholds.get(step, math.inf):
            return self._finish(step, None, "dropped")
        return self._finish(step, None, "finished") if step == self.trial.num_steps else None

    def _split(self, split: Split) -> tuple[Tensor, Tensor]:
        n = self.trial.setting.num_train_examples if split == "train" else self.recipe.num_evaluation
        return split_tensors(self.trial.setting, split, n, self.trial.seed, self.trial.device)

    def _remember(self, step: int, train_loss: float, found: Evaluation) -> None:
        self.accuracy = found.score
        self.curve.append(CurvePoint(step, train_loss, found.metrics))
        if self.recipe.checkpoint == "best" and (self.best is None or found.metrics.loss < self.best[0]):
            self.best = (found.metrics.loss, step, deepcopy(self.model.state_dict()))

    def _finish(self, step: int, solved: int | None, status: Literal["finished", "dropped"]) -> TrialResult:
        test = self._split("test")
        last = evaluate(self.model, *test, self.recipe.metric)
        selected, selected_step = last, step
        if self.best is not None and self.best[1] != step:
            selected_step = self.best[1]
            self.model.load_state_dict(self.best[2])
            selected = evaluate(self.model, *test, self.recipe.metric)
        if not math.isfinite(selected.metrics.loss + last.metrics.loss):
            return self._diverged(step)
        return TrialResult(
            status=status,
            steps=step,
            solved_step=solved,
            selected_step=selected_step,
            selected=next(point.metrics for point in self.curve if point.step == selected_step),
            test=selected.metrics,
            test_last=last.metrics,
            curve=tuple(self.curve),
            numerators=selected.numerators,
            denominators=selected.denominators,
            **self._costs(),
        )

    def _diverged(self, step: int) -> TrialResult:
        chance = chance_metrics(self.trial)
        if self.recipe.metric == "macro-accuracy":
            sizes = [min(BATCH, self.recipe.num_evaluation - i) for i in range(0, self.recipe.num_evaluation, BATCH)]
            denominators = np.array(sizes, dtype=np.float32)
        else:
            denominators = (self._split("test")[1] != IGNORE).sum(dim=1).cpu().numpy().astype(np.float32)
        return TrialResult(
            status="diverged",
            steps=step,
            solved_step=None,
            selected_step=step,
            selected=chance,
            test=chance,
            test_last=chance,
            curve=tuple(self.curve),
            numerators=denominators * np.float32(self.trial.setting.chance),
            denominators=denominators,
            **self._costs(),
        )

    def _costs(self) -> dict[str, Any]:
        return {
            "examples_per_second": self.examples / max(self.training_seconds, 1e-9),
            "wall_seconds": (time.perf_counter() - self.started) / self.together,
            "cpu_seconds": (time.process_time() - self.cpu_started) / self.together,
            "program": f"{self.program}, {fused()}" if fused() else self.program,
        }


def build_model(trial: Trial) -> Backbone:
    """The trial's model, initialised from its seed, on its device; torch's global generator is left as it was."""
    with initialising(trial.seed):
        model = trial.architecture.build(
            vocab_size=trial.setting.vocab_size,
            max_length=trial.setting.length,
            dim=trial.dim,
            backbone=trial.setting.backbone,
            norm=trial.recipe.norm,
            embedding_std=trial.recipe.embedding_std,
        )
        if trial.recipe.reference_init:
            reinit_as_reference(model)
    return model.to(trial.device)


def make_learner(trial: Trial, examples: Examples) -> Learner:
    """The trial's model at its start with its optimiser, and what it will learn from."""
    model = build_model(trial)
    recipe = trial.recipe
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


def chance_metrics(trial: Trial) -> Metrics:
    """What a diverged trial is worth: the task's chance accuracy and the loss of a uniform guess over the vocabulary."""
    chance = trial.setting.chance
    return Metrics(accuracy=chance, macro_accuracy=chance, loss=math.log(trial.setting.vocab_size))
