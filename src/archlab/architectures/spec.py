"""The architecture as a value: its layers, its costs, and its text form; :mod:`archlab.architectures.parser` reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from archlab.architectures.backbone_config import BACKBONES, BackboneName, LanguageModelConfig, Norm, Part
from archlab.architectures.catalogue import CATALOGUE
from archlab.architectures.parser import LayerDefaults, parse
from archlab.errors import ArchlabError, in_one_line
from archlab.fields import Count, Natural, check_fields, check_value, checked
from archlab.layers import LayerConfig
from archlab.layers.contract import total

if TYPE_CHECKING:
    from archlab.architectures.backbones import Backbone


@dataclass(frozen=True)
class Architecture:
    """An ordered stack of layers, each with a pre-norm and a residual around it. Hashable, comparable.

    ``str()`` gives a spec that reads back as an equal value.
    """

    layers: tuple[LayerConfig, ...]
    name: str | None = field(default=None, compare=False)
    """Its name in the catalogue, if it was asked for by that name."""

    def __post_init__(self) -> None:
        """Refuse an empty stack, what is no layer, and a name that is no text, by an ArchlabError."""
        check_fields(self, "architecture", only=("name",))
        if not isinstance(self.layers, tuple) or not all(isinstance(one, LayerConfig) for one in self.layers):
            raise ArchlabError(
                "architecture: layers are no tuple of layers: give those of archlab.layer, or archlab.architecture(SPEC)"
            )
        if not self.layers:
            raise ArchlabError("an architecture needs at least one layer, for example 'mh-attention swiglu'")

    @cached_property
    def _hash(self) -> int:
        return hash(str(self))

    def __hash__(self) -> int:
        return self._hash

    def __getstate__(self) -> dict[str, Any]:
        return {"layers": self.layers, "name": self.name}  # hashes of texts hold in one process only

    def __str__(self) -> str:
        return self._text

    @cached_property
    def _text(self) -> str:
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
        return max((index for index, config in enumerate(self.layers, start=1) if config.kind == "sequence"), default=0)

    @property
    def label(self) -> str:
        """Its name in tables: that of the catalogue, else its spec."""
        return self.name or str(self)

    def named(self, name: str | None) -> Architecture:
        """The same architecture with another name in tables."""
        return replace(self, name=name)

    def warning(self) -> str:
        """A line that says so if no layer mixes along the sequence, as after forgotten quotes; else empty."""
        if self.num_mixing:
            return ""
        fix = f"quote the layers of one architecture together, as in 'mh-attention {self}'"
        return f"{self} has no sequence mixer, so none of its outputs depends on an earlier token: {fix}"

    def validate(self, dim: int) -> None:
        """Check that every layer fits the width.

        Raises:
            ArchlabError: naming the layer, the knob, the width and what would fit.
        """
        _check(Count, dim=dim)
        for config in self.layers:
            try:
                config.validate(dim)
            except ArchlabError:
                raise
            except (Exception, SystemExit) as error:  # the config of someone else
                raise ArchlabError(f"{config}: validate fails at width {dim}: {in_one_line(error)}") from error

    @checked
    def build(
        self,
        *,
        vocab_size: Count,
        max_length: Count,
        dim: Count = 128,
        backbone: BackboneName = "language-model",
        norm: Norm = "rmsnorm",
        embedding_std: float = 0.02,
    ) -> Backbone:
        """An initialised model: token ids ``(batch, length)`` to logits ``(batch, length, vocab_size)``.

        Initialisation draws from torch's global generator: seed it for a reproducible model.

        Raises:
            ArchlabError: a layer does not fit the width.
        """
        self.validate(dim)
        return BACKBONES[backbone].module()(
            self.layers,
            num_mixing=self.num_mixing,
            vocab_size=vocab_size,
            max_length=max_length,
            dim=dim,
            norm=norm,
            embedding_std=embedding_std,
        )

    def around(
        self, *, vocab_size: int, length: int, dim: int = 128, backbone: BackboneName = "language-model", norm: Norm = "rmsnorm"
    ) -> list[Part]:
        """Name, trainable scalars and FLOPs of one sequence of every part of the model around its layers."""
        _check(Natural, vocab_size=vocab_size)
        return _backbone(backbone).around(len(self.layers), vocab_size=vocab_size, length=length, dim=dim, norm=norm)

    def positions(self, length: int, backbone: BackboneName = "language-model") -> list[int]:
        """Positions of a sequence that each layer runs at."""
        return _backbone(backbone).positions(len(self.layers), self.num_mixing, length)

    def num_params(
        self, *, vocab_size: int, length: int, dim: int = 128, backbone: BackboneName = "language-model", norm: Norm = "rmsnorm"
    ) -> int:
        """Trainable scalars of the model that :meth:`build` gives at ``max_length=length``, embeddings included."""
        around = self.around(vocab_size=vocab_size, length=length, dim=dim, backbone=backbone, norm=norm)
        return self.layer_params(length=length, dim=dim) + sum(part.params for part in around)

    def layer_params(self, *, length: int, dim: int = 128) -> int:
        """Trainable scalars of the layers, without norms, embedding and unembedding."""
        _check(Count, length=length, dim=dim)
        return sum(config.num_params(dim, length) for config in self.layers)

    def state_size(self, *, length: int, dim: int = 128) -> int | None:
        """Scalars carried from token to token at inference once ``length`` tokens can be held; None if a layer's is unknown."""
        _check(Count, length=length, dim=dim)
        return total([config.state_size(dim, length) for config in self.layers])

    def matrix_state(self, *, length: int, dim: int = 128) -> int | None:
        """The part of :meth:`state_size` that holds content, as :meth:`archlab.layers.LayerConfig.matrix_state` defines it."""
        _check(Count, length=length, dim=dim)
        return total([config.matrix_state(dim, length) for config in self.layers])

    def flops(self, *, length: int, dim: int = 128, vocab_size: int = 0, backbone: BackboneName = "language-model") -> int:
        """FLOPs of one forward pass over one sequence; a multiply-add is 2.

        With ``vocab_size`` the unembedding is counted too (and the auto-encoder's decoder, always).
        Norms, activations and the embedding's look-up are not.
        """
        return self._flops(lambda config, at: config.flops(dim, at), length, dim, vocab_size, backbone)

    def active_flops(self, *, length: int, dim: int = 128, vocab_size: int = 0, backbone: BackboneName = "language-model") -> int:
        """The part of :meth:`flops` that the outputs need: without experts that a token is not routed to."""
        return self._flops(lambda config, at: config.active_flops(dim, at), length, dim, vocab_size, backbone)

    def _flops(
        self, cost: Callable[[LayerConfig, int], int], length: int, dim: int, vocab_size: int, backbone: BackboneName
    ) -> int:
        _check(Count, length=length, dim=dim)
        layers = sum(cost(config, at) for config, at in zip(self.layers, self.positions(length, backbone), strict=True))
        around = self.around(vocab_size=vocab_size, length=length, dim=dim, backbone=backbone)
        return layers + sum(part.flops for part in around)

    def arithmetic_intensity(self, *, length: int, dim: int = 128, vocab_size: int = 0) -> float:
        """FLOPs of one forward pass of the language model over one sequence, for each byte that it must move in float32.

        Bytes counted: every parameter read once, of the embedding the rows of the sequence; the input of every layer read
        and its output written once; the logits written once. What a layer moves within itself is not counted, so a
        program that keeps less in cache has a lower intensity; a batch, which shares the parameters, has a higher one.
        """
        weights = self.num_params(vocab_size=vocab_size, length=length, dim=dim) - vocab_size * dim
        moved = length * (dim + 2 * dim * len(self.layers) + vocab_size)
        return self.flops(length=length, dim=dim, vocab_size=vocab_size) / (4 * (weights + moved))


@checked
def architecture(spec: str, *, layer_defaults: LayerDefaults | None = None) -> Architecture:
    """Read a spec: ``architecture("3*[mh-hyena swiglu] mh-attention swiglu")``.

    Args:
        spec: the text, in the form that :mod:`archlab.architectures.parser` describes.
        layer_defaults: values for knobs that the text does not give, by layer name and knob.

    Raises:
        ArchlabError: the text is malformed (with the position), or a layer or knob is unknown.
    """
    name = spec.strip()
    if name in CATALOGUE:
        return Architecture(parse(CATALOGUE[name].spec, layer_defaults or {}), name=name)
    return Architecture(parse(spec, layer_defaults or {}))


def _backbone(name: BackboneName) -> LanguageModelConfig:
    if name not in BACKBONES:
        check_value("backbone", name, BackboneName)
    return BACKBONES[name]


def _check(hint: Any, **sizes: int) -> None:
    """Refuse sizes that the hint does not allow; costs next to nothing where all is right."""
    for name, value in sizes.items():
        if type(value) is not int or value < 1:
            check_value(name, value, hint)
