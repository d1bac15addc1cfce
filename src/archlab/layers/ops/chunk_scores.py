"""Scores of readers against writers within chunks, decayed from the writer's position to the reader's.

Readers and writers are stacked, so that all their scores are one product. ``b`` is the log decay, to base two, accumulated from
the beginning of each chunk. If it has width 1, the decay is a factor of the score (structured masked attention, arXiv
2405.21060, section 4); else :mod:`archlab.layers.ops.decayed_chunks` says why nothing overflows.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from archlab.layers.ops.decayed_chunks import decays, decays_within, sizes, without_future


def scores(readers: Tensor, writers: Tensor, b: Tensor, block: int) -> Tensor:
    """Inner products (chunks, N, R, chunk, W, chunk), 0 with what is written later.

    For all readers but the first also with what is written at their position.

    Args:
        readers, writers: (chunks, N, R, chunk, K) and (chunks, N, W, chunk, K), N counting sequences and heads together.
        b: (chunks, N, chunk, K) or (chunks, N, chunk, 1).
        block: positions over which writers grow (:func:`archlab.layers.ops.decayed_chunks.block_size`).
    """
    leading = readers.shape[:2]
    readers, writers, b = (x.flatten(0, 1) for x in (readers, writers, b))
    stack, chunk = readers.shape[1:3]
    if b.shape[-1] == 1:
        found = _products(readers[:, None], writers[:, None])[:, 0].mul_(decays_within(b)[:, None, :, None])
    else:
        found = b.new_zeros(len(b), stack, chunk, writers.shape[1], chunk)
        for size, halved, since, until in _levels(b, block):
            pairs = _products(_scaled(readers, since, size, halved, 1), _scaled(writers, until, size, halved, 0))
            _squares(found, size, halved).copy_(pairs if halved else without_future(pairs, block))
    return _without_own(found).view(*leading, *found.shape[1:])


def scores_gradients(dscores: Tensor, readers: Tensor, writers: Tensor, b: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Gradients with respect to readers and writers, given those of :func:`scores`, which are overwritten."""
    dreaders, dwriters = torch.empty_like(readers), torch.empty_like(writers)
    into = dreaders.flatten(0, 1), dwriters.flatten(0, 1)
    dscores, readers, writers, b = (x.flatten(0, 1) for x in (dscores, readers, writers, b))
    _without_own(dscores)
    if b.shape[-1] == 1:
        pairs = dscores.mul_(decays_within(b)[:, None, :, None]).flatten(1, 2).flatten(2, 3)
        torch.bmm(pairs, writers.flatten(1, 2), out=into[0].flatten(1, 2))
        torch.bmm(pairs.transpose(1, 2), readers.flatten(1, 2), out=into[1].flatten(1, 2))
        return dreaders, dwriters
    for size, halved, since, until in _levels(b, block):
        pairs = _squares(dscores, size, halved)
        pairs = (
            (pairs if halved else without_future(pairs.clone(memory_format=torch.contiguous_format), block))
            .flatten(4, 5)
            .flatten(2, 3)
        )
        of_readers = pairs @ _scaled(writers, until, size, halved, 0).flatten(2, 3)
        of_writers = pairs.transpose(2, 3) @ _scaled(readers, since, size, halved, 1).flatten(2, 3)
        for target, found, scale, half in zip(into, (of_readers, of_writers), (since, until), (1, 0), strict=True):
            rows = _rows(target, size, halved, half)
            if halved:
                rows.addcmul_(found.view(rows.shape), scale)
            else:
                torch.mul(found.view(rows.shape), scale, out=rows)
    return dreaders, dwriters


def tile_size(block: int, chunk: int) -> int:
    """Positions over which the scores within blocks are computed, those between its blocks in vain: small products are slow."""
    return max(block, min(16, chunk))


def _levels(b: Tensor, block: int) -> Iterator[tuple[int, bool, Tensor, Tensor]]:
    """Sizes of stretches, whether they are halved, and the decays (N, stretches, 1, rows, K) of what is read and written.

    First tiles, for their blocks, then what is halved.
    """
    for size in sizes(b.shape[1], block):
        since, until = decays(b, size, block)
        size, rows = (size, size // 2) if size > block else (tile_size(block, b.shape[1]),) * 2
        shape = len(b), -1, 1, rows, b.shape[-1]
        yield size, rows < size, since.view(shape), until.view(shape)


def _rows(x: Tensor, size: int, halved: bool, half: int) -> Tensor:
    """View (N, stretches, stack, rows, K) of (N, stack, chunk, K): every stretch, or a half of it."""
    count, stack, _, width = x.shape
    if halved:
        return x.view(count, stack, -1, 2, size // 2, width)[:, :, :, half].transpose(1, 2)
    return x.view(count, stack, -1, size, width).transpose(1, 2)


def _scaled(x: Tensor, scale: Tensor, size: int, halved: bool, half: int) -> Tensor:
    rows = _rows(x, size, halved, half)
    return torch.mul(rows, scale, out=x.new_empty(rows.shape))


def _products(readers: Tensor, writers: Tensor) -> Tensor:
    """(N, stretches, R, rows, K) and (N, stretches, W, columns, K) to (N, stretches, R, rows, W, columns)."""
    pairs = readers.flatten(2, 3) @ writers.flatten(2, 3).transpose(2, 3)
    return pairs.view(*readers.shape[:-1], *writers.shape[2:-1])


def _squares(pairs: Tensor, size: int, halved: bool) -> Tensor:
    """The scores within each stretch, or of its second half with its first: (N, stretches, R, rows, W, columns)."""
    count, readers, chunk, writers, _ = pairs.shape
    stretches = chunk // size
    squares = pairs.view(count, readers, stretches, size, writers, stretches, size).diagonal(dim1=2, dim2=5).movedim(-1, 1)
    return squares[:, :, :, size // 2 :, :, : size // 2] if halved else squares


def _without_own(pairs: Tensor) -> Tensor:
    pairs[:, 1:].diagonal(dim1=2, dim2=4).zero_()
    return pairs
