"""How numbers and names are written for people, in tables and in the report."""

from typing import Protocol

from archlab.mad.bootstrap import Interval
from archlab.tasks import registry

_PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def short_task(task: str) -> str:
    """Short name of a task; the name itself of one that is not known here."""
    known = registry()
    return known[task].short if task in known else task


def human(number: float | None) -> str:
    """Three significant digits with a decimal prefix: ``407k``, ``1.23M``, ``98``; ``?`` for what is not known."""
    if number is None:
        return "?"
    exponent = 0
    while abs(number) >= 999.5 and exponent < len(_PREFIXES) - 1:
        number /= 1000.0
        exponent += 1
    return f"{number:.3g}{_PREFIXES[exponent]}"


def percent(share: float | None) -> str:
    """A share in percent to one decimal, without the sign; a dash where there is none."""
    if share is None:
        return "–"
    return "100" if share > 0.9995 else f"{100 * share:.1f}"


class Partial(Protocol):
    """A score of which something may be missing."""

    @property
    def score(self) -> float | None:
        """In [0, 1]."""

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""


def starred(found: Partial) -> str:
    """A score in percent, with an asterisk if it is partial."""
    return percent(found.score) + ("" if found.complete or found.score is None else "*")


def percent_interval(interval: Interval | None) -> str:
    """Both bounds in percent."""
    return f"{percent(interval.low)}–{percent(interval.high)}" if interval else "–"


def points(difference: float) -> str:
    """A difference of two shares in percentage points, with its sign (a true minus)."""
    return f"{100 * difference:+.1f}".replace("-", "−")


def probability(share: float) -> str:
    """A probability estimated from about a thousand samples: never written as certain."""
    return "<0.01" if share < 0.01 else ">0.99" if share > 0.99 else f"{share:.2f}"


def steps(number: float | None) -> str:
    """A number of steps; a dash where there is none."""
    return "–" if number is None else f"{number:,.0f}"


def count(number: int, what: str) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{number} {what}" if number == 1 else f"{number:,} {what}s"
