"""The layer contract and the registry of layers.

A layer maps ``(batch, length, dim)`` to ``(batch, length, dim)``. One file adds a family of layers:
a frozen dataclass per layer (the config: its knobs and its accounting) beside the ``nn.Module`` that
the config builds. Every module of :mod:`archlab.layers` is imported on the first look-up, so a new
file needs no edit elsewhere, and so are those that installed packages name as entry points.
"""

import importlib
import math
import pkgutil
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

from archlab.errors import ArchlabError, in_one_line, unknown

if TYPE_CHECKING:
    from torch import Tensor, nn

    State = dict[str, Tensor]

Kind = Literal["sequence", "channel"]


@dataclass(frozen=True)
class LayerConfig(ABC):
    """What a layer is, before anything is built: its knobs (the dataclass fields) and its costs.

    Accounting counts the layer itself, not the norm and residual around it. ``length`` is the number
    of positions of a sequence; layers whose parameters depend on a maximum length (Hyena's filter)
    take it to be that maximum.
    """

    name: ClassVar[str]
    """Name in specs, set by :func:`register`."""
    paper: ClassVar[str]
    """Where the layer comes from: an arXiv number, or a reference."""

    @property
    def state_knob(self) -> str:
        """The knob, a whole number, that sets :meth:`matrix_state`; empty if none does. Most layers set a class variable."""
        return ""

    @property
    @abstractmethod
    def kind(self) -> Kind:
        """Whether the layer mixes along the sequence or along the width only; most layers set a class variable."""

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

    def matrix_state(self, dim: int, length: int) -> int | None:
        """Of :meth:`state_size`, what holds content: matrices and state-space states, keys and values, without inputs that
        a convolution or a token shift looks back on, sums that normalise, and counters.

        All of it unless the layer says otherwise. This is what comparisons at equal state make equal.
        """
        return self.state_size(dim, length)

    @abstractmethod
    def flops(self, dim: int, length: int) -> int:
        """Floating-point operations of ``forward`` for one sequence; a multiply-add is 2.

        Counted in the parallel form that ``forward`` runs at this length: matrix products,
        linear systems, convolutions, FFTs (2.5 n log2 n for a real transform of n points) and scans.
        Not counted: biases, norms, activations, gates, softmax. Attention is not halved for causality.
        """

    def active_flops(self, dim: int, length: int) -> int:
        """Of :meth:`flops`, those that a token's output needs: without experts that it was not routed to.

        All of them unless the layer says otherwise.
        """
        return self.flops(dim, length)

    @abstractmethod
    def build(self, dim: int, max_length: int) -> "nn.Module":
        """An initialised module for sequences of width ``dim``, at most ``max_length`` long.

        Initialisation draws from torch's global generator only.
        """

    def resized(self, dim: int, factor: float) -> "LayerConfig":
        """The layer with ``factor`` times the inner width, as near as its knobs allow: how channel mixers set the size of a
        model. Itself unless the layer says otherwise; the state must stay as it is."""
        return self

    def modules(self) -> tuple[str, ...]:
        """The Python modules whose code computes the layer; what they import from their own package counts by itself."""
        return (type(self).__module__,)

    def knobs(self) -> dict[str, Any]:
        """Every knob with its value, in the order of declaration."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def identity(self) -> list[Any]:
        """Name and every knob, defaults written out; JSON-ready, and the same for equal layers only."""
        return [self.name, self.knobs()]

    def __str__(self) -> str:
        """The text form: the name, and the knobs that differ from their defaults."""
        arguments = self._arguments()
        return f"{self.name}({', '.join(arguments)})" if arguments else self.name

    def _arguments(self) -> list[str]:
        defaults = {f.name: f.default for f in fields(self)}
        return [f"{knob}={knob_text(value)}" for knob, value in self.knobs().items() if value != defaults[knob]]


@dataclass(frozen=True)
class Composite(LayerConfig):
    """A layer made of layers; in its text form they stand before the knobs: ``parallel(mamba, mh-attention, gate=true)``.

    Its module's step form holds the states of the layers it is made of: see :mod:`archlab.layers.substates`.
    """

    layers: tuple[LayerConfig, ...]
    """What it is made of; not a knob."""

    @property
    def kind(self) -> Kind:
        """It mixes along the sequence if one of its layers does."""
        return "sequence" if any(x.kind == "sequence" for x in self.layers) else "channel"

    def validate(self, dim: int) -> None:
        """Every layer must fit the width, see :meth:`LayerConfig.validate`."""
        for part in self.layers:
            try:
                part.validate(dim)
            except ArchlabError as error:
                raise ArchlabError(f"{self.name}: {error}") from None

    @property
    def copies(self) -> int:
        """How many of each layer there are."""
        return 1

    def state_size(self, dim: int, length: int) -> int | None:
        """See :meth:`LayerConfig.state_size`."""
        return total([x.state_size(dim, length) for x in self.layers], self.copies)

    def matrix_state(self, dim: int, length: int) -> int | None:
        """See :meth:`LayerConfig.matrix_state`."""
        return total([x.matrix_state(dim, length) for x in self.layers], self.copies)

    def resized(self, dim: int, factor: float) -> LayerConfig:
        """See :meth:`LayerConfig.resized`."""
        return replace(self, layers=tuple(x.resized(dim, factor) for x in self.layers))

    def knobs(self) -> dict[str, Any]:
        """See :meth:`LayerConfig.knobs`."""
        return {knob: value for knob, value in super().knobs().items() if knob != "layers"}

    def modules(self) -> tuple[str, ...]:
        """See :meth:`LayerConfig.modules`."""
        return (*super().modules(), *(module for x in self.layers for module in x.modules()))

    def identity(self) -> list[Any]:
        """See :meth:`LayerConfig.identity`."""
        return [*super().identity(), [x.identity() for x in self.layers]]

    def _arguments(self) -> list[str]:
        return [*map(str, self.layers), *super()._arguments()]


def total(states: Sequence[int | None], copies: int = 1) -> int | None:
    """The sum of what layers carry, ``copies`` times; None if one of them is not known."""
    known = [state for state in states if state is not None]
    return copies * sum(known) if len(known) == len(states) else None


def knob_text(value: Any) -> str:
    """A knob's value as specs write it, which :func:`knob_value` reads back; strings are quoted where they would read as
    something else, and a quote within them is doubled."""
    if not isinstance(value, str) or (re.fullmatch(r"[A-Za-z_][\w.+/:-]*", value) and knob_value(value) == value):
        return str(value)
    return '"{}"'.format(value.replace('"', '""'))


def knob_value(text: str) -> Any:
    """The value of a knob that specs write as ``text``: a quoted string, a truth value, a number, or else the text itself."""
    if text[0] in "\"'":
        return text[1:-1].replace(2 * text[0], text[0])
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            pass
    return text


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


LARGEST = 10**12
"""Of whole numbers that are knobs, lengths or states: beyond any model, and small enough to be counted with."""

_REGISTRY: dict[str, type[LayerConfig]] = {}
_NOT_FAMILIES = {"base", "ops", "substates", "third_party"}

Config = TypeVar("Config", bound=type[LayerConfig])


def register(name: str) -> Callable[[Config], Config]:
    """Class decorator: make a config known under ``name`` in specs.

    Raises:
        ArchlabError: the name is taken by another class, a knob has no default, or ``state_knob`` names no knob.
    """

    def add(config: Config) -> Config:
        taken = _REGISTRY.get(name)
        if taken is not None and (taken.__module__, taken.__qualname__) != (config.__module__, config.__qualname__):
            raise ArchlabError(f"layer name {name!r} is taken by {taken.__module__}.{taken.__qualname__}")
        defaults = _defaults(config)
        for knob, default in defaults.items():
            if default is MISSING:
                raise ArchlabError(f"layer {name!r}: its knob {knob} needs a default, as in {knob}: int = 4")
        state_knob: Any = config.state_knob  # a property where it depends on other knobs
        if isinstance(state_knob, str) and state_knob and type(defaults.get(state_knob)) is not int:
            raise unknown(f"state_knob of layer {name!r}:", state_knob, (k for k, v in defaults.items() if type(v) is int))
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
    """Every known layer by name, without those that are made of others. Imports torch on the first call."""
    _import_families()
    return MappingProxyType({name: config for name, config in _REGISTRY.items() if not issubclass(config, Composite)})


def composites() -> Mapping[str, type[Composite]]:
    """Every known way to make a layer of layers, by name. Imports torch on the first call."""
    _import_families()
    return MappingProxyType({name: config for name, config in _REGISTRY.items() if issubclass(config, Composite)})


def is_path(name: str) -> bool:
    """Whether a name is the path of an ``nn.Module`` class, as ``my_pkg.mixers.Foo`` and ``fla:Foo`` are, not that of a layer."""
    return "." in name or ":" in name


def unknown_layer(name: str, others: Iterable[str] = ()) -> ArchlabError:
    """The error for a layer that is not known; ``others`` are further names that would be."""
    from archlab.layers.third_party.sources import left_out

    reasons = "".join(f"; the layers of {package} cannot be imported: {reason}" for package, reason in left_out.items())
    return ArchlabError(f"{unknown('layer', name, {*registry(), *composites(), *others})}{reasons}")


def layer(name: str, *layers: LayerConfig, **knobs: Any) -> LayerConfig:
    """The config of a layer.

    ``layer("mamba", d_state=8)``, ``layer("parallel", layer("mamba"), layer("mh-attention"))``, or any module by its path:
    ``layer("my_pkg.mixers.Foo", heads=4)``.

    Raises:
        ArchlabError: the name or a knob is unknown, a knob's value has the wrong type or is no finite number, the layer is
            made of no others, or its config cannot be made.
    """
    known = {**registry(), **composites()}
    if name not in known and is_path(name):
        from archlab.layers.third_party.dotted import module_layer

        if layers:
            raise ArchlabError(f"{name}({layers[0]}): it is made of no layers, give knobs only")
        return module_layer(name, knobs)
    if name not in known:
        raise unknown_layer(name)
    config = known[name]
    made_of: dict[str, Any] = {"layers": layers} if issubclass(config, Composite) else {}
    for part in layers:
        if not made_of or not isinstance(part, LayerConfig):
            wanted = "give layers, then knobs" if made_of else "it is made of no layers, give knobs only"
            raise ArchlabError(f"{name}({part}): {wanted}")
    defaults = _defaults(config)
    for knob, value in knobs.items():
        if knob not in defaults:
            raise unknown(f"knob of {name}:", knob, defaults)
        check_number(f"{name}({knob}={value})", value)
        knobs[knob] = _coerce(f"{name}({knob}={value})", value, type(defaults[knob]))
    try:
        return config(**made_of, **knobs)
    except ArchlabError:
        raise
    except (Exception, SystemExit) as error:  # the config of someone else
        raise ArchlabError(f"{name}: its config cannot be made: {in_one_line(error)}") from error


def _defaults(config: type[LayerConfig]) -> dict[str, Any]:
    """The knobs of a class with their defaults."""
    return {f.name: f.default for f in fields(config) if not (issubclass(config, Composite) and f.name == "layers")}


def check_number(where: str, value: Any) -> None:
    """Refuse NaN and infinity, which no spec can write, and whole numbers beyond :data:`LARGEST`.

    Raises:
        ArchlabError: naming ``where`` the value is given.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ArchlabError(f"{where}: give a finite number")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ArchlabError(f"{where}: give a number of at most {LARGEST:,}")


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
        raise ArchlabError(
            f"{config.name}({knob}={value}): width {dim} is not divisible by {value}; "
            f"the nearest that fits is {knob}={nearest_divisor(dim, value)}"
        )


def divides_evenly(config: LayerConfig, knob: str, dim: int) -> None:
    """For ``validate``: refuse a knob that does not split the width into parts of even width, and name the nearest that does.

    Raises:
        ArchlabError: naming layer, knob, value, width and the nearest that fits.
    """
    value = getattr(config, knob)
    if dim % (2 * value) == 0:
        return
    if dim % 2:
        raise ArchlabError(f"{config}: width {dim} is odd and splits into no {knob} of even width; use an even width")
    raise ArchlabError(
        f"{config.name}({knob}={value}): width {dim} does not split into {value} {knob} of even width; "
        f"the nearest that fits is {knob}={nearest_divisor(dim // 2, value)}"
    )


def nearest_divisor(number: int, value: int) -> int:
    """The divisor of a number that is nearest to a value; of two as near the smaller."""
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return min((*small, *(number // n for n in small)), key=lambda n: (abs(n - value), n))
