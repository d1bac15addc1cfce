"""The layer contract.

A layer maps ``(batch, length, dim)`` to ``(batch, length, dim)``. One file adds a family of layers:
a frozen dataclass per layer (the config: its knobs and its accounting) beside the ``nn.Module`` that
the config builds. Every module of :mod:`archlab.layers` is imported on the first look-up, so a new
file needs no edit elsewhere, and so are those that installed packages name as entry points.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, get_args, runtime_checkable

from typing_extensions import override

from archlab.errors import ArchlabError
from archlab.fields import Bound, check_fields, hints
from archlab.layers.knobs import knob_text

if TYPE_CHECKING:
    from torch import Tensor, nn

    State = dict[str, Tensor]

Kind = Literal["sequence", "channel"]

_DIVIDES, _DIVIDES_EVENLY = (Bound(lambda value: value >= 1, words) for words in 2 * ["of at least 1"])
Divisor = Annotated[int, _DIVIDES]
"""A knob that divides the width."""
EvenDivisor = Annotated[int, _DIVIDES_EVENLY]
"""A knob that splits the width into parts of even width."""


@dataclass(frozen=True)
class LayerConfig(ABC):
    """A layer before anything is built: its knobs (the dataclass fields) and its costs.

    Accounting counts the layer itself, not the norm and residual around it. ``length`` is the number
    of positions of a sequence; layers whose parameters depend on a maximum length (Hyena's filter)
    take it to be that maximum.
    """

    name: ClassVar[str]
    """Name in specs, set by :func:`register`."""
    paper: ClassVar[str]
    """Where the layer comes from: an arXiv number, or a reference."""
    head_knob: ClassVar[str] = ""
    """The knob, a whole number, that says how many heads there are: ``heads`` where there is one, else empty unless given."""

    def __post_init__(self) -> None:
        """Check the knobs by their type hints and bounds, as in ``heads: Annotated[int, at_least(1)] = 4``.

        Raises:
            ArchlabError: naming layer, knob, value and what is allowed.
        """
        check_fields(self, self.name, self.knobs())

    @property
    def state_knob(self) -> str:
        """The knob, a whole number, that sets :meth:`matrix_state`; empty if none does. Most layers set a class variable."""
        return ""

    @property
    def kind(self) -> Kind:
        """Whether the layer mixes along the sequence, or along the width only, which a class variable then says."""
        return "sequence"

    @property
    def is_attention(self) -> bool:
        """Whether a token attends to the whole past before it; a class variable where no knob decides."""
        return False

    def validate(self, dim: int) -> None:
        """Raise :class:`ArchlabError` if the knobs do not fit the width ``dim``: every :data:`Divisor` must divide it."""
        for knob, hint in hints(type(self)):
            if _DIVIDES in get_args(hint):
                divides(self, knob, dim)
            if _DIVIDES_EVENLY in get_args(hint):
                divides_evenly(self, knob, dim)

    @abstractmethod
    def num_params(self, dim: int, length: int) -> int:
        """Trainable scalars."""

    @abstractmethod
    def state_size(self, dim: int, length: int) -> int | None:
        """Scalars carried from token to token at inference, for one sequence, once ``length`` tokens
        can be held: matrix states, convolution buffers, key-value caches. 0 for channel mixers; None
        if it is not known."""

    def matrix_state(self, dim: int, length: int) -> int | None:
        """The part of :meth:`state_size` that holds content: matrices and state-space states, keys and values, without inputs
        that a convolution or a token shift looks back on, sums that normalise, and counters.

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
        """The part of :meth:`flops` that a token's output needs: without experts that it was not routed to.

        All of them unless the layer says otherwise.
        """
        return self.flops(dim, length)

    def paper_flops(self, dim: int, length: int) -> float | None:
        """:meth:`flops` by the formula of arXiv 2403.17844, appendix; None if it has none for the layer."""
        return None

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

    Its module's step form holds the states of its layers (:class:`archlab.layers.side_by_side.SideBySide`).
    """

    layers: tuple[LayerConfig, ...]
    """The layers that it is made of; not a knob."""

    @property
    def kind(self) -> Kind:
        return "sequence" if any(x.kind == "sequence" for x in self.layers) else "channel"

    @property
    def is_attention(self) -> bool:
        # Attention only: beside another sequence mixer it counts as that.
        return self.kind == "sequence" and all(x.is_attention for x in self.layers if x.kind == "sequence")

    def validate(self, dim: int) -> None:
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
        return total([x.state_size(dim, length) for x in self.layers], self.copies)

    def matrix_state(self, dim: int, length: int) -> int | None:
        return total([x.matrix_state(dim, length) for x in self.layers], self.copies)

    def resized(self, dim: int, factor: float) -> LayerConfig:
        return replace(self, layers=tuple(x.resized(dim, factor) for x in self.layers))

    def knobs(self) -> dict[str, Any]:
        return {knob: value for knob, value in super().knobs().items() if knob != "layers"}

    def modules(self) -> tuple[str, ...]:
        return (*super().modules(), *(module for x in self.layers for module in x.modules()))

    def identity(self) -> list[Any]:
        return [*super().identity(), [x.identity() for x in self.layers]]

    @override
    def _arguments(self) -> list[str]:
        return [*map(str, self.layers), *super()._arguments()]


def total(states: Sequence[int | None], copies: int = 1) -> int | None:
    """The sum of what layers carry, ``copies`` times; None if one of them is not known."""
    known = [state for state in states if state is not None]
    return copies * sum(known) if len(known) == len(states) else None


@runtime_checkable
class Recurrent(Protocol):
    """The step form, which the module of a sequence mixer offers beside ``forward``.

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


def divides(config: LayerConfig, knob: str, dim: int) -> None:
    """Refuse, in ``validate``, a knob that does not divide the width; the ArchlabError names the nearest that does."""
    value = getattr(config, knob)
    if dim % value:
        raise ArchlabError(
            f"{config.name}({knob}={value}): width {dim} is not divisible by {value}; "
            f"the nearest that fits is {knob}={nearest_divisor(dim, value)}"
        )


def divides_evenly(config: LayerConfig, knob: str, dim: int) -> None:
    """As :func:`divides`, for parts of even width."""
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


def is_third_party(config: LayerConfig) -> bool:
    """Whether code from outside archlab computes the layer."""
    return any(module.partition(".")[0] != "archlab" for module in config.modules())


def origin(layers: Iterable[LayerConfig]) -> str:
    """The modules from outside archlab that compute these layers, in order; empty if there are none."""
    modules = {module for config in layers if is_third_party(config) for module in config.modules()}
    return " ".join(sorted(modules))
