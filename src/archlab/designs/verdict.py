"""The rule that turns an interval into a verdict on a claim."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from math import inf, sqrt
from statistics import fmean, stdev
from typing import Literal, NamedTuple

from scipy.stats import t

CONFIDENCE = 0.95
"""Probability of the intervals."""
FEWEST_SEEDS = 3
"""With fewer there is an interval, if any, but no verdict: two jumps in the same direction happen by chance."""

Verdict = Literal["supported", "not supported", "cannot be told at this scale"]
UNKNOWN: Verdict = "cannot be told at this scale"


class Region(NamedTuple):
    """The values that a claim means: those between both ends, either of which may be open."""

    above: float = -inf
    below: float = inf


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A number that a claim is about, with its interval and the region in which the claim wants it."""

    name: str
    unit: str
    value: float | None
    """None if it could not be measured."""
    region: Region
    low: float | None = None
    high: float | None = None
    by_seed: tuple[float, ...] = ()
    doubt: str = ""
    """The reason why there is no verdict, whatever the interval; empty if there is none."""

    @property
    def verdict(self) -> Verdict:
        """Supported if the interval lies inside the claimed region, not supported if it lies outside."""
        if self.doubt or self.low is None or self.high is None:
            return UNKNOWN
        if self.region.above < self.low and self.high < self.region.below:
            return "supported"
        return "not supported" if self.high <= self.region.above or self.region.below <= self.low else UNKNOWN


def over_seeds(name: str, values: Sequence[float], region: Region, *, unit: str = "", doubt: str = "") -> Quantity:
    """Make a quantity of one value a seed: their mean with the interval of Student's t, of two seeds or more."""
    if not values:
        return Quantity(name=name, unit=unit, value=None, region=region, doubt=doubt or "nothing could be measured")
    if len(values) < FEWEST_SEEDS:
        doubt = doubt or f"{len(values)} of at least {FEWEST_SEEDS} seeds"
    mean, low, high = fmean(values), None, None
    if len(values) > 1:
        reach = _quantile(len(values) - 1) * stdev(values) / sqrt(len(values))
        low, high = mean - reach, mean + reach
    return Quantity(name=name, unit=unit, value=mean, region=region, low=low, high=high, by_seed=tuple(values), doubt=doubt)


@cache
def _quantile(freedom: int) -> float:
    """The quantile of Student's distribution that an interval reaches to."""
    return float(t.ppf((1 + CONFIDENCE) / 2, freedom))


def together(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on a claim of several quantities: supported if each is, not supported if one is not."""
    found = set(verdicts)
    if "not supported" in found:
        return "not supported"
    return "supported" if found == {"supported"} else UNKNOWN
