"""Scores of readers against writers within chunks, decayed from the writer's position to the reader's.

Readers and writers are stacked, so that all their scores are one product. ``b`` is the log decay accumulated from the
beginning of each chunk. If it has width 1, the decay is a factor of the score (structured masked attention, arXiv
2405.21060, section 4); else :mod:`archlab.layers.ops.decayed_chunks` says why nothing overflows.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from archlab.layers.ops.decayed_chunks import decays, decays_within, sizes


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
        found = (b.new_empty if block >= chunk else b.new_zeros)(len(b), stack, chunk, writers.shape[1], chunk)
        for size, since, until in _levels(b, block):
            pairs = _products(_scaled(readers, since, size, block, 1), _scaled(writers, until, size, block, 0))
            _squares(found, size, block).copy_(_past(pairs) if size <= block else pairs)
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
    for size, since, until in _levels(b, block):
        pairs = _squares(dscores, size, block)
        pairs = (_past(pairs.contiguous()) if size <= block else pairs).flatten(4, 5).flatten(2, 3)
        of_readers = pairs @ _scaled(writers, until, size, block, 0).flatten(2, 3)
        of_writers = pairs.transpose(2, 3) @ _scaled(readers, since, size, block, 1).flatten(2, 3)
        for target, found, scale, half in zip(into, (of_readers, of_writers), (since, until), (1, 0), strict=True):
            rows = _rows(target, size, block, half)
            if size <= block:
                torch.mul(found.view(rows.shape), scale, out=rows)
            else:
                rows.addcmul_(found.view(rows.shape), scale)
    return dreaders, dwriters


def _levels(b: Tensor, block: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Sizes of stretches, and the decays (N, stretches, 1, rows, K) of what is read and written in them."""
    for size in sizes(b.shape[1], block):
        since, until = (x.view(len(b), -1, 1, *x.shape[1:]) for x in decays(b, size, block))
        yield size, since, until


def _rows(x: Tensor, size: int, block: int, half: int) -> Tensor:
    """View (N, stretches, stack, rows, K) of (N, stack, chunk, K): a half of every stretch, or all of a block."""
    count, stack, _, width = x.shape
    if size <= block:
        return x.view(count, stack, -1, size, width).transpose(1, 2)
    return x.view(count, stack, -1, 2, size // 2, width)[:, :, :, half].transpose(1, 2)


def _scaled(x: Tensor, scale: Tensor, size: int, block: int, half: int) -> Tensor:
    rows = _rows(x, size, block, half)
    return torch.mul(rows, scale, out=x.new_empty(rows.shape))


def _products(readers: Tensor, writers: Tensor) -> Tensor:
    """(N, stretches, R, rows, K) and (N, stretches, W, columns, K) to (N, stretches, R, rows, W, columns)."""
    pairs = readers.flatten(2, 3) @ writers.flatten(2, 3).transpose(2, 3)
    return pairs.view(*readers.shape[:-1], *writers.shape[2:-1])


def _squares(pairs: Tensor, size: int, block: int) -> Tensor:
    """The scores of each stretch's second half with its first, of blocks all: (N, stretches, R, rows, W, columns)."""
    count, readers, chunk, writers, _ = pairs.shape
    stretches = chunk // size
    squares = pairs.view(count, readers, stretches, size, writers, stretches, size).diagonal(dim1=2, dim2=5).movedim(-1, 1)
    return squares if size <= block else squares[:, :, :, size // 2 :, :, : size // 2]


def _past(pairs: Tensor) -> Tensor:
    """(..., rows, W, columns) with 0 where a column is after its row, in place."""
    size = pairs.shape[-1]
    future = torch.ones(size, size, dtype=torch.bool, device=pairs.device).triu_(1)
    return pairs.masked_fill_(future[:, None], 0)


def _without_own(pairs: Tensor) -> Tensor:
    pairs[:, 1:].diagonal(dim1=2, dim2=4).zero_()
    return pairs
