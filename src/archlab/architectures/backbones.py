"""The models that a stack of layers is put into: a language model, with tied embeddings or not, and an auto-encoder."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from archlab.layers.ops.rms_norm import RMSNorm

if TYPE_CHECKING:
    from archlab.layers.contract import LayerConfig

NORMS: dict[str, Callable[[int], nn.Module]] = {"rmsnorm": RMSNorm, "layernorm": nn.LayerNorm}


class Residual(nn.Module):
    """A layer with the norm before it and the residual around it: x + layer(norm(x))."""

    def __init__(self, norm: nn.Module, layer: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.layer = layer

    def forward(self, x_bld: Tensor) -> Tensor:
        """``(batch, length, dim)`` to the same shape."""
        y_bld: Tensor = self.layer(self.norm(x_bld))
        return x_bld + y_bld


class Backbone(nn.Module):
    """Token embedding, residual layers, final norm, untied unembedding with bias.

    No position embedding: layers that need positions have their own. ``forward`` is :meth:`features`, then
    :meth:`logits`; a caller that needs the logits of some positions only picks them between the two. The channel mixers
    behind the last sequence mixer belong to the second part, for they act on each position by itself.
    """

    def __init__(
        self,
        layers: "Sequence[LayerConfig]",
        *,
        num_mixing: int,
        vocab_size: int,
        max_length: int,
        dim: int,
        norm: str,
        embedding_std: float,
    ) -> None:
        """``num_mixing``: number of layers up to and including the last that mixes positions."""
        super().__init__()
        make_norm = NORMS[norm]
        self.embedding = nn.Embedding(vocab_size, dim)
        self.layers = nn.ModuleList(Residual(make_norm(dim), config.build(dim, max_length)) for config in layers)
        self.num_mixing = num_mixing
        self.norm = make_norm(dim)
        self.unembedding = nn.Linear(dim, vocab_size)
        nn.init.normal_(self.embedding.weight, std=embedding_std)
        nn.init.zeros_(self.unembedding.bias)

    def features(self, ids_bl: Tensor) -> Tensor:
        """Token ids ``(batch, length)`` to ``(batch, length, dim)``: all that mixes positions."""
        x_bld: Tensor = self.embedding(ids_bl)
        for layer in self.layers[: self.num_mixing]:
            x_bld = layer(x_bld)
        return x_bld

    def mix_channels(self, features_bld: Tensor) -> Tensor:
        """The layers behind the last one that mixes positions: ``(batch, length, dim)`` to the same shape."""
        for layer in self.layers[self.num_mixing :]:
            features_bld = layer(features_bld)
        return features_bld

    def logits(self, features_bld: Tensor) -> Tensor:
        """``(batch, length, dim)`` to ``(batch, length, vocab_size)``: acts on each position by itself."""
        return self.unembed(self.mix_channels(features_bld))

    def unembed(self, mixed_bld: Tensor) -> Tensor:
        """The output of the last layer, ``(..., dim)``, to logits ``(..., vocab_size)``."""
        return self.unembedding(self.norm(mixed_bld))

    def forward(self, ids_bl: Tensor) -> Tensor:
        """Token ids ``(batch, length)`` to logits ``(batch, length, vocab_size)``."""
        return self.logits(self.features(ids_bl))


class LanguageModel(Backbone):
    """Predicts a target at every position from the tokens up to it (arXiv 2403.17844, App. B)."""


class TiedLanguageModel(LanguageModel):
    """A language model whose unembedding is its embedding (arXiv 1608.05859), without a bias; weight decay exempts it."""

    def __init__(self, layers: "Sequence[LayerConfig]", **options: Any) -> None:
        super().__init__(layers, **options)
        del self.unembedding

    @override
    def unembed(self, mixed_bld: Tensor) -> Tensor:
        return nn.functional.linear(self.norm(mixed_bld), self.embedding.weight)


class AutoEncoder(Backbone):
    """Encodes a sequence into its last position's feature, and decodes every token from that alone.

    The feature plus a fixed sin-cos embedding of the position goes through an MLP decoder (norm, linear, GELU,
    twice; arXiv 2403.17844, App. B.2, compression task).
    """

    positions_ld: Tensor

    def __init__(self, layers: "Sequence[LayerConfig]", *, max_length: int, dim: int, norm: str, **options: Any) -> None:
        super().__init__(layers, max_length=max_length, dim=dim, norm=norm, **options)
        make_norm = NORMS[norm]
        self.decoder = nn.Sequential(
            make_norm(dim), nn.Linear(dim, dim), nn.GELU(), make_norm(dim), nn.Linear(dim, dim), nn.GELU()
        )
        self.register_buffer("positions_ld", sin_cos_positions(max_length, dim), persistent=False)

    @override
    def features(self, ids_bl: Tensor) -> Tensor:
        # The code of the whole sequence, by position.
        code_b1d = self.mix_channels(super().features(ids_bl)[:, -1:])
        return code_b1d + self.positions_ld[: ids_bl.shape[1]]

    @override
    def logits(self, features_bld: Tensor) -> Tensor:
        return self.unembedding(self.norm(self.decoder(features_bld)))


def sin_cos_positions(length: int, dim: int) -> Tensor:
    """Fixed position embedding ``(length, dim)``: sines, then cosines, of geometric frequencies from 1 to 1e-4."""
    half = dim // 2
    frequencies = torch.exp(torch.arange(half) * (-math.log(10_000) / max(half - 1, 1)))
    angles = torch.arange(length)[:, None] * frequencies
    return nn.functional.pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, dim - 2 * half))


def reinit_as_reference(model: Backbone) -> None:
    """Initialise as the reference code would do with the authors' layers, over what the layers have chosen; only for comparison.

    Every bias of a linear layer becomes 0. In an auto-encoder every linear weight is drawn anew, N(0, 0.02), and Mamba's
    step sizes start at softplus(0) = 0.69 instead of 0.001 to 0.1: that undoes what Mamba, GLA and Hyena start from.

    A layer that is built otherwise than the authors' says so by ``_reference_init`` of a parameter: ``linear`` if it is part
    of a linear layer there, ``auto-encoder`` if such a part is spared in language models, ``own`` if it is no such part.
    """
    anew = isinstance(model, AutoEncoder)
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            kind = getattr(parameter, "_reference_init", "linear" if isinstance(module, nn.Linear) else "own")
            if kind == "own" or (kind == "auto-encoder" and not anew):
                continue
            if parameter.dim() == 1:
                nn.init.zeros_(parameter)
            elif anew:
                nn.init.normal_(parameter, std=0.02)
