"""The size of the errors of training runs, budget by budget, judged by residuals with outliers among them."""
# ruff: noqa: N803 - the field's symbols

from __future__ import annotations

import numpy as np
from scipy.special import digamma, polygamma, stdtrit

from archlab.scaling.fits.columns import Floats

FLOOR = 1e-9
"""Smallest standard deviation, as a fraction of the loss: what an exact law leaves is rounding."""
OUTLIER = 1e-4
"""Probability of an error so large that its run counts as an outlier."""


def outlier_limit(freedom: float) -> float:
    """Return the standard deviations beyond which a residual is an outlier, at so many degrees of freedom."""
    return -float(stdtrit(max(freedom, 3), OUTLIER / 2))


def first_scales(residual: Floats, C: Floats, fitted: int) -> Floats:
    """Return a standard deviation for each run by medians alone, so that failed runs among them do not matter.

    The logarithm of absolute residuals is a line in log C by least absolute errors. A law of ``fitted`` numbers meets as many
    runs exactly if it is fitted to absolute errors; these tell nothing.
    """
    size = np.abs(residual)
    told = np.argsort(size)[min(fitted, len(size) // 2) :]
    y = np.log(np.maximum(size[told], 1e-300)) - np.log(0.6745)  # the median of a normal error, in standard deviations
    x = _centred(C)
    if np.ptp(x) == 0:
        return np.full(len(x), np.exp(np.median(y)))
    line, design = np.array([np.median(y), 0.0]), np.stack([np.ones(len(told)), x[told]], axis=1)
    for _ in range(30):
        weight = 1 / np.maximum(np.abs(y - design @ line), 1e-3)
        line = np.linalg.solve((design.T * weight) @ design + 1e-9 * np.eye(2), (design.T * weight) @ y)
    return np.asarray(np.exp(line[0] + line[1] * x))


def error_scales(square: Floats, C: Floats, at: Floats) -> Floats:
    """Return the standard deviation of errors at every budget of ``at``.

    A power law of C by maximum likelihood, drawn a little towards no change with C; each budget leaves it as far as its own
    runs contradict it (empirical Bayes on the logarithm of the variance).

    Args:
        square: squared residuals over one minus leverage, of runs that are no outliers.
        C: FLOPs of the budget of each.
        at: budgets that the result is for.
    """
    centre = np.log(C).mean()
    x, line = np.log(C) - centre, np.array([np.log(max(square.mean(), 1e-300)), 0.0])
    design = np.stack([np.ones_like(x), x], axis=1)
    information = design.T @ design / 2 + np.diag([0, 0.25])
    for _ in range(50):
        surplus = square / np.exp(design @ line) - 1
        step = np.linalg.solve(information, design.T @ surplus / 2 - [0, 0.25 * line[1]])
        line = line + np.clip(step, -1, 1)
    ratio, budgets = square / np.exp(design @ line), np.unique(C)
    half = np.array([(budget == C).sum() / 2 for budget in budgets])
    # The logarithm of a mean of squares has these moments; with one run a budget they are far from 0 and 2 over the runs.
    own = np.array([np.log(max(ratio[budget == C].mean(), 1e-3)) for budget in budgets]) - digamma(half) + np.log(half)
    doubt = polygamma(1, half)
    between = max(0.0, float(np.mean(own**2 - doubt))) if len(budgets) > 2 else 0.0
    shift = dict(zip(budgets.tolist(), own * between / (between + doubt), strict=True))
    logs = line[0] + line[1] * (np.log(at) - centre) + np.array([shift.get(budget, 0.0) for budget in at.tolist()])
    scales: Floats = np.exp(logs / 2)
    return scales


def _centred(C: Floats) -> Floats:
    return np.asarray(np.log(C) - np.log(C).mean())
