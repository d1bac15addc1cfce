"""The layer contract and the registry of layers.

A layer maps ``(batch, length, dim)`` to ``(batch, length, dim)``. One file adds a family of layers:
a frozen dataclass per layer (the config: its knobs and its accounting) beside the ``nn.Module`` that
the config builds. Every module of :mod:`archlab.layers` is imported on the first look-up, so a new
file needs no edit elsewhere, and so are those that installed packages name as entry points.
"""

import importlib
import pkgutil
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

from archlab.errors import ArchlabError, unknown

if TYPE_CHECKING:
    from torch import Tensor, nn

    State = dict[str, Tensor]


@dataclass(frozen=True)
class LayerConfig(ABC):
    """What a layer is, before anything is built: its knobs (the dataclass fields) and its costs.

    Accounting counts the layer itself, not the norm and residual around it. ``length`` is the number
    of positions of a sequence; layers whose parameters depend on a maximum length (Hyena's filter)
    take it to be that maximum.
    """

    name: ClassVar[str]
    """Name in specs, set by :func:`register`."""
    kind: ClassVar[Literal["sequence", "channel"]]
    """Whether the layer mixes along the sequence or along the width only."""
    paper: ClassVar[str]
    """Where the layer comes from: an arXiv number, or a reference."""

    def validate(self, dim: int) -> None:  # noqa: B027 - most layers fit every width
        """Raise :class:`ArchlabError` if the knobs do not fit the width ``dim``."""

    @abstractmethod
    def num_params(self, dim: int, length: int) -> int:
        """Trainable scalars."""

    @abstractmethod
    def state_size(self, dim: int, length: int) -> int | None:
        """Scalars carried from token to token at inference, for one sequence, once ``length`` tokens
        can be held: matrix states, convolution buffers, key-value caches. 0 for channel mixers; None
        if it is not known."""

    @abstractmethod
    def flops(self, dim: int, length: int) -> int:
        """Floating-point operations of ``forward`` for one sequence; a multiply-add is 2.

        Counted in the parallel form that ``forward`` runs at this length: matrix products,
        linear systems, convolutions, FFTs (2.5 n log2 n for a real transform of n points) and scans.
        Not counted: biases, norms, activations, gates, softmax. Attention is not halved for causality.
        """

    @abstractmethod
    def build(self, dim: int, max_length: int) -> "nn.Module":
        """An initialised module for sequences of width ``dim``, at most ``max_length`` long.

        Initialisation draws from torch's global generator only.
        """

    def modules(self) -> tuple[str, ...]:
        """The Python modules whose code computes the layer; what they import from their own package counts by itself."""
        return (type(self).__module__,)

    def knobs(self) -> dict[str, Any]:
        """Every knob with its value, in the order of declaration."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def __str__(self) -> str:
        """The text form: the name, and the knobs that differ from their defaults."""
        changed = [f"{f.name}={_text(getattr(self, f.name))}" for f in fields(self) if getattr(self, f.name) != f.default]
        return f"{self.name}({', '.join(changed)})" if changed else self.name


def _text(value: Any) -> str:
    """A knob's value as specs write it; strings are quoted where they would read as something else."""
    plain = not isinstance(value, str) or (re.fullmatch(r"[A-Za-z_][\w.+/:-]*", value) and value.lower() not in ("true", "false"))
    return str(value) if plain else f'"{value}"'


@runtime_checkable
class Recurrent(Protocol):
    """What the module of a sequence mixer offers beside ``forward``: its step form.

    The state is a flat dict of tensors with a leading batch axis. Its floating-point scalars for one
    sequence are exactly ``LayerConfig.state_size(dim, max_length)``; integer bookkeeping (the position
    counter of a cache) is not counted.
    """

    def init_state(self, batch_size: int) -> "State":
        """The state before the first token, on the device and dtype of the parameters."""
        ...

    def step(self, x_bd: "Tensor", state: "State") -> "tuple[Tensor, State]":
        """One token: ``(batch, dim)`` and the state to the output ``(batch, dim)`` and the new state.

        Does not modify the given state.
        """
        ...


_REGISTRY: dict[str, type[LayerConfig]] = {}
_NOT_FAMILIES = {"base", "ops", "third_party"}

Config = TypeVar("Config", bound=type[LayerConfig])


def register(name: str) -> Callable[[Config], Config]:
    """Class decorator: make a config known under ``name`` in specs.

    Raises:
        ArchlabError: the name is taken by another class.
    """

    def add(config: Config) -> Config:
        taken = _REGISTRY.get(name)
        if taken is not None and (taken.__module__, taken.__qualname__) != (config.__module__, config.__qualname__):
            raise ArchlabError(f"layer name {name!r} is taken by {taken.__module__}.{taken.__qualname__}")
        config.name = name
        _REGISTRY[name] = config
        return config

    return add


@cache
def _import_families() -> None:
    import archlab.layers as package
    from archlab.layers.third_party.sources import import_installed

    for module in pkgutil.iter_modules(package.__path__):
        if module.name not in _NOT_FAMILIES:
            importlib.import_module(f"{package.__name__}.{module.name}")
    import_installed()


def registry() -> Mapping[str, type[LayerConfig]]:
    """Every known layer by name. Imports torch on the first call."""
    _import_families()
    return MappingProxyType(_REGISTRY)


def is_path(name: str) -> bool:
    """Whether a name is the path of an ``nn.Module`` class, as ``my_pkg.mixers.Foo`` and ``fla:Foo`` are, not that of a layer."""
    return "." in name or ":" in name


def unknown_layer(name: str, others: Iterable[str] = ()) -> ArchlabError:
    """The error for a layer that is not known; ``others`` are further names that would be."""
    from archlab.layers.third_party.sources import left_out

    reasons = "".join(f"; the layers of {package} cannot be imported: {reason}" for package, reason in left_out.items())
    return ArchlabError(f"{unknown('layer', name, {*registry(), *others})}{reasons}")


def layer(name: str, **knobs: Any) -> LayerConfig:
    """The config of a layer: ``layer("mamba", d_state=8)``, or of any module: ``layer("my_pkg.mixers.Foo", heads=4)``.

    Raises:
        ArchlabError: the name or a knob is unknown, or a knob's value has the wrong type.
    """
    known = registry()
    if name not in known and is_path(name):
        from archlab.layers.third_party.dotted import module_layer

        return module_layer(name, knobs)
    if name not in known:
        raise unknown_layer(name)
    config = known[name]
    defaults = {f.name: f.default for f in fields(config)}
    for knob, value in knobs.items():
        if knob not in defaults:
            raise unknown(f"knob of {name}:", knob, defaults)
        knobs[knob] = _coerce(f"{name}({knob}={value})", value, type(defaults[knob]))
    return config(**knobs)


def _coerce(where: str, value: Any, wanted: type) -> Any:
    """The value as the type of the knob's default; ints are taken for floats, nothing else converts."""
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not wanted:
        raise ArchlabError(f"{where}: {value!r} is of type {type(value).__name__}, give a value of type {wanted.__name__}")
    return value


def positive(config: LayerConfig, *names: str) -> None:
    """For ``__post_init__``: refuse knobs that are not at least 1.

    Raises:
        ArchlabError: naming layer, knob and value.
    """
    for name in names:
        if getattr(config, name) < 1:
            raise ArchlabError(f"{config.name}({name}={getattr(config, name)}): {name} must be at least 1")


def divides(config: LayerConfig, knob: str, dim: int) -> None:
    """For ``validate``: refuse a knob that does not divide the width, and name the nearest that does.

    Raises:
        ArchlabError: naming layer, knob, value, width and the nearest divisor.
    """
    value = getattr(config, knob)
    if dim % value:
        nearest = min((n for n in range(1, dim + 1) if dim % n == 0), key=lambda n: abs(n - value))
        raise ArchlabError(
            f"{config.name}({knob}={value}): width {dim} is not divisible by {value}; the nearest that fits is {knob}={nearest}"
        )


def divides_evenly(config: LayerConfig, knob: str, dim: int) -> None:
    """For ``validate``: refuse a knob that does not split the width into parts of even width, and name the nearest that does.

    Raises:
        ArchlabError: naming layer, knob, value, width and the nearest that fits.
    """
    value = getattr(config, knob)
    if dim % (2 * value) == 0:
        return
    fitting = [n for n in range(1, dim + 1) if dim % (2 * n) == 0]
    if not fitting:
        raise ArchlabError(f"{config}: width {dim} is odd and splits into no {knob} of even width; use an even width")
    raise ArchlabError(
        f"{config.name}({knob}={value}): width {dim} does not split into {value} {knob} of even width; "
        f"the nearest that fits is {knob}={min(fitting, key=lambda n: abs(n - value))}"
    )
