"""The time that protocols would take on an accelerator by a roofline model of their training steps; nothing is measured."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from archlab.accelerators import EAGER_SECONDS, Accelerator, accelerator
from archlab.architectures import Architecture
from archlab.errors import ArchlabError, in_one_line
from archlab.isolation import undone
from archlab.mad.bench import SHOWN
from archlab.mad.estimate import all_flops
from archlab.mad.learner import Examples, Learner, split_tensors
from archlab.mad.plan import Plan, make_plan
from archlab.mad.programs import Eager
from archlab.mad.protocol import load_protocol, protocol_names
from archlab.mad.recipe import Recipe
from archlab.mad.trial import Trial
from archlab.training.context import computing
from archlab.training.counting import Counts, counting
from archlab.training.optimiser import make_optimizer

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class ModelledStep:
    """A captured training step of one architecture under one protocol, and the time that the protocol takes."""

    protocol: str
    architecture: str
    kernels: int
    waits: int
    """Operations that wait for the device, so that the step cannot be captured."""
    bytes_per_token: float
    flops_per_token: float
    ms: float
    eager_ms: float
    fused_ms: float
    """With everything but products, transforms, attention and the optimiser fused into these."""
    seconds: float
    """All trials from one seed with their evaluations, if nothing stops early, one after the other."""
    fused_seconds: float


@dataclass(frozen=True)
class Model:
    """Steps and times by a roofline model, see docs/gpu.md."""

    accelerator: str
    steps: tuple[ModelledStep, ...]

    def to_frame(self) -> pd.DataFrame:
        """One row for each protocol and architecture."""
        import pandas as pd

        return pd.DataFrame([asdict(step) for step in self.steps])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"model": self.accelerator, "steps": [asdict(step) for step in self.steps]}


def model(
    specs: Sequence[str | Architecture],
    protocols: Sequence[str] | None,
    name: str,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Model:
    """Model the training steps of architectures on one accelerator, such as ``"h100"``, and the time of protocols.

    Raises:
        ArchlabError: something is not known, or a layer from outside archlab computes nothing without data.
    """
    card = accelerator(name)
    plans = [make_plan(load_protocol(protocol), specs) for protocol in protocols or protocol_names()]
    trials = {trial.kind: trial for plan in plans for trial in plan.trials()}
    for done, trial in enumerate(trials.values()):
        on_progress(done, len(trials))
        step_counts(trial)
    on_progress(len(trials), len(trials))
    return Model(name, tuple(step for plan in plans for step in _steps(plan, card)))


def _steps(plan: Plan, card: Accelerator) -> list[ModelledStep]:
    trials = [trial for trial in plan.trials() if trial.seed == plan.protocol.seeds[0]]
    found = []
    for architecture in plan.architectures:
        own = [trial for trial in trials if trial.architecture == architecture]
        shown = next((trial for trial in own if trial.setting.name == SHOWN), own[0])
        counts, tokens = step_counts(shown), shown.recipe.batch_size * shown.setting.input_length
        found.append(
            ModelledStep(
                protocol=plan.protocol.name,
                architecture=architecture.label,
                kernels=counts.num_kernels,
                waits=counts.waits.total(),
                bytes_per_token=counts.bytes / tokens,
                flops_per_token=counts.flops / tokens,
                ms=1e3 * step_seconds(counts, card),
                eager_ms=1e3 * step_seconds(counts, card, least=EAGER_SECONDS),
                fused_ms=1e3 * step_seconds(counts, card, fused=True),
                seconds=sum(_trial_seconds(trial, card) for trial in own),
                fused_seconds=sum(_trial_seconds(trial, card, fused=True) for trial in own),
            )
        )
    return found


def _trial_seconds(trial: Trial, card: Accelerator, **how: Any) -> float:
    """All steps, and the evaluations by their FLOPs."""
    return trial.num_steps * step_seconds(step_counts(trial), card, **how) * all_flops(trial) / trial.flops


def step_seconds(counts: Counts, card: Accelerator, *, fused: bool = False, **least: float) -> float:
    """Sum of the times of all kernels, or only of those that remain when all others are ``fused`` into them."""
    return sum(
        number * card.seconds(kernel.bytes, kernel.flops, is_half=kernel.is_half, **least)
        for kernel, number in counts.kernels.items()
        if kernel.remains or not fused
    )


def step_counts(trial: Trial) -> Counts:
    """Kernels, bytes, FLOPs and waits of a training step of the trial on a GPU, the optimiser's update included.

    By PyTorch's operations one by one, whatever the recipe says of kernels and compiling.
    """
    setting, recipe = trial.setting, trial.recipe
    batch = min(recipe.batch_size, setting.num_train_examples)
    labels = Examples.of(*split_tensors(setting, "train", batch, 0, "cpu", recipe.levels)).labels
    built: dict[str, Any] = {"vocab_size": setting.vocab_size, "dim": trial.dim, "backbone": setting.backbone}
    built |= {"norm": recipe.norm, "max_length": setting.length}
    reduced = Recipe(precision=recipe.precision, grad_clip=recipe.grad_clip)
    return _counts(trial.architecture, tuple(built.items()), (batch, setting.input_length), labels.shape[1], reduced)


@functools.cache
@undone()
def _counts(
    architecture: Architecture, built: tuple[tuple[str, Any], ...], shape: tuple[int, int], answers: int, recipe: Recipe
) -> Counts:
    try:
        with computing("torch", recipe.precision, "cpu"), counting() as (_, counts):
            model = architecture.build(**dict(built))
            optimizer = make_optimizer(model, learning_rate=1e-3, weight_decay=0.1, betas=(recipe.beta1, recipe.beta2))
            positions, labels = (torch.zeros(shape[0], answers, dtype=torch.int64) for _ in range(2))
            examples = Examples(torch.zeros(shape, dtype=torch.int64), positions, labels)
            for parameter in model.parameters():
                parameter.grad = torch.empty_like(parameter)
            optimizer.step()  # makes the moments
            optimizer.zero_grad()
            counts.clear()
            Eager([Learner(model, optimizer, examples, recipe)]).step([torch.empty(shape[0], dtype=torch.int64)])
    except ArchlabError:
        raise
    except Exception as error:
        raise ArchlabError(f"{architecture.label}: its step cannot be counted without data: {in_one_line(error)}") from error
    return counts
