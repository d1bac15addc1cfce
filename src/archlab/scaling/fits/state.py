"""The state-optimal law: compute-optimal perplexity against the state an architecture carries (arXiv 2403.17844, sec. 5)."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from archlab.errors import ArchlabError, unknown
from archlab.scaling.fits.columns import Floats, numbered, positive_columns
from archlab.scaling.fits.resampling import Interval, Resampling

_THOUSAND = Resampling(1000)


@dataclass(frozen=True)
class StateFit:
    """``P = offset[group] * M ** exponent``: one exponent for all architectures, a factor for each."""

    exponent: float
    interval: Interval | None
    """Of the exponent; None if none was asked for, or too few points are there to draw from."""
    offsets: dict[str, float]

    def __call__(self, M: ArrayLike, group: str) -> Floats:  # noqa: N803 - the field's symbols
        """Predicted perplexity of an architecture at total state ``M``.

        Raises:
            ArchlabError: no such architecture was fitted.
        """
        if group not in self.offsets:
            raise unknown("architecture of the fit", str(group), self.offsets)
        return self.offsets[group] * np.asarray(M, float) ** self.exponent


def fit_state(
    P: ArrayLike,  # noqa: N803 - the field's symbols
    M: ArrayLike,  # noqa: N803
    group: Sequence[str],
    resampling: Resampling = _THOUSAND,
) -> StateFit:
    """Least squares of ``log P`` on ``log M`` with a shared slope and an intercept for each architecture.

    Args:
        P: compute-optimal perplexity, one for each architecture and budget.
        M: total state there, in scalars, at the training length.
        group: the architecture.
        resampling: how the interval is made; a bootstrap draws points within architectures.

    Raises:
        ArchlabError: no architecture has two different states, the columns differ in length, a value is not positive, or a
            group is no text.
    """
    perplexity, state = positive_columns(P=P, M=M)
    labels = numbered("group", group, len(state), "P")
    names = list(dict.fromkeys(group))
    if other := [name for name in names if not isinstance(name, str)]:
        raise ArchlabError(f"group: {other[0]!r} is no name of an architecture: give text")
    log_p, log_m = np.log(perplexity), np.log(state)
    exponent = _shared_slope(log_p, log_m, labels)
    interval = None
    with suppress(ArchlabError):
        interval = resampling.interval(_shared_slope, log_p, log_m, labels, strata=labels)
    residual = log_p - exponent * log_m
    offsets = {str(name): float(np.exp(residual[labels == number].mean())) for number, name in enumerate(names)}
    return StateFit(exponent, interval, offsets)


def _shared_slope(log_p: Floats, log_m: Floats, labels: NDArray[np.intp]) -> float:
    means = [(labels == label) for label in np.unique(labels)]
    x, y = log_m.copy(), log_p.copy()
    for mine in means:
        x[mine] -= x[mine].mean()
        y[mine] -= y[mine].mean()
    spread = float(x @ x)
    if spread == 0:
        raise ArchlabError("no architecture was measured at two states: there is no slope to fit; add budgets or sizes")
    return float(x @ y) / spread
