"""Where the processor time of trials goes: data, layers, norms, embeddings, loss, optimiser, evaluation, and the rest."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from archlab.architectures.backbones import AutoEncoder
from archlab.isolation import undone
from archlab.machine import single_thread
from archlab.mad.evaluate import evaluate
from archlab.mad.learner import Examples, Learner, split_tensors
from archlab.mad.programs import Eager
from archlab.mad.train import batches, make_learner
from archlab.mad.trial import Trial
from archlab.training.context import computing

PARTS = ("data", "sequence mixers", "channel mixers", "norms", "embeddings", "loss", "optimiser", "evaluation", "rest")
"""The parts of a trial. Layers, norms, embeddings (with the unembedding) and loss are forward and backward; the rest is what
goes on between them: Python, residual sums, building the model."""
_WARM_UP = 3  # steps
_TIMED = 12  # steps


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The parts of the processor time of trials of one architecture under one protocol, if nothing stops them early."""

    protocol: str
    architecture: str
    cpu_seconds: float
    fractions: dict[str, float]
    """By part, in the order of :data:`PARTS`; they add up to 1."""


def profile_trials(protocol: str, architecture: str, trials: Iterable[Trial]) -> Profile:
    """Time the parts of a few steps and of one evaluation of each trial, on one thread of the CPU, and extend them to all steps.

    Every trial draws its data, as the first of a setting and seed does.
    """
    seconds = dict.fromkeys(PARTS, 0.0)
    with single_thread():
        for trial in trials:
            for part, own in part_seconds(trial).items():
                seconds[part] += own
    total = sum(seconds.values())
    fractions = {part: own / total for part, own in seconds.items()}
    return Profile(protocol=protocol, architecture=architecture, cpu_seconds=total, fractions=fractions)


@undone()
def part_seconds(trial: Trial) -> dict[str, float]:
    """Processor seconds of a whole trial by part, if nothing stops it early."""
    recipe, setting, watch = trial.recipe, trial.setting, Stopwatch()
    with computing(recipe.kernels, recipe.precision, trial.device):
        watch.start("data")
        draw = partial(split_tensors.__wrapped__, setting, seed=trial.seed, device=trial.device, levels=recipe.levels)
        examples = Examples.of(*draw(split="train", num_examples=setting.num_train_examples))
        validation = draw(split="validation", num_examples=recipe.num_evaluation)
        draw(split="test", num_examples=recipe.num_evaluation)
        watch.start("rest")
        learner = make_learner(trial, examples)
        once = watch.read()

        order = batches(len(examples.inputs), recipe.batch_size, trial.seed)
        program = Eager([learner])
        _time(learner, trial, watch)
        for number in range(_WARM_UP + _TIMED):
            if number == _WARM_UP:
                watch.read()
            watch.start("data")
            program.step([next(order)])
        step = watch.read()
        for part in step:
            once[part] += trial.num_steps * step[part] / _TIMED

        watch.start("evaluation")
        evaluate(learner.model, *validation, recipe)
        evaluations = len(recipe.evaluation_steps(setting.num_train_examples)) + 1  # the last on the test split
        once["evaluation"] += evaluations * sum(watch.read().values())
    return once


class Stopwatch:
    """Counts processor time for one part at a time."""

    def __init__(self) -> None:
        self.part = "rest"
        self.since = time.process_time()
        self.seconds = dict.fromkeys(PARTS, 0.0)

    def start(self, part: str) -> None:
        """Count for this part from now on."""
        now = time.process_time()
        self.seconds[self.part] += now - self.since
        self.part, self.since = part, now

    def stop(self, part: str) -> None:
        """Count for the rest, unless another part has started since."""
        if self.part == part:
            self.start("rest")

    def read(self) -> dict[str, float]:
        """The seconds since they were read last; what is running now goes on."""
        self.start(self.part)
        found, self.seconds = self.seconds, dict.fromkeys(PARTS, 0.0)
        return found


def _time(learner: Learner, trial: Trial, watch: Stopwatch) -> None:
    """Have the learner's steps start and stop the parts."""
    model = learner.model
    for config, residual in zip(trial.architecture.layers, model.layers, strict=True):
        _time_module(residual.get_submodule("layer"), f"{config.kind} mixers", watch)
        _time_module(residual.get_submodule("norm"), "norms", watch)
    _time_module(model.norm, "norms", watch)
    for module in (model.embedding, model.unembedding, *([model.decoder] if isinstance(model, AutoEncoder) else [])):
        _time_module(module, "embeddings", watch)
    # between the logits and their gradients there is the loss only
    model.unembedding.register_forward_hook(lambda *_: watch.start("loss"))
    update = learner.update

    def loss(*examples: Tensor) -> Tensor:
        watch.start("rest")
        found: Tensor = learner.objective(*examples)
        return found

    def timed_update() -> None:
        watch.start("optimiser")
        update()
        watch.start("rest")

    learner.loss, learner.update = loss, timed_update  # type: ignore[method-assign]


def _time_module(module: nn.Module, part: str, watch: Stopwatch) -> None:
    """Count a module's forward and backward pass for a part. The backward pass of a chain of modules goes through one after the
    other: from the gradients of a module's outputs to those of its inputs all time is its own."""

    def enter(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        _on_gradient(inputs[0], lambda: watch.stop(part))
        watch.start(part)

    def leave(_: nn.Module, inputs: object, output: Tensor) -> None:
        watch.stop(part)
        _on_gradient(output, lambda: watch.start(part))

    module.register_forward_pre_hook(enter)
    module.register_forward_hook(leave)


def _on_gradient(x: Tensor, call: Callable[[], None]) -> None:
    if x.requires_grad:
        x.register_hook(lambda _: call())  # type: ignore[no-untyped-call]
