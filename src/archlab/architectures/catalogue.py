"""Architectures with a name: those of the paper and the usual baselines."""

from typing import NamedTuple


class Entry(NamedTuple):
    """A named architecture."""

    spec: str
    summary: str


CATALOGUE: dict[str, Entry] = {
    "transformer++": Entry("2*[mh-attention swiglu]", "attention with rotary positions, SwiGLU"),
    "attention": Entry("2*[attention swiglu]", "one attention head over the whole width, SwiGLU"),
    "sliding-attention": Entry("2*[mh-sliding-attention swiglu]", "attention over a window, SwiGLU"),
    "linear-attention": Entry("2*[mh-linear-attention swiglu]", "linear attention, SwiGLU"),
    "gla": Entry("2*[mh-gated-linear-attention swiglu]", "gated linear attention, SwiGLU"),
    "hyena": Entry("2*[hyena swiglu]", "long convolutions with gates, SwiGLU"),
    "mh-hyena": Entry("2*[mh-hyena swiglu]", "Hyena with heads, SwiGLU"),
    "mamba": Entry("4*mamba", "selective state space, no channel mixer"),
    "mamba-swiglu": Entry("2*[mamba swiglu]", "selective state space, SwiGLU"),
    "striped-hyena": Entry("hyena swiglu mh-attention swiglu", "Hyena and attention in turns, SwiGLU"),
    "striped-mh-hyena": Entry("mh-hyena swiglu mh-attention swiglu", "Hyena with heads and attention in turns, SwiGLU"),
    "striped-mamba": Entry("mamba swiglu mh-attention swiglu", "Mamba and attention in turns, SwiGLU"),
    "striped-gla": Entry("mh-gated-linear-attention swiglu mh-attention swiglu", "GLA and attention in turns, SwiGLU"),
}
