"""The training FLOPs of a token as a function of the parameters, and the optimum of a law at that cost.

A power law of N is not enough: within the paper's ladder it is off by up to a sixth. The spec tells the exact number at every
width, so here sizes are counted on paper, from the narrowest to the widest, as the planner would build them.
"""
# ruff: noqa: N803, N806 - the field's symbols

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import PchipInterpolator

from archlab.architectures import Architecture
from archlab.errors import ArchlabError
from archlab.layers import registry
from archlab.scaling.fits import Frontier, ParametricFit, fit_power_law
from archlab.scaling.fits.columns import Floats, array
from archlab.scaling.flops import training_flops
from archlab.scaling.ladder import Ladder
from archlab.scaling.planner import all_sizes, heads_of
from archlab.scaling.study import RunTable, TrainedModel
from archlab.scaling.training_plan import LMRun, Size

RIGHT = 0.01
"""Largest relative distance of a cost from that of a training run."""
BIN = 0.1
"""Training runs whose log N are this near count as one size where their cost is interpolated."""
STEP = 0.05
"""Distance of sizes, in log N, among which an optimum is first looked for."""
FURTHEST = 1e5
"""Optima are looked for up to this factor above the largest training run, and below the smallest one."""
HEAD_DIMS = (Ladder.head_dim, 128, 32, 16, 256, 8, 96, 48, 24)
ASPECTS = (Ladder.aspect, 64.0, 96.0, 32.0, 16.0, 256.0, 192.0, 48.0, 80.0, 160.0, 100.0)
"""Rules of ladders, the likeliest first; a training run does not say by which it was planned."""


@dataclass(frozen=True)
class Cost:
    """Training FLOPs of a token over parameters: a monotone cubic in logarithms between known sizes, proportional to N beyond."""

    N: tuple[float, ...]
    """Parameters of the known sizes, rising."""
    flops_per_token: tuple[float, ...]
    budgets: tuple[float, float]
    """The smallest and the largest training run in FLOPs, between which exponents of optima are taken."""
    source: str
    """Where the numbers come from."""
    doubt: str = ""
    """How far they are from those of the training runs, where they do not agree."""
    buildable: bool = False
    """Whether the known sizes are all that the spec can be built in, and not those of the training runs."""

    def __call__(self, N: ArrayLike) -> Floats:
        """Return the FLOPs of a token at ``N`` parameters, of the same shape."""
        return np.exp(self.log(np.log(np.asarray(N, dtype=np.float64))))

    def log(self, x: Floats) -> Floats:
        """Return the logarithm of the FLOPs of a token where log N is ``x``."""
        return np.asarray(x + self._curve(np.clip(x, self._curve.x[0], self._curve.x[-1])))

    @cached_property
    def _curve(self) -> PchipInterpolator:
        """log (FLOPs / N) over log N: nearly constant, so that what lies between two sizes is nearly exact."""
        x = np.log(self.N)
        return PchipInterpolator(x, np.log(self.flops_per_token) - x)

    @cached_property
    def grid(self) -> tuple[Floats, Floats]:
        """Logarithms of sizes among which an optimum is looked for, and of their costs."""
        x = np.arange(math.log(self.N[0] / FURTHEST), math.log(self.N[-1] * FURTHEST), STEP)
        return x, self.log(x)


@dataclass(frozen=True)
class CostFrontier:
    """Compute-optimal size, tokens and loss of a parametric law at a cost, each found by a search over log N."""

    fit: ParametricFit
    cost: Cost

    def __post_init__(self) -> None:
        """Refuse a law without an optimum, as :meth:`archlab.scaling.fits.ParametricFit.frontier` does."""
        self.fit.frontier()

    def size(self, C: ArrayLike) -> Floats:
        """Return the compute-optimal parameters of budgets of ``C`` FLOPs, of the same shape."""
        return self._optimum(C)[0]

    def tokens(self, C: ArrayLike) -> Floats:
        """Return the compute-optimal tokens of budgets of ``C`` FLOPs, of the same shape."""
        return self._optimum(C)[1]

    def loss(self, C: ArrayLike) -> Floats:
        """Return the least loss of budgets of ``C`` FLOPs, of the same shape."""
        size, tokens = self._optimum(C)
        return self.fit(N=size, D=tokens)

    def flops(self, loss: ArrayLike) -> Floats:
        """Return the FLOPs of the budget that reaches a loss, of the same shape; refuses a loss that no budget reaches."""
        wanted, fit = array("loss", loss, np.float64), self.fit
        bad = wanted[~(wanted > fit.E)]
        if bad.size:
            raise ArchlabError(f"loss {bad.min():.4g}: no budget reaches it by this fit, whose floor E is {fit.E:.4g}: ask above")

        def log_flops(x: Floats, log_cost: Floats) -> Floats:
            left = wanted.ravel() - fit.E - fit.A * np.exp(-fit.alpha * x)
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.where(left > 0, log_cost + np.log(fit.B / left) / fit.beta, np.inf)

        _, least = self._least(log_flops, f"loss {wanted.min():.4g}")
        return np.asarray(np.exp(least).reshape(wanted.shape))

    @property
    def power_laws(self) -> Frontier:
        """The power laws nearest to the frontier between the smallest and the largest training run."""
        low, high = self.cost.budgets
        C = np.geomspace(low, high, 9) if high > 1.05 * low else np.geomspace(low / 2, high * 2, 9)
        size, tokens = self._optimum(C)
        excess = self.fit(N=size, D=tokens) - self.fit.E
        return Frontier(fit_power_law(x=C, y=size), fit_power_law(x=C, y=tokens), self.fit.E, fit_power_law(x=C, y=excess))

    def _optimum(self, C: ArrayLike) -> tuple[Floats, Floats]:
        flops, fit = array("C", C, np.float64), self.fit
        spent = flops.ravel() ** -fit.beta

        def excess(x: Floats, log_cost: Floats) -> Floats:
            with np.errstate(over="ignore"):
                return fit.A * np.exp(-fit.alpha * x) + fit.B * np.exp(fit.beta * log_cost) * spent

        x, _ = self._least(excess, f"budget {flops.max(initial=0):.3g}")
        return np.asarray(np.exp(x).reshape(flops.shape)), np.asarray(
            (flops.ravel() / np.exp(self.cost.log(x))).reshape(flops.shape)
        )

    def _least(self, of: Callable[[Floats, Floats], Floats], what: str) -> tuple[Floats, Floats]:
        """Minimise columns over log N: on the grid, on a finer one about its best point, by a parabola through the best three.

        ``of`` takes log N and the logarithm of the cost, ``(K, 1)`` or ``(K, columns)``, and returns ``(K, columns)``.
        """
        x, log_cost = self.cost.grid
        values = of(x[:, None], log_cost[:, None])
        best = values.argmin(axis=0)
        columns = np.arange(values.shape[1])
        if ((best == 0) | (best == len(x) - 1) | ~np.isfinite(values[best, columns])).any():
            raise ArchlabError(
                f"{what}: the law has no optimum between {self.cost.N[0]:.3g} and {self.cost.N[-1]:.3g} parameters"
            )
        fine = x[best] + np.linspace(-STEP, STEP, 41)[:, None]
        values = of(fine, self.cost.log(fine))
        best = np.clip(values.argmin(axis=0), 1, len(fine) - 2)
        low, middle, high = (values[best + by, columns] for by in (-1, 0, 1))
        bend = low - 2 * middle + high
        with np.errstate(divide="ignore", invalid="ignore"):
            shift = np.where(bend > 0, np.clip((low - high) / (2 * bend), -1, 1), 0.0)
        return fine[best, columns] + shift * STEP / 20, middle - shift * (low - high) / 4


def power_laws(frontier: Frontier | CostFrontier) -> Frontier:
    """Return a frontier as power laws, between the smallest and the largest training run."""
    return frontier.power_laws if isinstance(frontier, CostFrontier) else frontier


def cost_of(runs: RunTable) -> Cost:
    """Return the cost of an architecture: by its spec's own count where this gives what its runs took, else that of its runs.

    Runs that were imported, and such as no ladder plans, tell the cost of their sizes; it is interpolated between these.
    """
    observed = runs.C / runs.D
    budgets = float(runs.C.min()), float(runs.C.max())
    if known := list(_counted(runs)):
        size, flops = zip(*known, strict=True)
        counted = Cost(size, flops, budgets, "the spec's count at every width", buildable=True)
        if np.abs(counted(runs.N) / observed - 1).max() <= RIGHT:
            return counted
    bins = np.unique(np.round(np.log(runs.N) / BIN), return_inverse=True)[1]
    x, y = (np.bincount(bins, np.log(column)) / np.bincount(bins) for column in (runs.N, observed))
    if len(x) == 1:
        x, y = np.append(x, x + 1), np.append(y, y + 1)
    ratio = observed / runs.N
    source = (
        f"{ratio.mean():.4g} N" if np.ptp(ratio) < 1e-6 * ratio.max() else "interpolated between the sizes of the training runs"
    )
    cost = Cost(tuple(np.exp(x).tolist()), tuple(np.exp(y).tolist()), budgets, source)
    off = float(np.abs(cost(runs.N) / observed - 1).max())
    return replace(cost, doubt=f"up to {off:.1%} off a training run" if off > RIGHT else "")


def _counted(runs: RunTable) -> Iterator[tuple[float, float]]:
    """Yield parameters and FLOPs of a token of the sizes that the runs' spec can be built in; none if it cannot be told."""
    models = [model for model in runs.models if isinstance(model, TrainedModel)]
    if not models:
        return
    run = models[0].run
    all_params = bool(runs.N[0] == run.params)
    largest = 0.0
    try:
        for size in sizes_like([model.run for model in models]):
            params = float(size.params if all_params else size.params_non_embedding)
            flops = training_flops(size.architecture, **size.shape, convention=run.convention) / run.length
            if params > largest:
                largest = params
                yield params, flops
            if params > FURTHEST * runs.N.max():
                return
    except ArchlabError:  # a layer that is not there any more, or a spec that archlab did not plan
        return


def sizes_like(runs: Sequence[LMRun]) -> Iterator[Size]:
    """Yield sizes of every width by the rules of the ladder that the runs of an architecture were planned by.

    A run tells its depth and heads, and from those of several runs follow the rules: the ratio of width to depth, and the width
    of a head. Where several rules give the same runs the likeliest is taken. Refuses runs that follow none.
    """
    by_width = {run.dim: run.architecture for run in runs}
    unit = by_width[min(by_width)].unit
    aspect, depth = _depth_rule({dim: len(value.layers) // len(unit) for dim, value in by_width.items()}, len(unit))
    head_dim, width_multiple, ruled = _head_rule(by_width)
    free = [replace(layer, **ruled[layer.name]) if layer.name in ruled else layer for layer in unit]
    return all_sizes(
        str(Architecture(tuple(free) * depth)),
        vocab_size=runs[0].vocab_size,
        length=runs[0].length,
        backbone=runs[0].backbone,
        aspect=aspect,
        head_dim=head_dim,
        width_multiple=width_multiple,
    )


def _depth_rule(depths: Mapping[int, int], unit: int) -> tuple[float, int]:
    """The ratio of width to depth, and the least depth in units of so many layers, that give the depths by width."""
    widest = max(depths)
    for aspect in (*ASPECTS, 2 * widest / (depths[widest] * unit)):
        for least in (1, min(depths.values())):
            if all(max(least, round(2 * dim / aspect / unit)) == depth for dim, depth in depths.items()):
                return aspect, least
    raise ArchlabError("the depths of the runs follow no ratio of width to depth")


def _head_rule(by_width: Mapping[int, Architecture]) -> tuple[int, int | None, dict[str, dict[str, int]]]:
    """The width of a head, the multiple that widths are of, and the layers that follow: their knob of heads at its default."""
    heads: dict[str, dict[int, int]] = {}
    defaults = {}
    for dim, value in by_width.items():
        for layer in value.unit:
            if layer.head_knob and (default := getattr(registry()[layer.name], layer.head_knob)) > 1:
                heads.setdefault(layer.name, {})[dim] = getattr(layer, layer.head_knob)
                defaults[layer.name] = {layer.head_knob: default}
    best: tuple[int, int | None, dict[str, dict[str, int]]] = (HEAD_DIMS[0], None, {})
    for head_dim, multiple in product(HEAD_DIMS, (None, math.gcd(*by_width))):
        exact = multiple is not None
        ruled = {
            name: defaults[name]
            for name, some in heads.items()
            if all(dim % 2 == 0 and number == heads_of(dim, head_dim, exact=exact) for dim, number in some.items())
        }
        if len(ruled) > len(best[2]):
            best = head_dim, multiple, ruled
    return best
