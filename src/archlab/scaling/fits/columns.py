"""What every fit takes: columns of one length and options, checked before anything is computed."""

from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from archlab.errors import ArchlabError

Floats = NDArray[np.float64]
RANGE = (1e-100, 1e100)
"""Of the numbers that fits take: squares, products and quotients of two of them stay within that of float64."""


def array(name: str, values: ArrayLike, dtype: type[np.float64] | None = None) -> NDArray[Any]:
    """The values as an array, by default of their own type.

    Raises:
        ArchlabError: they are none, some are masked, or their conversion would lose something.
    """
    if np.ma.is_masked(values):
        raise ArchlabError(f"{name}: some values are masked: leave those runs out of every column")
    try:
        if dtype is None or not np.iscomplexobj(values):
            return np.asarray(values, dtype)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last is torch's, of a tensor that requires a gradient
        pass
    raise ArchlabError(f"{name}: give numbers, not {_shown(values)}")


def positive_columns(**columns: ArrayLike) -> list[Floats]:
    """The columns as float64 vectors, in the given order.

    Raises:
        ArchlabError: naming the column that is not a vector, differs in length from the first, or holds a value that is
            not a positive number within :data:`RANGE`, with its place.
    """
    found: list[Floats] = []
    for name, values in columns.items():
        column: Floats = array(name, values, np.float64)
        if column.ndim != 1:
            raise ArchlabError(f"{name}: give one number a run, not an array of shape {column.shape}")
        if found and len(column) != len(found[0]):
            first = next(iter(columns))
            raise ArchlabError(f"{name} has {len(column)} values, {first} has {len(found[0])}: give one of each a run")
        bad = np.flatnonzero(~((column >= RANGE[0]) & (column <= RANGE[1])))
        if len(bad):
            raise ArchlabError(
                f"{name}[{bad[0]}]={column[bad[0]]}: fits need positive finite numbers, {RANGE[0]:g} to {RANGE[1]:g}; leave out "
                "runs that diverged or have none"
            )
        found.append(column)
    return found


def whole_columns(*columns: ArrayLike) -> list[NDArray[Any]]:
    """Columns of any type, a value or a row of values for each run.

    Raises:
        ArchlabError: there are none, one is a scalar or differs in length from the first, or a value is missing.
    """
    found = [array(f"columns[{place}]", values) for place, values in enumerate(columns)]
    if not found:
        raise ArchlabError("columns: none are given: give at least one, with a value for each run")
    for place, column in enumerate(found):
        if not column.ndim or len(column) != len(found[0]):
            size = f"{len(column)} values, columns[0] has {len(found[0])}" if column.ndim else "no values, but is a single one"
            raise ArchlabError(f"columns[{place}] has {size}: give one of each a run")
        missing = np.argwhere(np.frompyfunc(_is_missing, 1, 1)(column) if column.dtype == object else column != column)
        if len(missing):
            raise ArchlabError(f"columns[{place}][{missing[0, 0]}]={column[tuple(missing[0])]}: leave out runs without a value")
    return found


def numbered(name: str, labels: Any, points: int, column: str = "C") -> NDArray[np.intp]:
    """Labels as numbers from 0 on; a dictionary tells labels apart that NumPy would turn into equal text.

    Args:
        name: of the labels, in errors.
        labels: one for each point.
        points: how many there are.
        column: one of so many values, in errors.

    Raises:
        ArchlabError: they are no sequence, too many or too few, or one is missing.
    """
    try:
        number, given = len(labels), list(labels)
        numbers = {label: number for number, label in enumerate(dict.fromkeys(given))}
    except (TypeError, ValueError):
        raise ArchlabError(f"{name}: give a label for each point, not {_shown(labels)}") from None
    if number != points:
        raise ArchlabError(f"{name} has {number} labels, {column} has {points} values: give one of each a point")
    if missing := [place for place, label in enumerate(given) if _is_missing(label)]:
        raise ArchlabError(f"{name}[{missing[0]}]={given[missing[0]]}: leave out points without a label")
    return np.array([numbers[label] for label in given], dtype=np.intp)


def _shown(value: object) -> str:
    return " ".join(repr(value).split())[:60]


def _is_missing(value: object) -> bool:
    try:
        return value is None or bool(value != value)  # as what is not a number does
    except TypeError:  # of pandas, whose missing value does not compare
        return True


def at_least(number: int, what: str, least: int, why: str) -> None:
    """Refuse too few of something.

    Raises:
        ArchlabError: saying how many there are, how many it takes, and why.
    """
    if number < least:
        raise ArchlabError(f"{what}: {number}; it takes at least {least} {why}")


def not_all_alike(loss: Floats, where: str = "loss") -> None:
    """Refuse losses that differ by no more than what rounding does to them.

    Raises:
        ArchlabError: they do not, naming where.
    """
    if np.ptp(loss) <= 1e-12 * loss.max():
        raise ArchlabError(f"{where}: all losses are alike, {loss[0]:.6g}: nothing to fit; add runs that differ")


def is_whole(value: object) -> bool:
    """Whether an option is a whole number; a truth value is none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_real(value: object) -> bool:
    """Whether an option is a real number, which may be infinite or none at all; a truth value is none."""
    return isinstance(value, Real) and not isinstance(value, bool)
