"""A trial and its result: the values that travel between the protocol, the workers and the store."""

import ast
import hashlib
import importlib.util
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from archlab.architectures import Architecture, architecture
from archlab.errors import ArchlabError
from archlab.tasks import Task, setting
from archlab.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training run: an architecture on a setting with a recipe, at one grid point, from one seed.

    The seed fixes the data, the initialisation and the order of the batches. Trials of the same setting
    and seed see the same data whatever the architecture, so differences are paired.
    """

    architecture: Architecture
    setting: Task
    recipe: Recipe
    dim: int
    learning_rate: float
    weight_decay: float
    seed: int
    device: Literal["cpu", "cuda"] = "cpu"

    def __post_init__(self) -> None:
        """Check that the architecture fits the width and the grid point makes sense.

        Raises:
            ArchlabError: naming what does not fit.
        """
        self.architecture.validate(self.dim)
        if not (0 < self.learning_rate < math.inf) or not (0 <= self.weight_decay < math.inf):
            raise ArchlabError(f"learning rate {self.learning_rate} and weight decay {self.weight_decay}: give positive numbers")
        if self.seed < 0:
            raise ArchlabError(f"seed={self.seed}: must not be negative")

    @cached_property
    def key(self) -> str:
        """Hash (32 hexadecimal digits) of everything that can change the trial's number, and of nothing else.

        That is: every knob of every layer, of the setting and of the recipe, width, grid point, seed, kind of
        device, torch's version up to the minor, and the code that computes: the syntax trees, docstrings left
        out, of the modules that the layers, the task and the training loop stand on.
        """
        import torch

        identity = self.to_dict() | {
            "layers": [(layer.name, layer.knobs()) for layer in self.architecture.layers],
            "torch": torch.__version__.split("+")[0].rsplit(".", 1)[0],
            "code": code_fingerprint(
                "archlab.training.train", type(self.setting).__module__, *(type(x).__module__ for x in self.architecture.layers)
            ),
        }
        del identity["architecture"]  # the text leaves defaults out; the layers above do not
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]

    @property
    def num_steps(self) -> int:
        """Optimiser steps if nothing stops the training early."""
        return self.recipe.num_steps(self.setting.num_train_examples)

    @property
    def flops(self) -> float:
        """FLOPs of the whole training (3 x forward) without early stopping and evaluation."""
        per_sequence = self.architecture.flops(
            length=self.setting.input_length, vocab_size=self.setting.vocab_size, dim=self.dim, backbone=self.setting.backbone
        )
        examples = min(self.recipe.batch_size, self.setting.num_train_examples) * self.num_steps
        return 3.0 * per_sequence * examples

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; :meth:`from_dict` is the inverse."""
        return {
            "architecture": str(self.architecture),
            "task": self.setting.name,
            "knobs": self.setting.knobs(),
            "recipe": self.recipe.to_dict(),
            "dim": self.dim,
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
            "seed": self.seed,
            "device": self.device,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Trial":
        """The trial that :meth:`to_dict` wrote down."""
        values = dict(values)
        return cls(
            architecture=architecture(values.pop("architecture")),
            setting=setting(values.pop("task"), **values.pop("knobs")),
            recipe=Recipe.from_dict(values.pop("recipe")),
            **values,
        )


@dataclass(frozen=True)
class Progress:
    """What a running trial reports about itself, after every evaluation and every few seconds."""

    step: int
    num_steps: int
    examples_per_second: float
    accuracy: float | None
    """Latest score on the selection split, in [0, 1]; None before the first evaluation."""


@dataclass(frozen=True)
class Metrics:
    """How good the predictions on one split are."""

    accuracy: float
    """Token accuracy: right answers over all answers, in [0, 1]."""
    macro_accuracy: float
    """The reference code's accuracy: recall averaged over classes, per batch of 128 sequences, averaged over batches."""
    loss: float
    """Mean cross-entropy over all answers, in nats."""

    @property
    def perplexity(self) -> float:
        """Exponential of the loss."""
        return math.exp(min(self.loss, 700.0))


@dataclass(frozen=True)
class CurvePoint:
    """One evaluation during training, on the selection split."""

    step: int
    train_loss: float
    """Mean training loss since the previous point, in nats."""
    metrics: Metrics


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """What a trial gave. A diverged trial (its loss became NaN or infinite) scores chance, never nothing."""

    status: Literal["finished", "diverged"]
    steps: int
    """Steps taken: fewer than planned if solved early or diverged."""
    solved_step: int | None
    """First evaluated step whose score reached the recipe's ``stop_accuracy``."""
    selected_step: int
    """Step whose weights are scored."""
    selected: Metrics
    """On the selection split, at the selected step; chooses the grid point."""
    test: Metrics
    """On the test split, at the selected step."""
    test_last: Metrics
    """On the test split, after the last step."""
    curve: tuple[CurvePoint, ...]
    numerators: NDArray[np.float32]
    """With ``denominators``, the score by test unit: score = numerators.sum() / denominators.sum(). A unit is a
    test sequence (right answers over answers), or a batch of 128 for macro accuracy. Intervals resample units."""
    denominators: NDArray[np.float32]
    examples_per_second: float
    wall_seconds: float
    cpu_seconds: float

    @property
    def score(self) -> float:
        """The recipe's metric on the test split at the selected step, in [0, 1]."""
        return float(self.numerators.sum(dtype=np.float64) / self.denominators.sum(dtype=np.float64))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, the two arrays as lists; :meth:`from_dict` is the inverse."""
        values = asdict(self)
        values["curve"] = [asdict(point) for point in self.curve]
        values["numerators"], values["denominators"] = self.numerators.tolist(), self.denominators.tolist()
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrialResult":
        """The result that :meth:`to_dict` wrote down."""
        values = dict(values)
        for name in ("selected", "test", "test_last"):
            values[name] = Metrics(**values[name])
        values["curve"] = tuple(CurvePoint(p["step"], p["train_loss"], Metrics(**p["metrics"])) for p in values["curve"])
        for name in ("numerators", "denominators"):
            values[name] = np.asarray(values[name], dtype=np.float32)
        return cls(**values)


def code_fingerprint(*modules: str) -> str:
    """Hash of the code that the given modules run: their own and that of the archlab modules they import.

    Formatting, comments and docstrings do not count.
    """
    seen: set[str] = set()
    pending = [module for module in modules if module]
    while pending:
        module = pending.pop()
        if module not in seen:
            seen.add(module)
            pending.extend(_digest_and_imports(module)[1])
    return hashlib.sha256("".join(_digest_and_imports(module)[0] for module in sorted(seen)).encode()).hexdigest()[:16]


@cache
def _digest_and_imports(module: str) -> tuple[str, tuple[str, ...]]:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return "", ()
    with open(spec.origin, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    imports = tuple(dict.fromkeys(_archlab_imports(tree)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imports


# What only speaks to people, or only finds the modules: no number depends on it.
_NOT_NUMERICS = {"archlab.errors", "archlab.training.trial", "archlab.architectures.spec", "archlab.architectures.catalogue"}


def _archlab_imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("archlab"):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("archlab")]
        else:
            continue
        yield from (name for name in names if name not in _NOT_NUMERICS and _is_module(name))


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # a class or function of a module, not a submodule
        return False
