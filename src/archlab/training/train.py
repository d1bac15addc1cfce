"""Trains one trial, from its seed to its result."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archlab.architectures.backbones import Backbone, reinit_as_reference
from archlab.tasks import IGNORE, Split
from archlab.training.data import split_tensors
from archlab.training.evaluate import BATCH, Evaluation, evaluate
from archlab.training.recipe import Recipe
from archlab.training.trial import CurvePoint, Hurdles, Metrics, Progress, Trial, TrialResult

_REPORT_SECONDS = 1.0
_LOSSES_READ_EVERY = 50  # steps; reading a loss waits for the device


def train(trial: Trial, on_progress: Callable[[Progress], None] | None = None, hurdles: Hurdles | None = None) -> TrialResult:
    """Train and evaluate one trial. The same trial gives the same bits on the same kind of CPU.

    A loss that is NaN or infinite ends the training as ``diverged``; the result then holds chance.

    Args:
        trial: what to train.
        on_progress: called after every evaluation and about once a second.
        hurdles: losses that it has to stay below in order to go on.
    """
    with flushed_denormals():
        return _Training(trial, on_progress or (lambda _: None), hurdles or {}).run()


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Round numbers too small for the usual format to 0 on the CPU: long decays underflow, and such numbers are ten times
    slower to compute with."""
    flushed_before = sys.float_info.min / 2 == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed_before)


class _Training:
    def __init__(self, trial: Trial, on_progress: Callable[[Progress], None], hurdles: Hurdles) -> None:
        self.trial, self.recipe, self.on_progress, self.hurdles = trial, trial.recipe, on_progress, hurdles
        self.started, self.cpu_started = time.perf_counter(), time.process_time()
        self.model = build_model(trial)
        self.optimizer = make_optimizer(self.model, self.recipe, trial.learning_rate, trial.weight_decay)
        self.num_steps = trial.num_steps
        self.curve: list[CurvePoint] = []
        self.best: tuple[float, int, dict[str, Tensor]] | None = None
        self.accuracy: float | None = None
        self.training_seconds = 0.0
        self.clock = 0.0  # when the time for training was last counted
        self.examples = 0

    def run(self) -> TrialResult:
        inputs, targets = self._split("train")
        selection = self._split(self.recipe.select_on)
        evaluate_at = evaluation_steps(self.recipe, self.num_steps, self.trial.setting.num_train_examples)
        order = batches(len(inputs), self.recipe.batch_size, self.trial.seed)
        losses = torch.zeros(_LOSSES_READ_EVERY, device=self.trial.device)
        train_losses: list[float] = []
        unread = 0
        solved: int | None = None
        self.clock = reported = time.perf_counter()
        for step in range(1, self.num_steps + 1):
            batch = next(order)
            for group in self.optimizer.param_groups:
                group["lr"] = self.trial.learning_rate * schedule(self.recipe, step, self.num_steps)
            losses[unread] = training_step(self.model, self.optimizer, inputs[batch], targets[batch], self.recipe)
            unread += 1
            self.examples += len(batch)
            if unread == _LOSSES_READ_EVERY or step in evaluate_at:
                read = losses[:unread].tolist()
                bad = next((i for i, loss in enumerate(read) if not math.isfinite(loss)), None)
                if bad is not None:
                    self._count_time()
                    return self._diverged(step - unread + 1 + bad)
                train_losses += read
                unread = 0
            if step in evaluate_at:
                self._count_time()
                found = evaluate(self.model, *selection, self.recipe.metric)
                if not math.isfinite(found.metrics.loss):
                    return self._diverged(step)
                self._remember(step, float(np.mean(train_losses)), found)
                train_losses = []
                self.clock = reported = time.perf_counter()
                self._report(step)
                if found.score >= self.recipe.stop_accuracy:
                    solved = step
                    break
                if found.metrics.loss > self.hurdles.get(step, math.inf):
                    return self._finish(step, None, "dropped")
            elif time.perf_counter() - reported > _REPORT_SECONDS:
                self._count_time()
                reported = self.clock
                self._report(step)
        return self._finish(step, solved, "finished")

    def _count_time(self) -> None:
        now = time.perf_counter()
        self.training_seconds += now - self.clock
        self.clock = now

    def _split(self, split: Split) -> tuple[Tensor, Tensor]:
        n = self.trial.setting.num_train_examples if split == "train" else self.recipe.num_evaluation
        return split_tensors(self.trial.setting, split, n, self.trial.seed, self.trial.device)

    def _remember(self, step: int, train_loss: float, found: Evaluation) -> None:
        self.accuracy = found.score
        self.curve.append(CurvePoint(step, train_loss, found.metrics))
        if self.recipe.checkpoint == "best" and (self.best is None or found.metrics.loss < self.best[0]):
            self.best = (found.metrics.loss, step, deepcopy(self.model.state_dict()))

    def _report(self, step: int) -> None:
        rate = self.examples / max(self.training_seconds, 1e-9)
        self.on_progress(Progress(step, self.num_steps, rate, self.accuracy))

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

    def _costs(self) -> dict[str, float]:
        return {
            "examples_per_second": self.examples / max(self.training_seconds, 1e-9),
            "wall_seconds": time.perf_counter() - self.started,
            "cpu_seconds": time.process_time() - self.cpu_started,
        }


def training_step(model: Backbone, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor, recipe: Recipe) -> Tensor:
    """Forward, loss, backward and update on one batch; the loss, in nats, still on the device.

    Decoder, final norm and unembedding run at the positions that have a target only.
    """
    answered = targets != IGNORE
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        features = model.features(inputs)
        # twice as fast, backward included, as indexing with the mask
        logits = model.logits(features.flatten(0, 1).index_select(0, answered.flatten().nonzero()[:, 0]))
        loss = F.cross_entropy(logits.float(), targets[answered])
    loss.backward()  # type: ignore[no-untyped-call]
    if recipe.grad_clip:
        nn.utils.clip_grad_norm_(model.parameters(), recipe.grad_clip)
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()


def build_model(trial: Trial) -> Backbone:
    """The trial's model, initialised from its seed, on its device; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence([trial.seed, 1]).generate_state(1, np.uint64)[0] >> 1))
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


def make_optimizer(model: nn.Module, recipe: Recipe, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Fused AdamW with the recipe's betas and its choice of what decays."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    decayed: list[nn.Parameter] = []
    exempt: list[nn.Parameter] = []
    for parameter in model.parameters():
        is_matrix = parameter.ndim > 1 and id(parameter) not in embeddings and not getattr(parameter, "_no_weight_decay", False)
        (decayed if recipe.decay_all or is_matrix else exempt).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": exempt, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(recipe.beta1, recipe.beta2), fused=True)


def schedule(recipe: Recipe, step: int, num_steps: int) -> float:
    """The learning rate of a step (from 1) as a share of the peak: linear warm-up, then constant or cosine."""
    warmup = math.floor(recipe.warmup * num_steps)
    if step <= warmup:
        return step / warmup
    if recipe.schedule == "constant":
        return 1.0
    done = (step - warmup - 1) / max(num_steps - warmup - 1, 1)
    return recipe.final_lr + (1 - recipe.final_lr) * 0.5 * (1 + math.cos(math.pi * done))


def evaluation_steps(recipe: Recipe, num_steps: int, num_train_examples: int) -> frozenset[int]:
    """Steps after which the selection split is evaluated: evenly spaced or one an epoch, and always the last."""
    if recipe.evaluations:
        return frozenset(round(num_steps * i / recipe.evaluations) for i in range(1, recipe.evaluations + 1)) - {0}
    per_epoch = recipe.steps_per_epoch(num_train_examples)
    return frozenset(range(per_epoch, num_steps + 1, per_epoch)) | {num_steps}


def batches(num_examples: int, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Indices of one batch after another, without end: each epoch a new permutation, its last batch may be smaller."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 2])))
    while True:
        yield from torch.split(torch.from_numpy(rng.permutation(num_examples)), batch_size)


def chance_metrics(trial: Trial) -> Metrics:
    """What a diverged trial is worth: the task's chance accuracy and the loss of a uniform guess over the vocabulary."""
    chance = trial.setting.chance
    return Metrics(accuracy=chance, macro_accuracy=chance, loss=math.log(trial.setting.vocab_size))
