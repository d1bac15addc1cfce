"""Sizes: what belongs to a width, and which are chosen."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archlab.architectures import architecture
from archlab.architectures.catalogue import CATALOGUE
from archlab.errors import ArchlabError
from archlab.scaling.sizes import Shape, Size, all_sizes, nearest_sizes

VOCAB, LENGTH = 99, 64
DEFAULT = Shape()


def sizes(spec: str, shape: Shape = DEFAULT, below: float = 1e8):
    found = []
    for size in all_sizes(spec, shape, vocab_size=VOCAB, length=LENGTH):
        if size.params > below:
            break
        found.append(size)
    return found


def depth(size: Size) -> int:
    return len(size.architecture.layers)


@pytest.mark.parametrize("spec", CATALOGUE)
def test_every_architecture_grows(spec: str):
    found = sizes(spec)
    assert len(found) > 20
    assert all(one.params < other.params and one.dim < other.dim and depth(one) <= depth(other) for one, other in pairwise(found))
    written = architecture(spec)
    for size in found:
        assert depth(size) >= len(written.layers)
        assert size.architecture.unit == size.architecture.layers[: len(written.unit)]
        size.architecture.validate(size.dim)


def test_predictions_are_what_is_built():
    import torch

    for spec in ("striped-mh-hyena", "mamba", "3*[mh-gated-linear-attention swiglu] mh-attention swiglu"):
        (size,) = nearest_sizes(spec, [60_000], Shape(), vocab_size=VOCAB, length=LENGTH)
        with torch.device("meta"):
            model = size.architecture.build(vocab_size=VOCAB, max_length=LENGTH, dim=size.dim)
        assert size.params == sum(p.numel() for p in model.parameters())
        ends = [*model.embedding.parameters(), *model.unembedding.parameters()]
        assert size.params_non_embedding == size.params - sum(p.numel() for p in ends)


def test_depth_follows_from_width_and_aspect():
    depths = {size.dim: depth(size) for size in sizes("transformer++", Shape(aspect=64), below=1e9)}
    assert (depths[32], depths[128], depths[256], depths[1024]) == (4, 4, 8, 32)
    # A unit of eight layers is repeated whole.
    striped = {size.dim: depth(size) for size in sizes("3*[mh-hyena swiglu] mh-attention swiglu", Shape(aspect=64), below=1e9)}
    assert (striped[32], striped[256], striped[512], striped[1024]) == (8, 8, 16, 32)


def test_heads_follow_from_width_unless_the_spec_gives_them():
    heads = {size.dim: size.architecture.layers[0].heads for size in sizes("transformer++", Shape(head_dim=32))}
    assert (heads[16], heads[32], heads[64], heads[72], heads[256]) == (1, 1, 2, 2, 8)
    size = sizes("mh-attention(heads=2) swiglu attention swiglu mh-attention", Shape(head_dim=8))[-1]
    given, single, by_width = (config.heads for config in size.architecture.layers[:5:2])
    assert (given, single) == (2, 1)
    assert by_width > 2


@settings(deadline=None)  # the first example may import torch
@given(targets=st.lists(st.floats(3e3, 1e7), min_size=1, max_size=6))
def test_sizes_are_different_and_near_their_targets(targets: list[float]):
    found = nearest_sizes("transformer++", targets, Shape(), vocab_size=VOCAB, length=LENGTH)
    assert len(found) == len(targets)
    assert all(one.params < other.params for one, other in pairwise(found))
    if all(other > 2 * one for one, other in pairwise(sorted(targets))) and min(targets) > 6e3:
        for size, target in zip(found, sorted(targets), strict=True):
            assert target / 1.5 < size.params < target * 1.5


@pytest.mark.parametrize(
    ("spec", "target", "message"),
    [
        ("mh-attention(heads=3001) swiglu", 1e5, "fits no width"),
        ("swiglu", 1e15, "swiglu: no size near 1e[+]15 parameters: the widest has"),
        ("swigul", 1e5, "unknown layer 'swigul'"),
    ],
)
def test_what_has_no_size_is_refused(spec: str, target: float, message: str):
    with pytest.raises(ArchlabError, match=message):
        nearest_sizes(spec, [target], Shape(), vocab_size=VOCAB, length=LENGTH)


def test_a_shape_is_positive():
    with pytest.raises(ArchlabError, match="aspect=0: must be positive"):
        Shape(aspect=0)
