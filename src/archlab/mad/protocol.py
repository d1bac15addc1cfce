"""Protocols: which settings, which grid, how many seeds, which recipe; and their expansion into trials.

A protocol is a YAML file, in the package or the user's own::

    summary: one line
    dim: 128
    layer_defaults: {mh-attention: {heads: 4}}     # knobs of layers that specs leave open
    seeds: [0, 1, 2]
    grid: {learning_rate: [1.0e-3], weight_decay: [0.0, 0.1]}
    recipe: {epochs: 200}                          # fields of archlab.mad.recipe.Recipe
    tasks:
      selective-copying:
        base: {length: 256}                        # knobs of the base setting
        vary: {num_tokens_to_copy: [32, 64]}       # settings with one knob changed from base
        recipe: {epochs: 100}                      # this task's own
        grid: {learning_rate: [2.0e-3]}
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib import resources
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from archlab.errors import ArchlabError, unknown
from archlab.fields import items, mapping, naming, read_yaml
from archlab.layers import layer
from archlab.mad.recipe import Recipe
from archlab.tasks import Task, registry, setting

if TYPE_CHECKING:
    from archlab.architectures import Architecture
    from archlab.mad.trial import Trial

_FIELDS = {"summary", "dim", "layer_defaults", "seeds", "grid", "recipe", "tasks"}
_TASK_FIELDS = {"base", "vary", "recipe", "grid"}
_GRID_FIELDS = ("learning_rate", "weight_decay")


@dataclass(frozen=True)
class Grid:
    """The grid of a task: every learning rate with every weight decay."""

    learning_rate: tuple[float, ...]
    weight_decay: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check the values; each counts once.

        Raises:
            ArchlabError: naming the axis, its value and what is allowed.
        """
        for axis in fields(self):
            values = getattr(self, axis.name)
            if not values:
                raise ArchlabError(f"grid: {axis.name} is empty: give at least one value")
            for value in values:
                is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
                if not is_number or value < 0 or (value == 0 and axis.name == "learning_rate"):
                    allowed = "positive" if axis.name == "learning_rate" else "not negative"
                    raise ArchlabError(f"grid: {axis.name}={value!r}: give finite numbers that are {allowed}")
            object.__setattr__(self, axis.name, tuple(dict.fromkeys(map(float, values))))

    def points(self) -> list[tuple[float, float]]:
        """(learning rate, weight decay) in grid order, see :func:`archlab.mad.selection.grid_order`."""
        return list(product(sorted(self.learning_rate, reverse=True), sorted(self.weight_decay)))


@dataclass(frozen=True)
class TaskPlan:
    """One task of a protocol: its settings, the base first, and how they are trained."""

    settings: tuple[Task, ...]
    recipe: Recipe
    grid: Grid


@dataclass(frozen=True)
class Protocol:
    """Which settings, grid, seeds and recipe. The narrowing methods give a changed copy."""

    name: str
    summary: str
    dim: int
    layer_defaults: Mapping[str, Mapping[str, Any]]
    seeds: tuple[int, ...]
    tasks: Mapping[str, TaskPlan]

    def __post_init__(self) -> None:
        """Check the width, the seeds and that there is a task; each seed counts once.

        Raises:
            ArchlabError: naming the protocol, the field, its value and what is allowed.
        """
        if type(self.dim) is not int or self.dim < 1:
            raise ArchlabError(f"protocol {self.name}: dim={self.dim!r}: give a whole number of at least 1")
        for seed in self.seeds:
            if type(seed) is not int or seed < 0:
                raise ArchlabError(f"protocol {self.name}: seed {seed!r}: give whole numbers that are not negative")
        if not self.seeds:
            raise ArchlabError(f"protocol {self.name}: seeds are empty: give at least one")
        if not self.tasks:
            raise ArchlabError(f"protocol {self.name}: tasks are empty: give at least one of {', '.join(registry())}")
        object.__setattr__(self, "seeds", tuple(dict.fromkeys(self.seeds)))

    @property
    def num_settings(self) -> int:
        """Settings of all tasks."""
        return sum(len(plan.settings) for plan in self.tasks.values())

    @property
    def num_trials(self) -> int:
        """Trials of one architecture."""
        return len(self.seeds) * sum(len(plan.settings) * len(plan.grid.points()) for plan in self.tasks.values())

    def covers(self, other: "Protocol") -> bool:
        """Whether it has every trial of another protocol: the same conditions, and no less of tasks, settings and seeds."""
        return (
            (self.name, self.dim, self.layer_defaults) == (other.name, other.dim, other.layer_defaults)
            and set(self.seeds) >= set(other.seeds)
            and all(
                task in self.tasks
                and (self.tasks[task].recipe, self.tasks[task].grid) == (plan.recipe, plan.grid)
                and set(self.tasks[task].settings) >= set(plan.settings)
                for task, plan in other.tasks.items()
            )
        )

    def trials(self, architectures: Sequence["Architecture"], device: Literal["cpu", "cuda"] = "cpu") -> list["Trial"]:
        """Every training that the protocol asks for, ordered so that architectures can be compared early.

        Raises:
            ArchlabError: an architecture does not fit the width.
        """
        from archlab.mad.trial import Trial

        return [
            Trial(
                architecture=architecture,
                setting=task_setting,
                recipe=plan.recipe,
                dim=self.dim,
                learning_rate=learning_rate,
                weight_decay=weight_decay,
                seed=seed,
                device=device,
            )
            for seed in self.seeds
            for plan in self.tasks.values()
            for task_setting in plan.settings
            for architecture in architectures
            for learning_rate, weight_decay in plan.grid.points()
        ]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, every setting and every field of the recipes written out; :meth:`from_dict` is the inverse."""
        return {
            "name": self.name,
            "summary": self.summary,
            "dim": self.dim,
            "layer_defaults": {name: dict(knobs) for name, knobs in self.layer_defaults.items()},
            "seeds": list(self.seeds),
            "tasks": {
                name: {
                    "settings": [x.knobs() for x in plan.settings],
                    "recipe": plan.recipe.to_dict(),
                    "grid": {"learning_rate": list(plan.grid.learning_rate), "weight_decay": list(plan.grid.weight_decay)},
                }
                for name, plan in self.tasks.items()
            },
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Protocol":
        """The protocol that :meth:`to_dict` wrote down.

        Raises:
            ArchlabError: a task, knob or recipe field is unknown to this archlab.
        """
        tasks = {
            name: TaskPlan(
                settings=tuple(setting(name, **knobs) for knobs in plan["settings"]),
                recipe=Recipe.from_dict(plan["recipe"]),
                grid=Grid(tuple(plan["grid"]["learning_rate"]), tuple(plan["grid"]["weight_decay"])),
            )
            for name, plan in values["tasks"].items()
        }
        return cls(**values | {"seeds": tuple(values["seeds"]), "tasks": tasks})

    def with_tasks(self, names: Sequence[str]) -> "Protocol":
        """Only these tasks, in the protocol's order.

        Raises:
            ArchlabError: the protocol has no such task, or none is left.
        """
        for name in names:
            if name not in self.tasks:
                raise unknown(f"task of protocol {self.name}:", name, self.tasks)
        return replace(self, tasks={name: plan for name, plan in self.tasks.items() if name in names})

    def with_base_settings(self) -> "Protocol":
        """Only the base setting of each task."""
        return self._each(lambda _, plan: replace(plan, settings=plan.settings[:1]))

    def with_grid(self, **values: Sequence[float]) -> "Protocol":
        """Other learning rates (``learning_rate=``) or weight decays (``weight_decay=``) for every task.

        Raises:
            ArchlabError: no such axis, no values, or values that are not allowed.
        """
        chosen = {name: tuple(numbers) for name, numbers in mapping("grid", values, _GRID_FIELDS).items()}
        return self._each(lambda _, plan: replace(plan, grid=replace(plan.grid, **chosen)))

    def with_seeds(self, seeds: Iterable[int]) -> "Protocol":
        """Other seeds.

        Raises:
            ArchlabError: there are none, or one is not a whole number that is not negative.
        """
        return replace(self, seeds=tuple(seeds))

    def with_value(self, key: str, value: Any) -> "Protocol":
        """One value changed: ``dim``, a recipe's field (``recipe.steps``), a knob of every task that has it
        (``length``), or of one task (``compression.length``).

        A knob is changed in every setting; settings that become equal are kept once.

        Raises:
            ArchlabError: nothing of that name, or the settings become impossible.
        """
        owner, _, name = key.rpartition(".")
        if key == "dim":
            return replace(self, dim=value)
        if owner == "recipe":
            return self._each(lambda _, plan: replace(plan, recipe=Recipe.from_dict(plan.recipe.to_dict() | {name: value})))
        if owner and owner not in self.tasks:
            raise unknown(f"task of protocol {self.name}:", owner, [*self.tasks, "recipe"])
        concerned = [task for task, plan in self.tasks.items() if owner in ("", task) and name in plan.settings[0].knobs()]
        if not concerned:
            knobs = {knob for task, plan in self.tasks.items() if owner in ("", task) for knob in plan.settings[0].knobs()}
            raise unknown("knob", name, knobs)

        def changed(task: str, plan: TaskPlan) -> TaskPlan:
            if task not in concerned:
                return plan
            with naming(f"{key}={value} in protocol {self.name}"):
                settings = [setting(task, **x.knobs() | {name: value}) for x in plan.settings]
            return replace(plan, settings=tuple(dict.fromkeys(settings)))

        return self._each(changed)

    def _each(self, change: Callable[[str, TaskPlan], TaskPlan]) -> "Protocol":
        return replace(self, tasks={name: change(name, plan) for name, plan in self.tasks.items()})


def protocol_names() -> list[str]:
    """The protocols of the package."""
    return sorted(path.name.removesuffix(".yaml") for path in _folder().iterdir() if path.name.endswith(".yaml"))


def load_protocol(name: str) -> Protocol:
    """A protocol of the package by name, or a YAML file of the user's by path.

    Raises:
        ArchlabError: no such protocol or file, or a field in it is unknown or wrong.
    """
    return parse_protocol(Path(name).stem, protocol_text(name))


def protocol_text(name: str) -> str:
    """The YAML of a protocol of the package, or of the user's file.

    Raises:
        ArchlabError: no such protocol or file.
    """
    if name.endswith((".yaml", ".yml")):
        try:
            return Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = "not text in UTF-8" if isinstance(error, UnicodeDecodeError) else (error.strerror or "no such file").lower()
            raise ArchlabError(f"protocol {name}: cannot be read: {reason}") from None
    if name not in protocol_names():
        raise unknown("protocol", name, protocol_names())
    text: str = (_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    return text


def parse_protocol(name: str, text: str) -> Protocol:
    """The protocol that a YAML text describes.

    Raises:
        ArchlabError: naming the protocol, the field and what is wrong with it.
    """
    with naming(f"protocol {name}"):
        values = read_yaml(text)
        if not isinstance(values, dict):
            raise ArchlabError(f"must be a mapping of {', '.join(sorted(_FIELDS))}")
        for field in ("summary", "dim", "seeds", "grid", "tasks"):
            if field not in mapping("a protocol", values, _FIELDS):
                raise ArchlabError(f"{field} is missing")
        if not isinstance(values["summary"], str):
            raise ArchlabError(f"summary={values['summary']!r}: give one line of text")
        seeds = items("seeds", values["seeds"])
        tasks = {}
        for task, plan in mapping("tasks", values["tasks"], registry()).items():
            chosen = mapping(f"tasks.{task}", plan, _TASK_FIELDS)
            with naming(f"tasks.{task}"):
                tasks[task] = _task_plan(task, chosen, values)
        layer_defaults = _layer_defaults(values.get("layer_defaults"))
    return Protocol(name, values["summary"], values["dim"], layer_defaults, seeds, tasks)


def _task_plan(task: str, plan: dict[str, Any], shared: dict[str, Any]) -> TaskPlan:
    base = mapping("base", plan.get("base"))
    vary = mapping("vary", plan.get("vary"))
    varied = [{knob: value} for knob, values in vary.items() for value in items(f"vary.{knob}", values)]
    grid = mapping("grid", shared["grid"], _GRID_FIELDS) | mapping("grid", plan.get("grid"), _GRID_FIELDS)
    for axis in _GRID_FIELDS:
        if axis not in grid:
            raise ArchlabError(f"grid: {axis} is missing")
    settings = (setting(task, **base | change) for change in [{}, *varied])
    return TaskPlan(
        settings=tuple(dict.fromkeys(settings)),
        recipe=Recipe.from_dict(mapping("recipe", shared.get("recipe")) | mapping("recipe", plan.get("recipe"))),
        grid=Grid(**{axis: items(f"grid: {axis}", values) for axis, values in grid.items()}),
    )


def _layer_defaults(values: Any) -> dict[str, dict[str, Any]]:
    defaults = {name: mapping(f"layer_defaults.{name}", knobs) for name, knobs in mapping("layer_defaults", values).items()}
    for name, knobs in defaults.items():
        with naming("layer_defaults"):
            layer(name, **knobs)
    return defaults


def _folder() -> Any:
    return resources.files("archlab.mad") / "protocols"
