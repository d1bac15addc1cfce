"""The architecture as a value: its layers, its costs, and its text form; :mod:`archlab.architectures.parser` reads it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from archlab.architectures.catalogue import CATALOGUE
from archlab.architectures.parser import LayerDefaults, parse
from archlab.errors import ArchlabError, in_one_line
from archlab.layers import LayerConfig
from archlab.layers.contract import total

if TYPE_CHECKING:
    from archlab.architectures.backbones import Backbone

BackboneName = Literal["language-model", "auto-encoder"]


@dataclass(frozen=True)
class Architecture:
    """An ordered stack of layers, each with a pre-norm and a residual around it. Hashable, comparable.

    ``str()`` gives a spec that reads back as an equal value.
    """

    layers: tuple[LayerConfig, ...]
    name: str | None = field(default=None, compare=False)
    """Its name in the catalogue, if it was asked for by that name."""

    def __post_init__(self) -> None:
        """Refuse an empty stack.

        Raises:
            ArchlabError: there is no layer.
        """
        if not self.layers:
            raise ArchlabError("an architecture needs at least one layer, for example 'mh-attention swiglu'")

    def __str__(self) -> str:
        """The spec, with the shortest repeating unit of a purely periodic stack written once."""
        texts = [str(x) for x in self.unit]
        times = len(self.layers) // len(texts)
        if len(self.layers) == 1 and texts[0] in CATALOGUE:
            return f"1*{texts[0]}"
        unit = " ".join(texts)
        if times == 1:
            return unit
        return f"{times}*{unit}" if len(texts) == 1 else f"{times}*[{unit}]"

    @property
    def unit(self) -> tuple[LayerConfig, ...]:
        """The shortest run of layers that the stack repeats; a stack without a period is its own."""
        n = len(self.layers)
        period = next(p for p in range(1, n + 1) if n % p == 0 and self.layers == self.layers[:p] * (n // p))
        return self.layers[:period]

    @property
    def num_mixing(self) -> int:
        """Layers up to the last one that mixes positions; those behind it act on each position by itself."""
        return max((place for place, config in enumerate(self.layers, start=1) if config.kind == "sequence"), default=0)

    @property
    def label(self) -> str:
        """What tables call it: its catalogue name, else its spec."""
        return self.name or str(self)

    def validate(self, dim: int) -> None:
        """Check that every layer fits the width.

        Raises:
            ArchlabError: naming the layer, the knob, the width and what would fit.
        """
        if dim < 1:
            raise ArchlabError(f"width {dim}: must be at least 1")
        for config in self.layers:
            try:
                config.validate(dim)
            except ArchlabError:
                raise
            except (Exception, SystemExit) as error:  # the config of someone else
                raise ArchlabError(f"{config}: validate fails at width {dim}: {in_one_line(error)}") from error

    def build(
        self,
        *,
        vocab_size: int,
        max_length: int,
        dim: int = 128,
        backbone: BackboneName = "language-model",
        norm: Literal["rmsnorm", "layernorm"] = "rmsnorm",
        embedding_std: float = 0.02,
    ) -> "Backbone":
        """An initialised model: token ids ``(batch, length)`` to logits ``(batch, length, vocab_size)``.

        Initialisation draws from torch's global generator: seed it for a reproducible model.

        Raises:
            ArchlabError: a layer does not fit the width.
        """
        from archlab.architectures.backbones import BACKBONES

        self.validate(dim)
        return BACKBONES[backbone](
            self, vocab_size=vocab_size, max_length=max_length, dim=dim, norm=norm, embedding_std=embedding_std
        )

    def num_params(
        self,
        *,
        vocab_size: int,
        length: int,
        dim: int = 128,
        backbone: BackboneName = "language-model",
        norm: Literal["rmsnorm", "layernorm"] = "rmsnorm",
    ) -> int:
        """Trainable scalars of the model :meth:`build` gives at ``max_length=length``, embeddings included."""
        per_norm = dim if norm == "rmsnorm" else 2 * dim
        layers = sum(config.num_params(dim, length) + per_norm for config in self.layers)
        decoder = 2 * (per_norm + dim * dim + dim) if backbone == "auto-encoder" else 0
        return vocab_size * dim + layers + decoder + per_norm + dim * vocab_size + vocab_size

    def state_size(self, *, length: int, dim: int = 128) -> int | None:
        """Scalars carried from token to token at inference once ``length`` tokens can be held; None if a layer's is unknown."""
        return total([config.state_size(dim, length) for config in self.layers])

    def matrix_state(self, *, length: int, dim: int = 128) -> int | None:
        """Of :meth:`state_size`, what holds content, see :meth:`archlab.layers.LayerConfig.matrix_state`."""
        return total([config.matrix_state(dim, length) for config in self.layers])

    def layer_params(self, *, length: int, dim: int = 128) -> int:
        """Trainable scalars of the layers, without norms, embedding and unembedding."""
        return sum(config.num_params(dim, length) for config in self.layers)

    def flops(self, *, length: int, dim: int = 128, vocab_size: int = 0, backbone: BackboneName = "language-model") -> int:
        """FLOPs of one forward pass over one sequence; a multiply-add is 2.

        With ``vocab_size`` the unembedding is counted too (and the auto-encoder's decoder, always).
        Norms, activations and the embedding's look-up are not.
        """
        return self._flops(lambda config, at: config.flops(dim, at), length, dim, vocab_size, backbone)

    def active_flops(self, *, length: int, dim: int = 128, vocab_size: int = 0, backbone: BackboneName = "language-model") -> int:
        """Of :meth:`flops`, those that the outputs need, see :meth:`archlab.layers.LayerConfig.active_flops`."""
        return self._flops(lambda config, at: config.active_flops(dim, at), length, dim, vocab_size, backbone)

    def _flops(
        self, of: Callable[[LayerConfig, int], int], length: int, dim: int, vocab_size: int, backbone: BackboneName
    ) -> int:
        layers = sum(of(config, seen) for config, seen in zip(self.layers, self.positions(length, backbone), strict=True))
        decoder = 4 * length * dim * dim if backbone == "auto-encoder" else 0
        return layers + decoder + 2 * length * dim * vocab_size

    def positions(self, length: int, backbone: BackboneName = "language-model") -> list[int]:
        """Of a sequence, the positions that each layer sees: one of the auto-encoder behind the last that mixes positions."""
        behind = 1 if backbone == "auto-encoder" else length
        return [length] * self.num_mixing + [behind] * (len(self.layers) - self.num_mixing)

    def arithmetic_intensity(self, *, length: int, dim: int = 128, vocab_size: int = 0) -> float:
        """FLOPs of one forward pass of the language model over one sequence, for each byte that it must move in float32.

        Bytes counted: every parameter read once, of the embedding the rows of the sequence; the input of every layer read
        and its output written once; the logits written once. What a layer moves within itself is not counted, so a
        program that keeps less in cache has a lower intensity; a batch, which shares the parameters, has a higher one.
        """
        weights = self.num_params(vocab_size=vocab_size, length=length, dim=dim) - vocab_size * dim
        moved = length * (dim + 2 * dim * len(self.layers) + vocab_size)
        return self.flops(length=length, dim=dim, vocab_size=vocab_size) / (4 * (weights + moved))


def architecture(spec: str, *, layer_defaults: LayerDefaults | None = None) -> Architecture:
    """Read a spec: ``architecture("3*[mh-hyena swiglu] mh-attention swiglu")``.

    Args:
        spec: the text; see :mod:`archlab.architectures.parser` for the form.
        layer_defaults: values for knobs that the text does not give, by layer name and knob.

    Raises:
        ArchlabError: the text is malformed (with the position), or a layer or knob is unknown.
    """
    name = spec.strip()
    if name in CATALOGUE:
        return Architecture(parse(CATALOGUE[name].spec, layer_defaults or {}), name=name)
    return Architecture(parse(spec, layer_defaults or {}))
