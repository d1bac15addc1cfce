"""Architectures as a store holds them, also those whose layers are not available: a results store outlives its layers."""

import sys
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NoReturn

from typing_extensions import override

from archlab.architectures.parser import module_paths
from archlab.architectures.spec import Architecture, architecture
from archlab.errors import ArchlabError
from archlab.layers.contract import LayerConfig, origin


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


def stored_architecture(spec: str, dim: int, name: str | None = None) -> Architecture:
    """The architecture that a store holds as text; one whose layers cannot be read, or come from outside archlab and
    do not fit the width any more, has :class:`UnavailableLayers`.

    A store is data: the modules that its specs name are never imported. Layers of a module count as available if it is
    imported already, because a file or a spec of the user has named it.

    Args:
        spec: the text form.
        dim: the width that it was trained at.
        name: its name in tables, if it has one of its own.
    """
    try:
        for path in module_paths(spec):
            home = path.partition(":")[0] if ":" in path else path.rpartition(".")[0]
            if home not in sys.modules:
                raise ArchlabError(f"{path}: {home} is not imported; name its file by --layers")
        found = architecture(spec)
        if origin(found.layers):
            found.validate(dim)
    except ArchlabError as error:
        found = Architecture((UnavailableLayers(spec, str(error)),))
    return replace(found, name=name or found.name)


def is_available(value: Architecture) -> bool:
    """Whether the layers of an architecture are known."""
    return not isinstance(value.layers[0], UnavailableLayers)
