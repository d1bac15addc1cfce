"""A config without a module, for tests of what needs none."""

from dataclasses import dataclass

from archlab.fields import Count
from archlab.layers import LayerConfig, divides


@dataclass(frozen=True)
class Probe(LayerConfig):
    name = "probe"
    kind = "sequence"
    paper = "none"

    heads: Count = 1
    rate: float = 0.5
    tied: bool = False
    feature: str = "elu"

    def validate(self, dim):
        divides(self, "heads", dim)

    def num_params(self, dim, length):
        return 0

    state_size = flops = num_params

    def build(self, dim, max_length):
        raise NotImplementedError
