"""A trial and its result: the values that travel between the protocol, the workers and the store."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import cache, cached_property, lru_cache
from itertools import chain
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from archlab.architectures import Architecture
from archlab.architectures.stored import StoredArchitecture
from archlab.errors import ArchlabError
from archlab.fields import Count, Natural, NonNegative, Positive, check_fields, check_value, read_fields
from archlab.layers.contract import LayerConfig, origin
from archlab.machine import Device
from archlab.mad.recipe import Recipe
from archlab.store.fingerprint import MODELS, Numerics, chosen_kernels, code_fingerprint, job_key
from archlab.store.record import check_numbers
from archlab.tasks import Task
from archlab.tasks.stored import stored_setting

NUMERICS = MODELS | Numerics(
    roots=(
        *(f"archlab.mad.recipe:Recipe.{name}" for name in ("evaluation_steps", "num_steps", "rate", "steps_per_epoch")),
        *(f"archlab.mad.recipe:{name}" for name in ("at_levels", "by_level")),
        "archlab.mad.train:train_together",
        "archlab.mad.trial:Trial.num_steps",
    ),
    modules=(*(f"archlab.mad.{name}" for name in ("evaluate", "learner", "programs", "train")), "archlab.tasks"),
    idle=("archlab.mad.programs:_first_line", "archlab.mad.train:_LOSSES_READ_EVERY", "archlab.tasks.registry"),
)
"""The code that can change the result of a trial, beside its task and layers."""


@dataclass(frozen=True)
class Costs:
    """The costs of an architecture at one setting; None where they are not known."""

    num_params: int | None
    state_size: int | None
    """Scalars carried from token to token."""
    flops: int | None
    """FLOPs of one forward pass over one sequence."""


@dataclass(frozen=True, eq=False)
class Kind:
    """All that trials that can be trained together have in common: they differ in learning rate, weight decay and seed only."""

    architecture: Architecture
    setting: Task
    recipe: Recipe
    dim: int
    device: Device

    @cached_property
    def _hash(self) -> int:
        return hash(self._values)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other or vars(self).get("_equal") is other:
            return True
        if not isinstance(other, Kind) or self._values != other._values:
            return False
        vars(self)["_equal"] = other  # stores are joined with plans: of each kind once for all its trials
        return True

    @property
    def _values(self) -> tuple[Any, ...]:
        return self.architecture, self.setting, self.recipe, self.dim, self.device

    @cached_property
    def key(self) -> str:
        """The :func:`job_key` of every knob of layers, setting and recipe, width and device."""
        kernels = tuple(chosen_kernels().items())
        return _key_of_alike(self.architecture.layers, self.setting, self.recipe, self.dim, self.device, kernels)

    @cached_property
    def metric(self) -> str:
        """The field of :class:`Metrics` that the recipe scores by."""
        return self.recipe.metric.replace("-", "_")

    @property
    def costs(self) -> Costs:
        """The costs of the architecture at the setting and the width; refuses a layer that is not available."""
        shape = _shape(self.setting, self.dim)
        state = self.architecture.state_size(length=self.setting.input_length, dim=self.dim)
        return Costs(self.architecture.num_params(**shape), state, _forward_flops(self.architecture, self.setting, self.dim))

    @cached_property
    def flops(self) -> float:
        """FLOPs of a whole training (3 x forward) without early stopping and evaluation."""
        return self.training_flops(_forward_flops(self.architecture, self.setting, self.dim))

    def training_flops(self, forward: int) -> float:
        """:attr:`flops` where a forward pass over one sequence takes that many."""
        return 3.0 * forward * self.recipe.num_examples(self.setting.num_train_examples)


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """One training run: an architecture on a setting with a recipe, at one grid point, from one seed.

    The seed fixes the data, the initialisation and the order of the batches. Trials of the same setting
    and seed see the same data whatever the architecture, so differences are paired.
    """

    architecture: Architecture
    setting: Task
    recipe: Recipe
    dim: Count
    learning_rate: Positive
    weight_decay: NonNegative
    seed: Natural
    device: Device = "cpu"

    def __post_init__(self) -> None:
        """Check the grid point and the seed, and that the architecture fits the width."""
        check_fields(self)
        if not isinstance(self.architecture, StoredArchitecture):  # which is equal to one that has not been validated
            _validate(self.architecture, self.dim)

    def at(self, learning_rate: float, weight_decay: float, seed: int) -> "Trial":
        """The trial that differs from this one in grid point and seed only; refuses impossible ones.

        Fast: plans and stores have a hundred thousand trials of few kinds, and what a kind has in common is found once.
        """
        other: Trial = object.__new__(type(self))
        learning_rate, weight_decay, seed = _checked(learning_rate, weight_decay, seed)
        kind = self.kind
        vars(other).update(
            architecture=self.architecture, setting=kind.setting, recipe=kind.recipe, dim=kind.dim, learning_rate=learning_rate,
            weight_decay=weight_decay, seed=seed, device=kind.device, kind=kind,
        )  # fmt: skip
        return other

    @cached_property
    def kind(self) -> Kind:
        """All that it has in common with trials at other grid points and from other seeds."""
        return Kind(self.architecture, self.setting, self.recipe, self.dim, self.device)

    @cached_property
    def _hash(self) -> int:
        return hash((self.kind, self.learning_rate, self.weight_decay, self.seed))

    def __hash__(self) -> int:
        return self._hash  # found once: stores are joined with plans of a hundred thousand trials

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Trial):
            return NotImplemented
        mine, yours = (self.learning_rate, self.weight_decay, self.seed), (other.learning_rate, other.weight_decay, other.seed)
        return mine == yours and self.kind == other.kind

    def __str__(self) -> str:
        """Architecture, setting, grid point and seed, for messages."""
        point = f"lr {self.learning_rate:g}, wd {self.weight_decay:g}"
        return f"{self.architecture.label} on {self.setting}, {point}, seed {self.seed}"

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _FIELDS}  # hashes of texts hold in one process only

    @property
    def grid_point(self) -> tuple[float, float]:
        """Learning rate and weight decay."""
        return self.learning_rate, self.weight_decay

    @cached_property
    def key(self) -> str:
        """Hash (32 hexadecimal digits) of grid point and seed, and the key of its kind."""
        return hashlib.sha256(f"{self.kind.key} {self.grid_point} {self.seed}".encode()).hexdigest()[:32]

    @property
    def code(self) -> str:
        """Fingerprint of the code that computes it; refuses a layer or task that was not defined in a file."""
        return _code(self.architecture.layers, self.setting)

    @property
    def num_steps(self) -> int:
        """Optimiser steps if nothing stops the training early."""
        return self.recipe.num_steps(self.setting.num_train_examples)

    @property
    def metric(self) -> str:
        """The field of :class:`Metrics` that its recipe scores by."""
        return self.kind.metric

    @property
    def costs(self) -> Costs:
        """The costs of its architecture at its setting and width; refuses a layer that is not available."""
        return self.kind.costs

    @property
    def flops(self) -> float:
        """FLOPs of the whole training (3 x forward) without early stopping and evaluation."""
        return self.kind.flops

    @property
    def origin(self) -> str:
        """The modules from outside archlab that compute the trial; empty if there are none."""
        task = type(self.setting).__module__
        return " ".join([*origin(self.architecture.layers).split(), *([] if task.startswith("archlab.") else [task])])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; :meth:`from_dict` is the inverse."""
        return {
            "architecture": str(self.architecture),
            "task": self.setting.name,
            "knobs": self.setting.knobs(),
            "recipe": asdict(self.recipe),
            **{name: getattr(self, name) for name in ("dim", "learning_rate", "weight_decay", "seed", "device")},
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any], known: dict[Any, Any] | None = None) -> "Trial":
        """The trial that :meth:`to_dict` wrote down; refuses fields, knobs and values that are unknown to this archlab.

        With layers or a task that are not available, or refuse it by now, it has scores and cannot be trained. ``known`` keeps
        architectures, settings and recipes for the trials that are read next.
        """
        rest, known = dict(values), {} if known is None else known
        try:
            spec, task, knobs, recipe = (rest.pop(name) for name in ("architecture", "task", "knobs", "recipe"))
            dim = rest["dim"]
        except KeyError as missing:
            raise ArchlabError(f"trial: {missing.args[0]} is missing") from None
        parts: tuple[tuple[str, Any, Callable[[], Any]], ...] = (
            ("architecture", (spec, dim), lambda: StoredArchitecture(spec, dim)),
            ("setting", (task, repr(knobs)), lambda: stored_setting(task, knobs)),
            ("recipe", repr(recipe), lambda: read_fields(Recipe, recipe, "recipe")),
        )
        for name, text, read in parts:
            if (name, text) not in known:
                known[name, text] = read()
            rest[name] = known[name, text]
        return cls(**rest) if rest.keys() == _FIELDS else read_fields(cls, rest, "trial")


_FIELDS = {one.name for one in fields(Trial)}
GRID_POINT_AND_SEED = ("learning_rate", "weight_decay", "seed")
"""The fields in which trials of a kind differ."""


@lru_cache(maxsize=1 << 14, typed=True)
def _checked(learning_rate: float, weight_decay: float, seed: int) -> tuple[float, float, int]:
    return (
        check_value("learning_rate", learning_rate, Positive),
        check_value("weight_decay", weight_decay, NonNegative),
        check_value("seed", seed, Natural),
    )


def _shape(setting: Task, dim: int) -> dict[str, Any]:
    return {"length": setting.input_length, "dim": dim, "vocab_size": setting.vocab_size, "backbone": setting.backbone}


@cache
def _forward_flops(architecture: Architecture, setting: Task, dim: int) -> int:
    return architecture.flops(**_shape(setting, dim))


@cache
def _validate(architecture: Architecture, dim: int) -> None:
    architecture.validate(dim)


def _code(layers: tuple[LayerConfig, ...], setting: Task) -> str:
    modules = {module for layer in layers for module in layer.modules()}
    return code_fingerprint(*sorted({*modules, type(setting).__module__}), numerics=NUMERICS)


@cache
def _key_of_alike(
    layers: tuple[LayerConfig, ...], setting: Task, recipe: Recipe, dim: int, device: Device, kernels: tuple[tuple[str, str], ...]
) -> str:
    """The :func:`job_key` of what trials of one grid group have in common, seeds aside; ``kernels`` are the chosen ones."""
    identity = {
        "layers": [layer.identity() for layer in layers],
        "task": setting.name,
        "knobs": setting.identity(),
        "recipe": vars(recipe),
        "dim": dim,
        "device": device,
    }
    return job_key(identity, recipe.kernels, _code(layers, setting))


def alike(trial: Trial) -> Kind:
    """Equal for trials that can be trained together: all but learning rate, weight decay and seed."""
    return trial.kind


@dataclass(frozen=True)
class Progress:
    """A report of a running trial, after every evaluation and about once a second."""

    step: int
    num_steps: int
    examples_per_second: float
    accuracy: float | None
    """Latest score on the selection split, in [0, 1]; None before the first evaluation."""


@dataclass(slots=True, unsafe_hash=True)  # frozen ones take three times as long to make, and stores have many
class Metrics:
    """Quality of the predictions on one split."""

    accuracy: float
    """Token accuracy: right answers over all answers, in [0, 1]."""
    macro_accuracy: float
    """The reference code's accuracy: recall averaged over classes, per batch of 128 sequences, averaged over batches."""
    loss: float
    """Mean cross-entropy over all answers, in nats."""

    @classmethod
    def read(cls, stored: dict[str, Any]) -> "Metrics":
        """The metrics of stored JSON, where numbers that are not finite are words."""
        return cls(float(stored["accuracy"]), float(stored["macro_accuracy"]), float(stored["loss"]))


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One evaluation during training, on the selection split."""

    step: int
    train_loss: float
    """Mean training loss since the previous point, in nats."""
    metrics: Metrics


class Outcome(NamedTuple):
    """The part of a :class:`TrialResult` by which a grid point is chosen and a table filled: without curve and test units."""

    status: Literal["finished", "diverged", "dropped"]
    steps: int
    solved_step: int | None
    selected: Metrics
    test: Metrics
    """On the test split, at the selected step."""
    score: float
    """The recipe's metric on the test split at the selected step, in [0, 1]."""
    wall_seconds: float
    cpu_seconds: float
    program: str


@dataclass(frozen=True)
class Details:
    """The part of a :class:`TrialResult` that an :class:`Outcome` lacks and scores need, of chosen grid points only."""

    curve: list[tuple[int, float]]
    """Step and recipe's metric of every evaluation."""
    by_length: tuple[tuple[int, float], ...]
    numerators: NDArray[Any]
    denominators: NDArray[Any]

    @classmethod
    def of(cls, trial: Trial, result: "TrialResult") -> "Details":
        """The details of a whole result."""
        curve = [(point.step, getattr(point.metrics, trial.metric)) for point in result.curve]
        return cls(curve, result.by_length, result.numerators, result.denominators)


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """The outcome of a trial. A diverged one (its loss became NaN or infinite) scores chance, never nothing; one that
    was dropped fell behind others, and scores what it had reached."""

    status: Literal["finished", "diverged", "dropped"]
    steps: int
    """Steps taken: fewer than planned if solved early, diverged or dropped."""
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
    """Split evenly among trials trained together; so is ``cpu_seconds``."""
    cpu_seconds: float
    program: str = "eager"
    """How its steps ran at the end: eager, captured, stacked or overlapped, why not faster, and by which kernels."""
    by_length: tuple[tuple[int, float], ...] = ()
    """Length and score of the recipe's ``test_lengths``."""
    not_kept: str = ""
    """Why its weights could not be written, if they were to be kept."""

    @property
    def score(self) -> float:
        """The recipe's metric on the test split at the selected step, in [0, 1]."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return float(self.numerators.sum(dtype=np.float64) / self.denominators.sum(dtype=np.float64))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, the two arrays as lists; :meth:`from_dict` is the inverse."""
        return asdict(self) | {name: getattr(self, name).tolist() for name in ("numerators", "denominators")}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrialResult":
        """The result that :meth:`to_dict` wrote down."""
        values = dict(values)
        for name in ("selected", "test", "test_last"):
            values[name] = Metrics(**values[name])
        values["curve"] = tuple(CurvePoint(p["step"], p["train_loss"], Metrics(**p["metrics"])) for p in values["curve"])
        for name in ("numerators", "denominators"):
            values[name] = np.asarray(values[name], dtype=np.float32)
        values["by_length"] = tuple((length, score) for length, score in values.get("by_length", ()))
        result = cls(**values)
        metrics = (result.selected, result.test, result.test_last, *(point.metrics for point in result.curve))
        check_numbers([result.steps, result.solved_step or 0, result.selected_step, result.examples_per_second])
        check_numbers([result.wall_seconds, result.cpu_seconds, *chain.from_iterable(result.by_length)])
        check_numbers(number for one in metrics for number in (one.accuracy, one.macro_accuracy, one.loss))
        check_numbers(number for point in result.curve for number in (point.step, point.train_loss))
        return result


AnyResult = Outcome | TrialResult
