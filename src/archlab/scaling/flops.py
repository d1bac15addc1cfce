"""FLOPs of training a language model on a sequence, by three conventions."""

from typing import Literal, get_args

from archlab.architectures import Architecture
from archlab.architectures.backbone_config import BackboneName
from archlab.errors import ArchlabError, unknown
from archlab.layers import registry

Convention = Literal["exact", "paper", "6nd"]


def training_flops(
    architecture: Architecture,
    *,
    dim: int,
    length: int,
    vocab_size: int,
    convention: Convention,
    backbone: BackboneName = "language-model",
) -> int:
    """FLOPs of one training sequence: forward and backward, three forward passes.

    - ``exact``: what the outputs need, by the layers' own counts (of experts, those that a token is routed to), and the
      unembedding.
    - ``paper``: the formulas of arXiv 2403.17844, appendix; embedding and unembedding are ``4 L D V``.
    - ``6nd``: six for each token and parameter, embeddings included (arXiv 2203.15556). It leaves out what mixes positions,
      so it misleads at small width and long sequence; and it counts every expert.

    An ArchlabError says that the convention is unknown, or has no formula for a layer.
    """
    if convention == "exact":
        return 3 * architecture.active_flops(length=length, dim=dim, vocab_size=vocab_size, backbone=backbone)
    if convention == "6nd":
        return 6 * length * architecture.num_params(vocab_size=vocab_size, length=length, dim=dim, backbone=backbone)
    if convention != "paper":
        raise unknown("FLOP convention", convention, get_args(Convention))
    layers = 0.0
    for config in architecture.layers:
        if (flops := config.paper_flops(dim, length)) is None:
            known = [name for name, other in registry().items() if other().paper_flops(dim, length) is not None]
            raise ArchlabError(
                f"FLOP convention 'paper' has no formula for {config.name}, only for {', '.join(known)}: use exact"
            )
        layers += flops
    return 3 * round(layers + 4 * length * dim * vocab_size)
