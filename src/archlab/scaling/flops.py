"""FLOPs of training a language model on a sequence, by three conventions."""

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

from archlab.architectures import Architecture
from archlab.errors import ArchlabError, unknown
from archlab.layers import LayerConfig

Convention = Literal["exact", "paper", "6nd"]
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)


def training_flops(architecture: Architecture, *, dim: int, length: int, vocab_size: int, convention: Convention) -> int:
    """FLOPs of one training sequence: forward and backward, three forward passes.

    - ``exact``: what the outputs need, by the layers' own counts (of experts, those that a token is routed to), and the
      unembedding.
    - ``paper``: the formulas of arXiv 2403.17844, appendix; embedding and unembedding are ``4 L D V``.
    - ``6nd``: six for each token and parameter, embeddings included (arXiv 2203.15556). It leaves out what mixes positions,
      so it misleads at small width and long sequence; and it counts every expert.

    Raises:
        ArchlabError: the convention is unknown, or has no formula for a layer.
    """
    if convention == "exact":
        return 3 * architecture.active_flops(length=length, dim=dim, vocab_size=vocab_size)
    if convention == "6nd":
        return 6 * length * architecture.num_params(vocab_size=vocab_size, length=length, dim=dim)
    if convention == "paper":
        layers = sum(_paper_flops(config, dim, length) for config in architecture.layers)
        return 3 * round(layers + 4 * length * dim * vocab_size)
    raise unknown("FLOP convention", convention, CONVENTIONS)


def _paper_flops(config: LayerConfig, dim: int, length: int) -> float:
    formula = _PAPER.get(config.name)
    if formula is None:
        raise ArchlabError(f"FLOP convention 'paper' has no formula for {config.name}, only for {', '.join(_PAPER)}: use exact")
    return formula(config, dim, length)


# The symbols are the paper's: D width, L length. Those of experts follow from what they are made of.
def _attention(config: Any, D: int, L: int) -> float:  # noqa: N803
    return 8.0 * L * D**2 + 4.0 * L**2 * D + 2.0 * L**2 * int(config.heads)


def _glu(config: Any, D: int, L: int) -> float:  # noqa: N803
    return 2.0 * L * int(config.num_params(D, L))


def _moe(config: Any, D: int, L: int) -> float:  # noqa: N803
    return float(config.active_flops(D, L))


def _hyena(config: Any, D: int, L: int) -> float:  # noqa: N803
    inner = int(config.inner_factor) * D
    filters = int(config.filter_order) * L * inner
    long = 10 * L * math.log2(L) * inner + 4 * L * inner
    return 6 * L * D * inner / int(config.proj_groups) + 18 * L * inner + filters + long + 2 * L * D * inner


def _mh_hyena(config: Any, D: int, L: int) -> float:  # noqa: N803
    H = int(config.heads)  # noqa: N806
    filters = int(config.filter_order) * L * H
    long = 10 * L * math.log2(L) * D**2 / H + 4 * L * D**2 / H
    return 6 * L * D**2 / int(config.proj_groups) + 18 * L * D + filters + long + 2 * L * D**2


def _hyena_experts(config: Any, D: int, L: int) -> float:  # noqa: N803
    width, num = int(config.width(D)), int(config.num)
    inner = num * width
    long = 10 * L * math.log2(L) * inner + 4 * L * inner
    return 6 * L * D * inner + 18 * L * inner + int(config.filter_order) * L * inner + long + 2 * L * D * (width + num)


def _mamba(config: Any, D: int, L: int) -> float:  # noqa: N803
    E, S, K = int(config.expand), int(config.d_state), int(config.d_conv)  # noqa: N806
    rank = int(config.dt_rank) or math.ceil(D / 16)
    selection = 2 * L * D * E * (rank + 2 * S) + 2 * L * rank * D * E
    return 4.0 * L * D**2 * E + 2 * K * L * D * E + selection + 2 * L * D * E * S + 2 * L * D**2 * E


_PAPER: dict[str, Callable[[Any, int, int], float]] = {
    "attention": _attention,
    "mh-attention": _attention,
    "swiglu": _glu,
    "moe": _moe,
    "hyena": _hyena,
    "hyena-experts": _hyena_experts,
    "mh-hyena": _mh_hyena,
    "mamba": _mamba,
}
