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
    # The reference code's own configurations of its layers, its deviations from the paper included.
    "mad-lab/attention": Entry("2*[attention swiglu]", "the reference code's attention"),
    "mad-lab/mh-attention": Entry("2*[mh-attention swiglu]", "its multi-head attention"),
    "mad-lab/sliding-attention": Entry("2*[sliding-attention swiglu]", "its sliding attention: 33 tokens"),
    "mad-lab/mh-sliding-attention": Entry("2*[mh-sliding-attention swiglu]", "the same with heads"),
    "mad-lab/linear-attention": Entry("2*[linear-attention swiglu]", "its linear attention"),
    "mad-lab/mh-linear-attention": Entry("2*[mh-linear-attention swiglu]", "the same with heads"),
    "mad-lab/gla": Entry("2*[gated-linear-attention swiglu]", "its gated linear attention"),
    "mad-lab/mh-gla": Entry("2*[mh-gated-linear-attention swiglu]", "the same with heads"),
    "mad-lab/hyena": Entry("2*[hyena swiglu]", "its Hyena"),
    "mad-lab/mh-hyena": Entry("2*[mh-hyena(heads=8) swiglu]", "its multi-head Hyena: 8 heads of 16, not 16 of 8"),
    "mad-lab/hyena-experts": Entry(
        "2*[hyena-experts(reference=true) moe(inner=16, reference=true)]", "its experts: routing that leaves none out"
    ),
    "mad-lab/mamba": Entry("4*mamba", "its Mamba"),
    "mad-lab/rwkv-5": Entry("2*[rwkv-5 rwkv-5-channel-mixer]", "its RWKV-5"),
    "mad-lab/rwkv-6": Entry("2*[rwkv-6 rwkv-6-channel-mixer]", "its RWKV-6"),
}
