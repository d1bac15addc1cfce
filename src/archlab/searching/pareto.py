"""Non-dominated sorting: of points with several losses, which none other beats, and how alone they stand.

A point dominates another if none of its losses is larger and one is smaller. Losses are to be made small.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def ranks(losses: Floats) -> list[int]:
    """The rank of each of the points ``(points, objectives)``: 0 on the front, 1 on the front without these, and so on.

    Source: Deb et al. 2002, NSGA-II, section III A.
    """
    no_worse = (losses[:, None] <= losses[None]).all(-1)
    dominates = no_worse & (losses[:, None] < losses[None]).any(-1)
    left, found, rank = np.ones(len(losses), dtype=bool), np.zeros(len(losses), dtype=int), 0
    while left.any():
        front = left & ~(dominates & left[:, None]).any(0)
        found[front] = rank
        left &= ~front
        rank += 1
    return [int(one) for one in found]


def crowding(losses: Floats) -> list[float]:
    """The crowding distance of points of one rank: large where they stand alone, infinite at the ends.

    Source: Deb et al. 2002, NSGA-II, section III B.
    """
    distances = np.zeros(len(losses))
    for column in losses.T:
        order = np.argsort(column, kind="stable")
        width = column[order[-1]] - column[order[0]] or 1.0
        distances[order[[0, -1]]] = np.inf
        distances[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / width
    return [float(one) for one in distances]


def best_first(losses: Floats) -> list[int]:
    """The indices of points by rank, within a rank those that stand alone first; then in the given order."""
    rank = np.array(ranks(losses))
    alone = np.zeros(len(losses))
    for one in set(rank.tolist()):
        alone[rank == one] = crowding(losses[rank == one])
    return sorted(range(len(losses)), key=lambda index: (rank[index], -alone[index], index))


def front(losses: Floats) -> list[int]:
    """The indices of the points that none dominates."""
    return [index for index, rank in enumerate(ranks(losses)) if rank == 0] if len(losses) else []


def hypervolume(losses: Floats, reference: Sequence[float]) -> float:
    """The volume that points dominate within a reference point, by slices along the first objective."""
    inside = losses[(losses < np.asarray(reference)).all(1)]
    if not len(inside):
        return 0.0
    if inside.shape[1] == 1:
        return float(reference[0] - inside.min())
    inside = inside[np.argsort(inside[:, 0])]
    edges = [*inside[:, 0], reference[0]]
    return sum(
        float(edges[number] - edges[number - 1]) * hypervolume(inside[:number, 1:], reference[1:])
        for number in range(1, len(edges))
        if edges[number] > edges[number - 1]
    )
