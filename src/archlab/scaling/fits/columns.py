"""What every fit takes: columns of numbers of one length, checked before anything is computed."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from archlab.errors import ArchlabError

Floats = NDArray[np.float64]


def positive_columns(**columns: ArrayLike) -> list[Floats]:
    """The columns as float64 vectors, in the given order.

    Raises:
        ArchlabError: naming the column that is not a vector, differs in length from the first, or holds a value that is
            not a positive finite number, with its place.
    """
    found: list[Floats] = []
    for name, values in columns.items():
        try:
            column = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError):
            raise ArchlabError(f"{name}: give numbers, not {values!r:.60}") from None
        if column.ndim != 1:
            raise ArchlabError(f"{name}: give one number a run, not an array of shape {column.shape}")
        if found and len(column) != len(found[0]):
            first = next(iter(columns))
            raise ArchlabError(f"{name} has {len(column)} values, {first} has {len(found[0])}: give one of each a run")
        bad = np.flatnonzero(~(np.isfinite(column) & (column > 0)))
        if len(bad):
            raise ArchlabError(
                f"{name}[{bad[0]}]={column[bad[0]]}: fits need positive finite numbers; leave out runs that diverged or have none"
            )
        found.append(column)
    return found


def at_least(number: int, what: str, least: int, why: str) -> None:
    """Refuse too few of something.

    Raises:
        ArchlabError: saying how many there are, how many it takes, and why.
    """
    if number < least:
        raise ArchlabError(f"{what}: {number}; it takes at least {least} {why}")
