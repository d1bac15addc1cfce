"""Architectures as a store holds them, also those whose layers are not available: a results store outlives its layers."""

import sys
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, NoReturn

from typing_extensions import override

from archlab.architectures.parser import layer_names, module_paths
from archlab.architectures.spec import Architecture, architecture
from archlab.errors import ArchlabError
from archlab.fields import check_value
from archlab.layers.contract import LayerConfig
from archlab.layers.registry import own_names


@dataclass(frozen=True)
class UnavailableLayers(LayerConfig):
    """The text of an architecture whose layers cannot be read. Asking for costs or a module raises ArchlabError."""

    name: ClassVar[str] = "unavailable"
    paper: ClassVar[str] = ""
    spec: str
    reason: str = field(compare=False)

    @override
    def modules(self) -> tuple[str, ...]:
        return ()

    @override
    def identity(self) -> list[Any]:
        return [self.name, self.spec]

    @override
    def __str__(self) -> str:
        return self.spec

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise ArchlabError(f"{self.spec}: a layer is not available: {self.reason}")

    num_params = state_size = flops = build = _refuse


class StoredArchitecture(Architecture):
    """The text of an architecture as a store holds it; its layers, whose modules import PyTorch, are read when asked for.

    Equal to what has the same text. Layers that cannot be read, or do not fit the width any more, are
    :class:`UnavailableLayers`.
    """

    dim: int
    """The width that it was trained at."""

    def __init__(self, spec: str, dim: int, name: str | None = None) -> None:
        """Refuses what is no text.

        Args:
            spec: the text form.
            dim: the width that it was trained at.
            name: its name in tables, if it has one of its own.
        """
        name = check_value("architecture: name", name, str | None)
        vars(self).update(_text=check_value("architecture", spec, str), dim=dim, name=name)

    @cached_property
    def layers(self) -> tuple[LayerConfig, ...]:
        """Modules that the spec names are never imported, for a store is data: their layers count as available if the module
        is imported already, because a file or a spec of the user has named it."""
        spec = str(self)
        try:
            for path in module_paths(spec):
                if _home(path) not in sys.modules:
                    raise ArchlabError(f"{path}: {_home(path)} is not imported; name its file by --layers")
            found = architecture(spec)
            found.validate(self.dim)
        except ArchlabError as error:
            return (UnavailableLayers(spec, str(error)),)
        return found.layers

    @override
    def __eq__(self, other: object) -> bool:
        return str(self) == str(other) if isinstance(other, Architecture) else NotImplemented

    __hash__ = Architecture.__hash__

    @override
    def named(self, name: str | None) -> Architecture:
        return StoredArchitecture(str(self), self.dim, name)

    @override
    def validate(self, dim: int) -> None:
        """Nothing: reading the layers has done it."""


def is_available(value: Architecture) -> bool:
    """Whether the layers of an architecture are known."""
    return not isinstance(value.layers[0], UnavailableLayers)


def is_known_by_name(value: Architecture) -> bool:
    """As :func:`is_available`; but of a stored text that names none but archlab's own layers, nothing else is looked at."""
    named = layer_names(str(value)) if isinstance(value, StoredArchitecture) else {""}
    return named <= own_names() or is_available(value)


def check_width(value: Architecture) -> None:
    """Refuse a text of archlab's own layers that do not fit its width: no version has written it. A knob may be gone by now."""
    if isinstance(value, StoredArchitecture) and not is_available(value) and is_known_by_name(value):
        try:
            found = architecture(str(value))
        except ArchlabError:
            return
        found.validate(value.dim)


def _home(path: str) -> str:
    """The module of a layer's dotted path."""
    return path.partition(":")[0] if ":" in path else path.rpartition(".")[0]
