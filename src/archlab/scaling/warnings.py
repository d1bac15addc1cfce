"""Groups by cause of all that limits the fits of a study, so that fifty budgets with too few sizes are one line."""

from collections.abc import Iterable
from dataclasses import dataclass

EXAMPLES = 3
"""Cases that a line names."""


@dataclass(frozen=True)
class WarningGroup:
    """One cause, and everything that it limits; as text, a line with the number of cases and the first of them."""

    cause: str
    cases: tuple[str, ...]

    def __str__(self) -> str:
        if len(self.cases) == 1:
            return f"{self.cause}: {self.cases[0]}"
        more = [f"{len(self.cases) - EXAMPLES:,} more"] if len(self.cases) > EXAMPLES else []
        return f"{self.cause} ({len(self.cases):,}): {'; '.join([*self.cases[:EXAMPLES], *more])}"


def grouped(found: Iterable[tuple[str, str]]) -> tuple[WarningGroup, ...]:
    """Group pairs of cause and case by cause, in the order of their first cases."""
    cases: dict[str, list[str]] = {}
    for cause, case in found:
        cases.setdefault(cause, []).append(case)
    return tuple(WarningGroup(cause, tuple(some)) for cause, some in cases.items())
