"""Checks of what fits take: columns of one length, labels and options."""

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from archlab.errors import ArchlabError

Floats = NDArray[np.float64]
RANGE = (1e-100, 1e100)
"""Smallest and largest number that a fit takes: squares, products and quotients of two of them stay within float64."""


def array(name: str, values: ArrayLike, dtype: type[np.float64] | None = None) -> NDArray[Any]:
    """The values as an array, by default of their own type; refuses masked ones, and a conversion that would lose something."""
    if np.ma.is_masked(values):
        raise ArchlabError(f"{name}: some values are masked: leave those runs out of every column")
    try:
        if dtype is None or not np.iscomplexobj(values):
            return np.asarray(values, dtype)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last is torch's, of a tensor that requires a gradient
        pass
    raise ArchlabError(f"{name}: give numbers, not {_shown(values)}")


def positive_columns(**columns: ArrayLike) -> list[Floats]:
    """Return the columns as float64 vectors of one length; refuses a value that is not a positive number within :data:`RANGE`."""
    checked: list[Floats] = []
    for name, values in columns.items():
        column: Floats = array(name, values, np.float64)
        if column.ndim != 1:
            raise ArchlabError(f"{name}: give one number a run, not an array of shape {column.shape}")
        if checked and len(column) != len(checked[0]):
            first = next(iter(columns))
            raise ArchlabError(f"{name} has {len(column)} values, {first} has {len(checked[0])}: give one of each a run")
        bad = np.flatnonzero(~((column >= RANGE[0]) & (column <= RANGE[1])))
        if len(bad):
            where, fix = f"{name}[{bad[0]}]={column[bad[0]]}", "leave out runs that diverged or have none"
            if column[bad[0]] < 0 and np.asarray(values).dtype.kind == "i":
                fix = "the product of whole numbers overflowed: compute it in floats, as in 6.0 * N * D"
            raise ArchlabError(f"{where}: fits need positive finite numbers, {RANGE[0]:g} to {RANGE[1]:g}; {fix}")
        checked.append(column)
    return checked


def whole_columns(*columns: ArrayLike) -> list[NDArray[Any]]:
    """Return columns of any type, a value or a row of values for each run; refuses other lengths, and missing values."""
    arrays = [array(f"columns[{index}]", values) for index, values in enumerate(columns)]
    if not arrays:
        raise ArchlabError("columns: none are given: give at least one, with a value for each run")
    for index, column in enumerate(arrays):
        if not column.ndim or len(column) != len(arrays[0]):
            size = f"{len(column)} values, columns[0] has {len(arrays[0])}" if column.ndim else "no values, but is a single one"
            raise ArchlabError(f"columns[{index}] has {size}: give one of each a run")
        missing = np.argwhere(np.frompyfunc(_is_missing, 1, 1)(column) if column.dtype == object else column != column)
        if len(missing):
            raise ArchlabError(f"columns[{index}][{missing[0, 0]}]={column[tuple(missing[0])]}: leave out runs without a value")
    return arrays


def numbered(name: str, labels: Any, points: int, column: str = "C") -> NDArray[np.intp]:
    """Number the labels of points from 0 on. A dictionary tells labels apart that NumPy would turn into equal text."""
    try:
        number, given = len(labels), list(labels)
        numbers = {label: number for number, label in enumerate(dict.fromkeys(given))}
    except (TypeError, ValueError):
        raise ArchlabError(f"{name}: give a label for each point, not {_shown(labels)}") from None
    if number != points:
        raise ArchlabError(f"{name} has {number} labels, {column} has {points} values: give one of each a point")
    if missing := [index for index, label in enumerate(given) if _is_missing(label)]:
        raise ArchlabError(f"{name}[{missing[0]}]={given[missing[0]]}: leave out points without a label")
    return np.array([numbers[label] for label in given], dtype=np.intp)


def _shown(value: object) -> str:
    return " ".join(repr(value).split())[:60]


def _is_missing(value: object) -> bool:
    try:
        return value is None or bool(value != value)  # NaN differs from itself
    except TypeError:  # the missing value of pandas does not compare
        return True


COLLINEAR = 30.0
"""Condition number of the logarithms of two columns from which on their effects cannot be told apart."""


def check_enough(number: int, what: str, least: int, why: str) -> None:
    """Refuse fewer than ``least`` of something; the ArchlabError names the number, the least and the reason."""
    if number < least:
        raise ArchlabError(f"{what}: {number}; it takes at least {least} {why}")


def check_differ(loss: Floats, where: str = "loss") -> None:
    """Refuse losses that differ by no more than rounding; the ArchlabError begins with ``where``."""
    if np.ptp(loss) <= 1e-12 * loss.max():
        raise ArchlabError(f"{where}: all losses are equal, {loss[0]:.6g}: nothing to fit; add runs that differ")


def is_real(value: object) -> bool:
    """Tell whether an option is a real number, infinite and NaN included; booleans are not."""
    return isinstance(value, Real) and not isinstance(value, bool)


def condition_number(first: Floats, second: Floats) -> float:
    """Return the condition number of two columns' logarithms: large where they lie on a line, so that effects mix."""
    small, large = np.linalg.eigvalsh(np.cov(np.log(first), np.log(second)))
    return float(np.sqrt(large / max(small, 1e-12 * large))) if large > 0 else 1e6
