"""Backbones before anything is built: what each has around its layers, and at how many positions the layers run.

A backbone adds its own accounting here and its module in :mod:`archlab.architectures.backbones`, which is imported to build only.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

from typing_extensions import override

if TYPE_CHECKING:
    from archlab.architectures.backbones import Backbone

BackboneName = Literal["language-model", "tied-language-model", "auto-encoder"]
Norm = Literal["rmsnorm", "layernorm"]


class Part(NamedTuple):
    """A part of a model around its layers."""

    name: str
    params: int
    """Trainable scalars."""
    flops: int = 0
    """Floating-point operations for one sequence; a multiply-add is 2, norms and activations are not counted."""


def norm_params(norm: Norm, dim: int) -> int:
    """Trainable scalars of a norm."""
    return dim if norm == "rmsnorm" else 2 * dim


class LanguageModelConfig:
    """Accounting of :class:`archlab.architectures.backbones.LanguageModel`."""

    def module(self) -> "type[Backbone]":
        """The class that is built; imports torch."""
        from archlab.architectures.backbones import LanguageModel

        return LanguageModel

    def positions(self, num_layers: int, num_mixing: int, length: int) -> list[int]:
        """Positions of a sequence that each layer runs at; the first ``num_mixing`` layers end with the last sequence mixer."""
        return [length] * num_layers

    def around(self, num_layers: int, *, vocab_size: int, length: int, dim: int, norm: Norm) -> list[Part]:
        """The parts around the layers, in the order of the forward pass."""
        return [
            Part("embedding", vocab_size * dim),
            Part("norms", (num_layers + 1) * norm_params(norm, dim)),
            Part("unembedding", vocab_size * dim + vocab_size, 2 * length * dim * vocab_size),
        ]


class TiedLanguageModelConfig(LanguageModelConfig):
    """Accounting of :class:`archlab.architectures.backbones.TiedLanguageModel`."""

    @override
    def module(self) -> "type[Backbone]":
        from archlab.architectures.backbones import TiedLanguageModel

        return TiedLanguageModel

    @override
    def around(self, num_layers: int, *, vocab_size: int, length: int, dim: int, norm: Norm) -> list[Part]:
        embedding, norms, unembedding = super().around(num_layers, vocab_size=vocab_size, length=length, dim=dim, norm=norm)
        return [embedding, norms, Part("unembedding", 0, unembedding.flops)]


class AutoEncoderConfig(LanguageModelConfig):
    """Accounting of :class:`archlab.architectures.backbones.AutoEncoder`."""

    @override
    def module(self) -> "type[Backbone]":
        from archlab.architectures.backbones import AutoEncoder

        return AutoEncoder

    @override
    def positions(self, num_layers: int, num_mixing: int, length: int) -> list[int]:
        return [length] * num_mixing + [1] * (num_layers - num_mixing)

    @override
    def around(self, num_layers: int, *, vocab_size: int, length: int, dim: int, norm: Norm) -> list[Part]:
        embedding, norms, unembedding = super().around(num_layers, vocab_size=vocab_size, length=length, dim=dim, norm=norm)
        decoder = Part("decoder", 2 * (norm_params(norm, dim) + dim * dim + dim), 4 * length * dim * dim)
        return [embedding, norms, decoder, unembedding]


BACKBONES: Mapping[BackboneName, LanguageModelConfig] = {
    "language-model": LanguageModelConfig(),
    "tied-language-model": TiedLanguageModelConfig(),
    "auto-encoder": AutoEncoderConfig(),
}
