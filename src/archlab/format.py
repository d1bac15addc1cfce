"""The form that numbers and names have in tables, on pages and in messages."""

from typing import TYPE_CHECKING, Any, Protocol

from archlab.tasks import registry

if TYPE_CHECKING:
    import pandas as pd

_PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def short_task(task: str, *, narrow: bool = False) -> str:
    """The head of a task's column: its short name, abbreviated in a narrow table; the name of a task that is not known."""
    known = registry()
    short = known[task].short if task in known else task
    return f"{short[:4]}." if narrow and len(short) > 6 else short


def human(number: float | None) -> str:
    """Three significant digits with a decimal prefix: ``407k``, ``1.23M``, ``98``; ``?`` for an unknown number."""
    if number is None:
        return "?"
    exponent = 0
    while abs(number) >= 999.5 and exponent < len(_PREFIXES) - 1:
        number /= 1000.0
        exponent += 1
    return f"{number:.3g}{_PREFIXES[exponent]}"


def percent(fraction: float | None) -> str:
    """A fraction in percent to one decimal, without the sign; a dash for None."""
    if fraction is None:
        return "–"
    return "100" if fraction > 0.9995 else f"{100 * fraction:.1f}"


class Partial(Protocol):
    """A score that may be incomplete."""

    @property
    def score(self) -> float | None:
        """In [0, 1]."""

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""


class Bounds(Protocol):
    """An interval."""

    @property
    def low(self) -> float:
        """Lower bound."""

    @property
    def high(self) -> float:
        """Upper bound."""


def starred(found: Partial) -> str:
    """A score in percent, with an asterisk if it is partial."""
    return percent(found.score) + ("" if found.complete or found.score is None else "*")


def percent_interval(interval: Bounds | None) -> str:
    """Both bounds in percent."""
    return f"{percent(interval.low)}–{percent(interval.high)}" if interval else "–"


def points(difference: float) -> str:
    """A difference of two fractions in percentage points, with its sign (a true minus)."""
    return f"{100 * difference:+.1f}".replace("-", "−")


def probability(share: float) -> str:
    """A probability estimated from about a thousand samples: never written as certain."""
    return "<0.01" if share < 0.01 else ">0.99" if share > 0.99 else f"{share:.2f}"


def steps(number: float | None) -> str:
    """A number of steps; a dash for None."""
    return "–" if number is None else f"{number:,.0f}"


def count(number: int, what: str) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{number} {what}" if number == 1 else f"{number:,} {what}s"


def duration(seconds: float) -> str:
    """A length of time: 42 s, 3 min, 2.5 h, 4 days."""
    if seconds < 1:
        return "under 1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.0f} days"


def csv_text(frame: "pd.DataFrame") -> str:
    """A frame as CSV. Text that a spreadsheet would take for a formula, as it begins with =, +, - or @, has an apostrophe before
    it: labels and errors may come from others."""

    def harmless(value: Any) -> Any:
        is_formula = isinstance(value, str) and (value.lstrip()[:1] in {"=", "+", "-", "@"} or value.startswith(("\t", "\r")))
        return f"'{value}" if is_formula else value

    return str(frame.rename(columns=harmless).map(harmless).to_csv(index=False, lineterminator="\n"))
