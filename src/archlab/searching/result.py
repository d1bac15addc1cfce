"""The outcome of a search as values: candidates, front, winner and what its score is worth."""

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from archlab.architectures import Architecture, architecture
from archlab.mad.bootstrap import CONFIDENCE, Interval
from archlab.mad.scores import Scores
from archlab.searching.analysis import Importance, stack, stretch
from archlab.searching.space import Size

if TYPE_CHECKING:
    import pandas as pd

DEEPER = 2
"""The found pattern is shown at this many times its depth."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An architecture that the search has evaluated."""

    number: int
    """Its place in the order of proposals, from 0."""
    architecture: Architecture
    spec: str
    """Its text without the knobs that the protocol sets by itself."""
    choices: Mapping[str, str]
    origin: str
    parents: tuple[int, ...]
    rung: str
    """The last protocol that it went through."""
    values: Mapping[str, float | None]
    """By objective, under that protocol; None where results are missing."""
    intervals: Mapping[str, Interval | None]
    on_front: bool
    """Whether no other candidate of the last rung is better in one objective and no worse in the others."""


@dataclass(frozen=True, kw_only=True)
class Again:
    """A candidate's first score, for which it was chosen, and that from fresh seeds."""

    number: int
    role: str
    """``winner`` or ``consensus``."""
    seeds: tuple[int, ...]
    first: float | None
    first_interval: Interval | None
    fresh: float | None
    fresh_interval: Interval | None


@dataclass(frozen=True, kw_only=True)
class Search:
    """The outcome of a search."""

    space: str
    summary: str
    size: Size
    proposer: str
    seed: int
    objectives: Mapping[str, bool]
    """By name, the first one decides on the winner; whether larger is better."""
    rungs: tuple[str, ...]
    """The protocols, the last of which the results are of."""
    seeds: tuple[int, ...]
    dim: int
    length: int
    candidates: tuple[Candidate, ...]
    winner: int
    """Number of the candidate with the best first objective."""
    consensus: int | None
    """Number of the majority of the best, layer by layer; None if it does not fit, or too few were evaluated."""
    again: tuple[Again, ...]
    importance: tuple[Importance, ...]
    """Importance of each choice for the first objective."""
    scores: Scores = field(repr=False, compare=False)
    """The scores of the candidates of the last rung, for :func:`archlab.report`."""

    @property
    def main(self) -> str:
        """The objective that decides on the winner."""
        return next(iter(self.objectives))

    @property
    def best(self) -> Candidate:
        """The winner."""
        return self.candidates[self.winner]

    @property
    def front(self) -> list[Candidate]:
        """The candidates that no other dominates, best first by the first objective."""
        return sorted((one for one in self.candidates if one.on_front), key=lambda one: -(one.values[self.main] or 0.0))

    @property
    def unmeasured(self) -> list[Candidate]:
        """Candidates without a value, because a trial failed."""
        return [one for one in self.candidates if None in one.values.values()]

    def lineage(self, number: int) -> list[int]:
        """Numbers of the ancestors of a candidate, parents first."""
        found: dict[int, None] = {}
        waiting = list(self.candidates[number].parents)
        while waiting:
            one = waiting.pop(0)
            if one not in found:
                found[one] = None
                waiting += self.candidates[one].parents
        return list(found)

    @property
    def deeper(self) -> dict[str, Architecture]:
        """The winner's pattern at twice its depth, stretched and stacked."""
        pattern = architecture(self.best.spec)
        layers = DEEPER * len(pattern.layers)
        return {"stretched": stretch(pattern, layers), "stacked": stack(pattern, layers)}

    @property
    def command(self) -> str:
        """The command that plans language models of the found pattern beside the usual reference."""
        specs = dict.fromkeys(map(str, self.deeper.values()))
        return f"archlab scale plan {' '.join(map(shlex.quote, specs))} transformer++ --ladder quick"

    def to_frame(self) -> "pd.DataFrame":
        """One row for each candidate, in the order of proposals."""
        import pandas as pd

        rows = [
            {
                "number": one.number,
                "architecture": str(one.architecture),
                "origin": one.origin,
                "parents": list(one.parents),
                "rung": one.rung,
                **one.values,
                "front": one.on_front,
            }
            for one in self.candidates
        ]
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; unknown values are None."""
        return {
            "archlab": version("archlab"),
            "space": {"name": self.space, "summary": self.summary, "size": self.size.number, "exact": self.size.exact},
            "proposer": self.proposer,
            "seed": self.seed,
            "objectives": {name: "larger" if larger else "smaller" for name, larger in self.objectives.items()},
            "rungs": list(self.rungs),
            "seeds": list(self.seeds),
            "confidence": CONFIDENCE,
            "costs_at": {"dim": self.dim, "length": self.length},
            "winner": self.winner,
            "consensus": self.consensus,
            "front": [one.number for one in self.front],
            "again": [asdict(one) for one in self.again],
            "importance": [asdict(one) for one in self.importance],
            "lineage": self.lineage(self.winner),
            "deeper": {how: str(value) for how, value in self.deeper.items()},
            "command": self.command,
            "candidates": [_candidate(one) for one in self.candidates],
        }

    def _repr_html_(self) -> str:
        """The front, as notebooks show it."""
        from html import escape

        import pandas as pd

        rows = [{"architecture": one.spec, **one.values, "origin": one.origin} for one in self.front]
        table: str = pd.DataFrame(rows).to_html(index=False, float_format="{:.4g}".format)
        return f"<p><b>{escape(self.best.spec)}</b></p>{table}"


def _candidate(one: Candidate) -> dict[str, Any]:
    return {
        "number": one.number,
        "architecture": str(one.architecture),
        "spec": one.spec,
        "choices": dict(one.choices),
        "origin": one.origin,
        "parents": list(one.parents),
        "rung": one.rung,
        "values": dict(one.values),
        "intervals": {name: interval and asdict(interval) for name, interval in one.intervals.items()},
        "front": one.on_front,
    }
