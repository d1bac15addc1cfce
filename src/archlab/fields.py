"""Dataclasses whose fields are checked by their type hints, and YAML that reads and writes them.

A hint says what a field takes, its bounds as annotations::

    @dataclass(frozen=True)
    class Recipe:
        steps: Annotated[int, at_least(1)] = 100
        warmup: Annotated[float, between(0, 1)] = 0.0
        schedule: Literal["cosine", "constant"] = "cosine"

        def __post_init__(self) -> None:
            check_fields(self, "recipe")

Every refusal is one line: ``recipe: warmup=2.0: give a number from 0 to 1``.
"""

import math
import os
import re
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import MISSING, fields
from functools import cache, lru_cache, wraps
from inspect import Parameter, get_annotations, signature
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NamedTuple,
    ParamSpec,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import yaml

from archlab.errors import ArchlabError, unknown

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Bound(NamedTuple):
    """A condition on the value of a field, given in ``Annotated``."""

    allows: Callable[[Any], bool]
    words: str
    """The condition in messages, behind the type: "of at least 1"."""

    def __repr__(self) -> str:
        """The condition, as signatures show it."""
        return self.words


def at_least(low: float) -> Bound:
    """Allow ``low`` and more."""
    return Bound(lambda value: value >= low, f"of at least {low}")


def above(low: float) -> Bound:
    """Allow more than ``low``."""
    return Bound(lambda value: value > low, f"above {low}")


def below(high: float) -> Bound:
    """Allow less than ``high``."""
    return Bound(lambda value: value < high, f"below {high}")


def at_most(high: float) -> Bound:
    """Allow ``high`` and less."""
    return Bound(lambda value: value <= high, f"of at most {high}")


def between(low: float, high: float) -> Bound:
    """Allow ``low``, ``high`` and what lies between them."""
    return Bound(lambda value: low <= value <= high, f"from {low} to {high}")


def no_longer_than(most: int) -> Bound:
    """Allow lists of so many entries."""
    return Bound(lambda values: len(values) <= most, f"with at most {most:,} entries")


not_empty = Bound(bool, "that is not empty")
"""Allow lists and mappings with one entry or more."""

MOST_SEEDS = 10_000
MOST_WORKERS = 1024
Natural = Annotated[int, at_least(0)]
Seeds = Annotated[tuple[Natural, ...], not_empty, no_longer_than(MOST_SEEDS)]
Count = Annotated[int, at_least(1)]
SeedCount = Annotated[int, at_least(1), at_most(MOST_SEEDS)]
Workers = Annotated[int, at_least(1), at_most(MOST_WORKERS)]
NonNegative = Annotated[float, at_least(0)]
Positive = Annotated[float, above(0)]


_SIMPLE = {bool, int, float, str}


def check_fields(instance: "DataclassInstance", where: str = "", only: Collection[str] | None = None) -> None:
    """Check the fields of a dataclass by their type hints, and store each value as its hint has it.

    Called by ``__post_init__``. Whole numbers are taken for fractions, lists for tuples, whose values count once each, and None
    for an empty mapping. Nothing else converts: a truth value is no number, and no field takes NaN or infinity. Where a subclass
    declares a field again, the hint of the base class holds as well. A refusal names ``where``, such as "recipe", the field, its
    value and what is allowed. With ``only`` the fields of these names are checked.
    """
    cls: Any = type(instance)
    with naming(where):
        for number, (name, hint) in enumerate(hints(cls)):
            if only is None or name in only:
                value = getattr(instance, name)
                kind: Any = type(value)
                if kind in _SIMPLE:
                    value = _checked(cls, number, kind, value)
                elif hint is Any or not isinstance(hint, type) or not isinstance(value, hint):
                    value = check_value(name, value, hint)
                object.__setattr__(instance, name, value)


@lru_cache(maxsize=1 << 14)
def _checked(cls: Hashable, number: int, kind: Hashable, value: Hashable) -> Any:
    """The value as a field's hint has it. Kept: stores and protocols make a hundred thousand trials of few values."""
    name, hint = hints(cls)[number]
    return check_value(name, value, hint)


def check_value(name: str, value: Any, hint: Any) -> Any:
    """Check a value that belongs to no dataclass, and return it as a field with this hint would hold it; refusals name it."""
    try:
        return _converted(name, value, hint)
    except _NotAllowedError:
        allowed = _described(hint)
        if isinstance(value, float) and not math.isfinite(value):
            allowed = allowed.replace("a number", "a finite number")
        raise ArchlabError(f"{name}={_shown(value)}: give {allowed}") from None


def checked(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Function decorator: the arguments of a call are checked by their type hints, as fields are, before the function runs."""
    taken = signature(function)
    unchecked = {name for name, one in taken.parameters.items() if name == "self" or one.kind is Parameter.VAR_KEYWORD}
    hints: dict[str, Any] = {}

    @wraps(function)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        if not hints:  # what it returns may have a type that only type checkers import
            for name in taken.parameters.keys() - unchecked:
                hint = taken.parameters[name].annotation
                hints[name] = eval(hint, function.__globals__) if isinstance(hint, str) else hint
        bound = taken.bind(*args, **kwargs)
        for name in [name for name in bound.arguments if name in hints]:
            bound.arguments[name] = check_value(name, bound.arguments[name], hints[name])
        return function(*bound.args, **bound.kwargs)

    return call


def read_fields(cls: type[T], values: Any, where: str = "") -> T:
    """Make a dataclass of the fields that a file or a store gives; the class itself checks the values.

    Refuses fields that are unknown or missing, and values that are no mapping.
    """
    known = {f.name: f for f in fields(cls) if f.init}
    with naming(where):
        if not isinstance(values, Mapping):
            raise ArchlabError(f"{_shown(values)}: give a mapping of {', '.join(known)}")
        for name in values:
            if name not in known:
                raise unknown("field", str(name), known)
        for name, hint in hints(cls):
            field = known.get(name)
            if field and name not in values and field.default is MISSING and field.default_factory is MISSING:
                raise ArchlabError(f"{name} is missing: give {_described(hint)}")
    return cls(**values)


class _NotAllowedError(Exception):
    """A hint does not allow a value."""


@cache
def hints(cls: Any) -> tuple[tuple[str, Any], ...]:
    """The name and hint of every field, in the order of declaration, those of base classes first."""
    names = {f.name for f in fields(cls)}
    found = []
    for base in reversed(cls.__mro__):
        of_base = get_type_hints(base, include_extras=True)
        found += [(name, of_base[name]) for name in get_annotations(base) if name in names]
    return tuple(found)


def _converted(name: str, value: Any, hint: Any) -> Any:
    kind, arguments = get_origin(hint) or hint, get_args(hint)
    if kind is Any:
        return value
    if kind is Annotated:
        converted = _converted(name, value, arguments[0])
        if all(bound.allows(converted) for bound in arguments[1:]):
            return converted
    elif kind in (Union, UnionType):
        for alternative in arguments:
            with suppress(_NotAllowedError):
                return _converted(name, value, alternative)
    elif kind is Literal:
        if any(type(value) is type(option) and value == option for option in arguments):
            return value
    elif kind is int:
        if not isinstance(value, bool) and isinstance(value, Integral):
            return int(value)
    elif kind is float:
        if not isinstance(value, bool) and isinstance(value, Real):
            with suppress(OverflowError):
                number = float(value)
                if math.isfinite(number):
                    return number or 0.0  # -0.0 is 0.0: equal values have equal texts
    elif kind in (Iterable, Sequence):
        if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
            return [check_value(name, one, arguments[0]) for one in value]
    elif kind in (list, tuple):
        if isinstance(value, list | tuple):
            found = [check_value(name, one, arguments[0]) for one in value]
            return found if kind is list else tuple(dict.fromkeys(found))
    elif kind is Mapping:
        given = {} if value is None else value
        if isinstance(given, Mapping):
            keys = [check_value(f"{name}: key", key, arguments[0]) for key in given]
            return {key: check_value(f"{name}.{key}", given[key], arguments[1]) for key in keys}
    elif isinstance(value, kind):
        return value
    raise _NotAllowedError


_WORDS = {
    bool: ("true or false", "truth values"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("text", "texts"),
    list: ("a list", "lists"),
    os.PathLike: ("a path", "paths"),
    Callable: ("a function", "functions"),
    Mapping: ("a mapping of names to values", "mappings of names to values"),
}
"""Words for a type: one value of it, and several."""


def _described(hint: Any, *, several: bool = False) -> str:
    """Words for the values that a hint allows, to follow "give"."""
    kind, arguments = get_origin(hint) or hint, get_args(hint)
    if kind is Annotated:
        return " ".join((_described(arguments[0], several=several), " and ".join(bound.words for bound in arguments[1:])))
    if kind in (Union, UnionType):
        return ", or ".join(_described(one, several=several) for one in arguments if one is not NoneType)
    if kind is Literal:
        return f"one of {', '.join(map(str, arguments))}" if len(arguments) > 1 else str(arguments[0])
    if kind in (list, tuple, Iterable, Sequence) and arguments[0] is not Any:
        return f"{_WORDS[list][several]} of {_described(arguments[0], several=True)}"
    return _WORDS.get(kind, (f"a value of type {kind.__name__}", f"values of type {kind.__name__}"))[several]


def _shown(value: object) -> str:
    """The value in one line of at most 80 characters."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a whole number of more than 4300 digits, or an object of somebody else
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 80 else f"{text[:77]}..."


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Begin the errors that are raised inside with the place that they are about."""
    try:
        yield
    except ArchlabError as error:
        if not where:
            raise
        raise ArchlabError(f"{where}: {error}") from None


_LONGEST_REASON = 500
"""Characters of the parser's own words in a refusal: they quote the text."""


class _Loader(yaml.SafeLoader):
    """Reads ``1e-3`` as a number, as YAML 1.2 does; PyYAML follows 1.1, to which it is a string. Refuses a key that is twice,
    aliases that make a large value of a small text or stand within what they name, and text that no file can hold."""

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None and _expanded(node, {}) > _MOST_VALUES:
            raise yaml.constructor.ConstructorError(None, None, f"more than {_MOST_VALUES:,} values", node.start_mark)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value in keys:
                raise yaml.constructor.ConstructorError(None, None, f"{_shown(key.value)} is there twice", key.start_mark)
            keys.add(str(key.value))
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        if isinstance(value, str) and _UNWRITABLE.search(value):
            raise yaml.constructor.ConstructorError(None, None, f"{_shown(value)} is no text", node.start_mark)
        return value


_MOST_VALUES = 1_000_000
"""Values in a YAML text, those counted again for which an alias stands."""
_UNWRITABLE = re.compile("[\0\ud800-\udfff]")
"""Characters that neither names of files nor databases take: NUL, and halves of surrogate pairs."""


def _expanded(node: yaml.Node, known: dict[yaml.Node, int]) -> int:
    """Number of values in a node, counted anew at every alias."""
    if node not in known:
        known[node] = -1  # being counted
        inner = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for one in inner for part in (one if isinstance(one, tuple) else (one,))]
        known[node] = 1 + sum(_expanded(part, known) for part in parts)
    if known[node] < 0:
        raise yaml.constructor.ConstructorError(None, None, "an alias stands within what it names", node.start_mark)
    return known[node]


class _Dumper(yaml.SafeDumper):
    """Writes numbers as people do, for the loader to read."""


for kind in (_Loader, _Dumper):
    kind.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )


def _represent_float(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    short = f"{value:g}"
    if float(short) == value and "e" in short:
        return dumper.represent_scalar("tag:yaml.org,2002:float", short.replace("e+", "e"))
    return dumper.represent_float(value)


_Dumper.add_representer(float, _represent_float)


def read_yaml(text: str) -> Any:
    """Read the value that a YAML text stands for; refuses what is not YAML, in one line with the place."""
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise ArchlabError("not YAML that can be read: its values are nested too deep") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2024-99-99
        raise ArchlabError(f"not YAML: {' '.join(str(error).split())[:_LONGEST_REASON]}") from None
    except Exception as error:  # !!int '' or !!bool maybe: PyYAML looks at nothing
        raise ArchlabError(f"not YAML: a tag does not fit its value ({type(error).__name__}): leave the tag out") from None


def write_yaml(value: Any, *, flow: bool = False) -> str:
    """Write a value as YAML that :func:`read_yaml` reads back; ``flow`` puts it on one line."""
    width = math.inf if flow else 120
    return yaml.dump(value, Dumper=_Dumper, default_flow_style=flow, sort_keys=False, width=width, allow_unicode=True)
