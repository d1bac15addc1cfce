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
    suites:                                        # further groups of tasks, run by --suite
      state: {parity: {base: {length: 40}}}
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from archlab.errors import ArchlabError, unknown
from archlab.fields import (
    Count,
    NonNegative,
    Positive,
    Seeds,
    check_fields,
    check_value,
    naming,
    no_longer_than,
    not_empty,
    read_fields,
    read_yaml,
)
from archlab.files import is_yaml, read_text
from archlab.layers import layer
from archlab.layers import registry as layers
from archlab.mad.recipe import Recipe, at_levels
from archlab.tasks import Task, registry, setting
from archlab.tasks.stored import is_known, stored_setting

if TYPE_CHECKING:
    from archlab.architectures import Architecture
    from archlab.mad.trial import Trial

_MOST_RATES = 1_000
_GRID_NAMES = ("lr", "learning_rate", "wd", "weight_decay")
_OTHER_HOMES = {"seeds": "--seeds N", "tasks": "--tasks A,B", "settings": "--settings base", "width": "dim"}


@dataclass(frozen=True)
class Grid:
    """The grid of a task: every learning rate with every weight decay."""

    learning_rate: Annotated[tuple[Positive, ...], not_empty, no_longer_than(_MOST_RATES)]
    weight_decay: Annotated[tuple[NonNegative, ...], not_empty, no_longer_than(_MOST_RATES)]

    def __post_init__(self) -> None:
        """Check the values, each of which counts once; refusals name the axis."""
        check_fields(self, "grid")

    def points(self) -> list[tuple[float, float]]:
        """(learning rate, weight decay) in grid order, see :func:`archlab.mad.selection.grid_order`."""
        return list(product(sorted(self.learning_rate, reverse=True), sorted(self.weight_decay)))


@dataclass(frozen=True)
class TaskPlan:
    """One task of a protocol: its settings, the base first, and how they are trained."""

    settings: Annotated[tuple[Task, ...], not_empty]
    recipe: Recipe
    grid: Grid

    def __post_init__(self) -> None:
        """Refuse a task without a setting, and levels that a setting does not have."""
        check_fields(self)
        levels = self.recipe.levels
        for one in self.settings if levels else ():
            if is_known(one):
                at_levels(one, levels)
            if (fewest := min(one.num_train_examples, self.recipe.num_evaluation)) < len(levels):
                raise ArchlabError(f"recipe: levels={list(levels)}: {fewest} sequences are too few: give more, or fewer levels")


@dataclass(frozen=True)
class Protocol:
    """Which settings, grid, seeds and recipe. The narrowing methods give a changed copy."""

    name: str
    summary: str
    dim: Count
    layer_defaults: Mapping[str, Mapping[str, Any]]
    seeds: Seeds
    tasks: Mapping[str, TaskPlan]

    def __post_init__(self) -> None:
        """Check the width, the seeds, each of which counts once, and that there is a task; refusals name the field."""
        check_fields(self, f"protocol {self.name}")
        if not self.tasks:
            raise ArchlabError(f"protocol {self.name}: tasks are empty: give at least one of {', '.join(registry())}")

    @property
    def num_settings(self) -> int:
        """Settings of all tasks."""
        return sum(len(plan.settings) for plan in self.tasks.values())

    @property
    def max_length(self) -> int:
        """Length of the longest sequence of any setting."""
        return max(setting.length for plan in self.tasks.values() for setting in plan.settings)

    @property
    def num_trials(self) -> int:
        """Trials of one architecture."""
        return len(self.seeds) * sum(len(plan.settings) * len(plan.grid.points()) for plan in self.tasks.values())

    def covers(self, other: "Protocol") -> bool:
        """Whether it has every trial of another protocol: the same conditions, and no less of tasks, settings and seeds.

        Defaults of a layer that only one of them has do not part them: specs are stored with the knobs that they set.
        """
        return (
            (self.name, self.dim) == (other.name, other.dim)
            and all(self.layer_defaults.get(layer, knobs) == knobs for layer, knobs in other.layer_defaults.items())
            and set(self.seeds) >= set(other.seeds)
            and all(
                task in self.tasks
                and (self.tasks[task].recipe, self.tasks[task].grid) == (plan.recipe, plan.grid)
                and set(self.tasks[task].settings) >= set(plan.settings)
                for task, plan in other.tasks.items()
            )
        )

    def trials(self, architectures: Sequence["Architecture"], device: Literal["cpu", "cuda"] = "cpu") -> list["Trial"]:
        """Every training that the protocol asks for, ordered so that architectures can be compared early; refuses a width that an
        architecture does not fit."""
        from archlab.mad.trial import Trial

        one_of_each_kind = [
            (
                Trial(
                    architecture=architecture,
                    setting=task_setting,
                    recipe=plan.recipe,
                    dim=self.dim,
                    learning_rate=plan.grid.learning_rate[0],
                    weight_decay=plan.grid.weight_decay[0],
                    seed=self.seeds[0],
                    device=device,
                ),
                plan.grid.points(),
            )
            for plan in self.tasks.values()
            for task_setting in plan.settings
            for architecture in architectures
        ]
        return [
            trial.at(learning_rate, weight_decay, seed)
            for seed in self.seeds
            for trial, points in one_of_each_kind
            for learning_rate, weight_decay in points
        ]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Protocol":
        """The protocol that ``asdict`` wrote down; refuses a knob or field that is unknown to this archlab."""
        tasks = {
            name: TaskPlan(
                settings=tuple(stored_setting(name, knobs) for knobs in plan["settings"]),
                recipe=read_fields(Recipe, plan["recipe"], "recipe"),
                grid=read_fields(Grid, plan["grid"], "grid"),
            )
            for name, plan in values["tasks"].items()
        }
        return read_fields(cls, values | {"tasks": tasks}, "protocol")

    def with_tasks(self, names: Sequence[str]) -> "Protocol":
        """Keep only these tasks, given by name or short name, in the protocol's order; refuses others, and none at all."""
        chosen = {self._task(name) for name in names}
        return replace(self, tasks={name: plan for name, plan in self.tasks.items() if name in chosen})

    def with_settings(self, settings: str) -> "Protocol":
        """All settings (``"all"``), or only the base setting of each task (``"base"``)."""
        if check_value("settings", settings, Literal["all", "base"]) == "all":
            return self
        return self._each(lambda _, plan: replace(plan, settings=plan.settings[:1]))

    def with_grid(self, **values: Sequence[float]) -> "Protocol":
        """Other learning rates (``learning_rate=``) or weight decays (``weight_decay=``) for every task; refuses other axes."""
        chosen = {name: tuple(numbers) for name, numbers in values.items()}
        return self._each(lambda _, plan: replace(plan, grid=read_fields(Grid, vars(plan.grid) | chosen, "grid")))

    def with_seeds(self, seeds: Iterable[int]) -> "Protocol":
        """Other seeds, one at least, each a whole number that is not negative."""
        return replace(self, seeds=tuple(seeds))

    def with_value(self, key: str, value: Any) -> "Protocol":
        """Change one value: ``dim``, a field of every recipe (``recipe.steps``), a knob of every task that has it
        (``length``), or of one task (``compression.length``).

        A knob is changed in every setting; settings that become equal are kept once. Refuses names that nothing has, and values
        that make a setting impossible.
        """
        owner, _, name = key.rpartition(".")
        if key == "dim":
            return replace(self, dim=value)
        self._check_home(owner, name)
        if owner == "recipe":
            return self._each(
                lambda _, plan: replace(plan, recipe=read_fields(Recipe, vars(plan.recipe) | {name: value}, "recipe"))
            )
        owner = owner and self._task(owner)
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

    def _task(self, name: str) -> str:
        """The name of a task of the protocol by its name or short name."""
        names = {plan.settings[0].short: task for task, plan in self.tasks.items()} | {task: task for task in self.tasks}
        if name not in names:
            raise unknown(f"task of protocol {self.name}:", name, names)
        return names[name]

    def _check_home(self, owner: str, name: str) -> None:
        """Refuse a name that belongs to another part of the protocol, and say to which."""
        if name in _GRID_NAMES:
            raise ArchlabError(f"{name} belongs to the grid: write --grid {name}=A,B")
        if name in _OTHER_HOMES:
            raise ArchlabError(f"{name} is not set like a knob: write {_OTHER_HOMES[name]}")
        in_recipe = name in (f.name for f in fields(Recipe))
        is_knob = name == "dim" or any(name in plan.settings[0].knobs() for plan in self.tasks.values())
        if owner == "recipe" and is_knob and not in_recipe:
            raise ArchlabError(f"{name} does not belong to the recipe: write {name}")
        if owner != "recipe" and in_recipe and not is_knob:
            raise ArchlabError(f"{name} belongs to the recipe: write recipe.{name}")
        of_layers = [known for known, config in layers().items() if name in (f.name for f in fields(config))]
        if of_layers and not is_knob and not in_recipe:
            example = f"{of_layers[0]}({name}=...)"
            raise ArchlabError(f"{name} is a knob of layers: write it into the spec, as in {example}")

    def _each(self, change: Callable[[str, TaskPlan], TaskPlan]) -> "Protocol":
        return replace(self, tasks={name: change(name, plan) for name, plan in self.tasks.items()})


def protocol_names() -> list[str]:
    """The protocols of the package."""
    return sorted(path.name.removesuffix(".yaml") for path in _folder().iterdir() if path.name.endswith(".yaml"))


def load_protocol(name: str, suite: str = "mad") -> Protocol:
    """A protocol of the package by name, or of the user's YAML file by path, with the tasks of a suite.

    The suite ``mad`` are the file's ``tasks``, ``all`` those and all of its ``suites``. Refuses a protocol or suite that is not
    there, and wrong fields.
    """
    return parse_protocol(Path(name).stem, protocol_text(name), suite, is_own=not is_yaml(name))


def protocol_text(name: str) -> str:
    """The YAML of a protocol of the package, or of the user's file; refuses one that is not there."""
    if is_yaml(name):
        return read_text(Path(name), "protocol")
    if name not in protocol_names():
        raise unknown("protocol", name, protocol_names())
    return str((_folder() / f"{name}.yaml").read_text(encoding="utf-8"))


def parse_protocol(name: str, text: str, suite: str = "mad", *, is_own: bool = False) -> Protocol:
    """The protocol that a YAML text describes, with the tasks of a suite; refusals name the protocol, the field and what is wrong
    with it. The defaults of layers of archlab's own protocols are not checked, for that imports PyTorch."""
    with naming(f"protocol {name}"):
        file = read_fields(_ProtocolFile, read_yaml(text))
        suites = {"mad": file.tasks, **file.suites}
        if suite not in (*suites, "all"):
            raise unknown("suite", suite, (*suites, "all"))
        tasks = {}
        chosen = [item for group in ([suite] if suite != "all" else suites) for item in suites[group].items()]
        for task, values in chosen:
            with naming(f"tasks.{task}"):
                own = read_fields(_TaskFile, values)
                changes = ({knob: value} for knob, values in own.vary.items() for value in values)
                settings = dict.fromkeys(setting(task, **{**own.base, **change}) for change in ({}, *changes))
                recipe = read_fields(Recipe, {**file.recipe, **own.recipe}, "recipe")
                plan = TaskPlan(tuple(settings), recipe, read_fields(Grid, {**file.grid, **own.grid}, "grid"))
            name_in_full = plan.settings[0].name
            if name_in_full in tasks:
                raise ArchlabError(f"tasks: {name_in_full} is there twice")
            tasks[name_in_full] = plan
        for layer_name, knobs in () if is_own else file.layer_defaults.items():
            with naming("layer_defaults"):
                layer(layer_name, **knobs)
    return Protocol(name, file.summary, file.dim, file.layer_defaults, file.seeds, tasks)


@dataclass(frozen=True, kw_only=True)
class _ProtocolFile:
    """A protocol as its file has it."""

    summary: str
    dim: Count
    layer_defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seeds: Seeds
    grid: Mapping[str, Any]
    recipe: Mapping[str, Any] = field(default_factory=dict)
    tasks: Mapping[str, Mapping[str, Any]]
    suites: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class _TaskFile:
    """A task of a protocol as its file has it; recipe and grid change those that the tasks share."""

    base: Mapping[str, Any] = field(default_factory=dict)
    vary: Mapping[str, Annotated[list[Any], not_empty]] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)


def _folder() -> Any:
    return resources.files("archlab.mad") / "protocols"
