"""The state-optimal law: compute-optimal perplexity over the state of an architecture (arXiv 2403.17844, section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from archlab.errors import ArchlabError, unknown
from archlab.fields import check_value
from archlab.scaling.fits.columns import Floats, numbered, positive_columns
from archlab.scaling.fits.resampling import Interval, Resampling


@dataclass(frozen=True)
class StateFit:
    """``perplexity = offset[group] * state ** exponent``: one exponent for all architectures, a factor for each."""

    exponent: float
    interval: Interval | None
    """Interval of the exponent; None if none was asked for, or there are too few points to draw from."""
    offsets: dict[str, float]

    def __call__(self, state: ArrayLike, group: str) -> Floats:
        """Return the predicted perplexity of an architecture at a total state.

        Raises:
            ArchlabError: no such architecture was fitted.
        """
        if group not in self.offsets:
            raise unknown("architecture of the fit", str(group), self.offsets)
        return self.offsets[group] * np.asarray(state, float) ** self.exponent


def fit_state(*, perplexity: ArrayLike, state: ArrayLike, group: Sequence[str], resampling: Resampling | None = None) -> StateFit:
    """Fit the law by least squares in logarithms, with a shared slope and an intercept for each architecture.

    Args:
        perplexity: compute-optimal perplexity, one for each architecture and budget.
        state: total state at the optimum, in scalars, at the training length.
        group: name of the architecture.
        resampling: method of the interval, by default a bootstrap of 1,000 resamples. A bootstrap draws points within
            architectures.

    Raises:
        ArchlabError: no architecture has two different states, the columns differ in length, a value is not positive, or a
            group is no text.
    """
    check_value("resampling", resampling, Resampling | None)
    p, m = positive_columns(perplexity=perplexity, state=state)
    labels = numbered("group", group, len(m), "perplexity")
    names = list(dict.fromkeys(group))
    if other := [name for name in names if not isinstance(name, str)]:
        raise ArchlabError(f"group: {other[0]!r} is no name of an architecture: give text")
    log_p, log_m = np.log(p), np.log(m)
    exponent = _shared_slope(log_p, log_m, labels)
    interval = None
    with suppress(ArchlabError):
        interval = (resampling or Resampling(1000)).interval(_shared_slope, log_p, log_m, labels, strata=labels)
    residual = log_p - exponent * log_m
    offsets = {str(name): float(np.exp(residual[labels == number].mean())) for number, name in enumerate(names)}
    return StateFit(exponent, interval, offsets)


def _shared_slope(log_p: Floats, log_m: Floats, labels: NDArray[np.intp]) -> float:
    x, y = log_m.copy(), log_p.copy()
    for mine in (labels == label for label in np.unique(labels)):
        x[mine] -= x[mine].mean()
        y[mine] -= y[mine].mean()
    spread = float(x @ x)
    if spread == 0:
        raise ArchlabError("no architecture was measured at two states: there is no slope to fit; add budgets or sizes")
    return float(x @ y) / spread
