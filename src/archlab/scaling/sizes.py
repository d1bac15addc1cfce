"""Sizes of an architecture: widths, with the depth and the heads that belong to each, and what they cost; nothing is built."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

from archlab.architectures import Architecture, architecture
from archlab.errors import ArchlabError
from archlab.layers import registry

NARROWEST = 8
WIDEST = 32_768


@dataclass(frozen=True)
class Shape:
    """How depth and heads follow from the width."""

    aspect: float = 128.0
    """Width for every two layers (a sequence mixer and a channel mixer); a stack is never less deep than its spec."""
    head_dim: int = 64
    """Width of a head, as nearly as the heads divide the width into parts of even width."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ArchlabError: one is not positive.
        """
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ArchlabError(f"{field.name}={getattr(self, field.name)}: must be positive")


@dataclass(frozen=True)
class Size:
    """One size of an architecture, as a language model over a vocabulary at a training length."""

    architecture: Architecture
    dim: int
    vocab_size: int
    length: int

    @property
    def params(self) -> int:
        """Trainable scalars, embeddings included."""
        return self.architecture.num_params(vocab_size=self.vocab_size, length=self.length, dim=self.dim)

    @property
    def params_non_embedding(self) -> int:
        """Without the embedding, and without the unembedding and its bias."""
        return self.params - self.vocab_size * (2 * self.dim + 1)

    @property
    def state(self) -> int:
        """Scalars carried from token to token at the training length; 0 if a layer's are not known."""
        return self.architecture.state_size(length=self.length, dim=self.dim) or 0


def all_sizes(spec: str, shape: Shape, *, vocab_size: int, length: int) -> Iterator[Size]:
    """Every size of a spec, from narrow to wide; widths grow by a sixteenth at most, or by 4.

    The spec's repeating unit is repeated to the depth that belongs to the width; a size without more parameters than all
    narrower ones is left out (heads of other widths may need less). Knobs that the spec gives stay as they are;
    the heads of layers that have several are set by the shape.

    Raises:
        ArchlabError: the spec cannot be read, or fits no width.
    """
    several = {name: knob for name, config in registry().items() if (knob := config.head_knob) and getattr(config, knob) > 1}
    written = architecture(spec)
    refused: ArchlabError | None = None
    largest = 0
    for dim in _widths():
        heads = _heads(dim, shape.head_dim)
        value = architecture(spec, layer_defaults={name: {knob: heads} for name, knob in several.items()})
        try:
            value.validate(dim)
        except ArchlabError as error:
            refused = error
            continue
        layers = max(len(written.layers), round(2 * dim / shape.aspect / len(value.unit)) * len(value.unit))
        deep = replace(value, layers=value.unit * (layers // len(value.unit)))
        size = Size(deep, dim, vocab_size, length)
        if size.params > largest:
            largest = size.params
            yield size
    if not largest:
        raise ArchlabError(f"{spec} fits no width: {refused}")


def nearest_sizes(spec: str, targets: Sequence[float], shape: Shape, *, vocab_size: int, length: int) -> list[Size]:
    """For every target the size nearest to it in parameters, in ascending order and all different.

    Raises:
        ArchlabError: see :func:`all_sizes`; or the spec has no size as large.
    """
    wanted = sorted(targets)
    known: list[Size] = []
    beyond = 0
    for size in all_sizes(spec, shape, vocab_size=vocab_size, length=length):
        known.append(size)
        beyond += size.params > wanted[-1]
        if beyond == len(wanted):
            break
    chosen: list[int] = []
    for target in wanted:
        first = chosen[-1] + 1 if chosen else 0
        if first == len(known) or target > 2 * known[-1].params:
            raise ArchlabError(f"{spec}: no size near {target:.3g} parameters: the widest has {known[-1].params:.3g}")
        chosen.append(min(range(first, len(known)), key=lambda i: abs(math.log(known[i].params / target))))
    return [known[i] for i in chosen]


def _widths() -> Iterator[int]:
    dim = NARROWEST
    while dim <= WIDEST:
        yield dim
        dim += max(4, 2 ** (int(math.log2(dim)) - 4))


def _heads(dim: int, head_dim: int) -> int:
    """The number of heads of even width whose width is nearest to ``head_dim`` on a log scale."""
    fitting = [n for n in range(1, dim // 2 + 1) if dim % (2 * n) == 0]
    return min(fitting, key=lambda n: abs(math.log(dim / n / head_dim)))
