"""Reading and writing the fields of a YAML file: an error is one line that names the file, the field, the value and the fix."""

import math
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

import yaml

from archlab.errors import ArchlabError, unknown


class _Loader(yaml.SafeLoader):
    """Reads ``1e-3`` as a number, as YAML 1.2 does; PyYAML follows 1.1, to which it is a string. Refuses a key that is twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for number, (key, _) in enumerate(node.value):
            if key.value in keys[:number]:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is there twice", key.start_mark)
        return super().construct_mapping(node, deep)


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
    """The value that a YAML text stands for.

    Raises:
        ArchlabError: the text is not YAML; the message is one line, with the place.
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2024-99-99
        raise ArchlabError(f"not YAML: {' '.join(str(error).split())}") from None


def write_yaml(value: Any, *, flow: bool = False) -> str:
    """YAML that :func:`read_yaml` reads back; ``flow`` puts it on one line."""
    width = math.inf if flow else 120
    return yaml.dump(value, Dumper=_Dumper, default_flow_style=flow, sort_keys=False, width=width, allow_unicode=True)


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Errors inside begin with the place that they are about."""
    try:
        yield
    except ArchlabError as error:
        raise ArchlabError(f"{where}: {error}") from None


def mapping(field: str, value: Any, allowed: Collection[str] | None = None) -> dict[str, Any]:
    """The value as a mapping; nothing is an empty one.

    Args:
        field: its name, for messages.
        value: what the file gives.
        allowed: the keys that have a meaning; by default all.

    Raises:
        ArchlabError: it is no mapping, or a key has no meaning.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        example = f"{min(allowed)}: ..." if allowed else "name: value"
        raise ArchlabError(f"{field}={value!r}: give a mapping, as in {{{example}}}")
    for key in value:
        if allowed is not None and key not in allowed:
            raise unknown(f"field of {field}:", str(key), allowed)
        if not isinstance(key, str):
            raise ArchlabError(f"{field}: {key!r} is no name: give names as keys")
    return value


def items(field: str, value: Any) -> tuple[Any, ...]:
    """The value as a list that is not empty.

    Raises:
        ArchlabError: it is no list, or an empty one.
    """
    if not isinstance(value, list) or not value:
        raise ArchlabError(f"{field}={value!r}: give a list that is not empty, as in [{value if _is_scalar(value) else '...'}]")
    return tuple(value)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int | float)


@dataclass(frozen=True, kw_only=True)
class Fields:
    """A recipe as a value: numbers, truth values and choices, checked by their type hints; JSON-ready, and read back."""

    def _check_types(self) -> None:
        """Take whole numbers for fractions, and refuse what is of the wrong type or no choice.

        Raises:
            ArchlabError: naming field, value and what is allowed.
        """
        recipe: Any = type(self)  # dataclasses are hashable, which mypy does not see of their type
        for name, hint in _hints(recipe).items():
            value = getattr(self, name)
            if get_origin(hint) is Literal:
                if value not in get_args(hint):
                    raise ArchlabError(f"recipe: {name}={value!r}: choose one of {', '.join(get_args(hint))}")
            elif hint is float and type(value) is int:
                object.__setattr__(self, name, float(value))
            elif type(value) is not hint:
                raise ArchlabError(f"recipe: {name}={value!r} is not of type {hint.__name__}")

    def to_dict(self) -> dict[str, Any]:
        """Every field, JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The recipe with these fields.

        Raises:
            ArchlabError: a field is unknown or its value not allowed.
        """
        names = [f.name for f in fields(cls)]
        for name in values:
            if name not in names:
                raise unknown("recipe field", name, names)
        return cls(**values)


@cache
def _hints(recipe: type[Any]) -> dict[str, Any]:
    return get_type_hints(recipe)
