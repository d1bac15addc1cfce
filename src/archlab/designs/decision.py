"""The outcome of a design study: candidates, their MAD scores, language models of the best, and what follows from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from archlab.designs.correlation import Correlations
from archlab.mad.architecture_score import ArchitectureScore
from archlab.mad.scores import Scores
from archlab.scaling.analysis.comparison import Comparison, multiplier_text
from archlab.scaling.study_fit import StudyFit

if TYPE_CHECKING:
    import pandas as pd

Role = Literal["reference", "best score", "for the correlation"]


@dataclass(frozen=True, kw_only=True)
class Shortlisted:
    """An architecture of which language models are trained."""

    label: str
    spec: str
    role: Role
    """Why it is on the shortlist; the lower scores widen the range over which scores and losses are correlated."""
    decode_bytes: int | None
    """Decode memory (:mod:`archlab.searching.costs`) of one sequence, at the width of ``params``."""
    params: int | None
    """Parameters of its language model of least loss at the largest budget; None without one."""
    loss: float | None
    """Loss of that model, in nats a token."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A step of the study."""

    name: str
    command: str
    """The command that does, or continues, this step alone."""
    seconds: float
    """Wall seconds in the call that gave this outcome; stored results cost none."""
    jobs: str
    """Number of jobs that were computed, in words."""
    over: bool = False
    """Whether its time was over before all was computed."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Outcome of a design study."""

    space: str
    """The candidates in words."""
    reference: str
    """Label of the architecture that a candidate has to beat."""
    scores: Scores
    """All candidates, with the seeds of the first measurement."""
    fresh: Scores | None
    """The shortlist, with seeds that had no part in its selection; None where time was over."""
    shortlist: tuple[Shortlisted, ...]
    fit: StudyFit | str
    """The scaling laws, or the reason why there are none."""
    correlation: Correlations | str
    """MAD scores beside losses over the shortlist, or the reason why there is no such comparison."""
    stages: tuple[Stage, ...]
    not_tried: tuple[str, ...]
    """Parts of the study that were left out, and why."""

    @property
    def compared(self) -> tuple[Comparison, ...]:
        """Every architecture beside the reference at the largest budget of the ladder, the lowest loss first."""
        comparison = None if isinstance(self.fit, str) else self.fit.comparison
        if comparison is None or comparison.reference != self.reference:
            return ()
        return tuple(sorted(comparison.nearest, key=lambda row: row.difference.value))

    @property
    def winner(self) -> str | None:
        """The candidate whose loss is lowest and clearly below the reference's; None if none is."""
        clear = [row for row in self.compared if row.difference.high is not None and row.difference.high < 0]
        return clear[0].architecture if clear else None

    @property
    def headline(self) -> str:
        """The decision in a sentence."""
        if self.winner is not None:
            row = next(row for row in self.compared if row.architecture == self.winner)
            worth = "" if row.multiplier is None else f": it needs {multiplier_text(row.multiplier, '.2f')} times the compute"
            return f"{self.winner} is better than {self.reference} at {row.budget:.3g} FLOPs{worth}"
        ranked = [one for scores in (self.fresh, self.scores) if scores for one in scores.architectures]  # fresh ones are fairer
        best = next((one for one in ranked if one.score is not None and one.label != self.reference), None)
        if self.compared:
            return f"No candidate has a loss that is clearly below that of {self.reference}: keep it, or train a larger ladder"
        if best is None:
            return "No candidate has a score: nothing can be decided"
        return f"{best.label} scores best of the candidates; the language models do not tell whether its loss is lower"

    def mad(self, label: str) -> ArchitectureScore | None:
        """The score of an architecture: by fresh seeds if there are such, else the first one."""
        for scores in (self.fresh, self.scores):
            for one in scores.architectures if scores is not None else ():
                if one.label == label and one.score is not None:
                    return one
        return None

    def rows(self) -> list[dict[str, Any]]:
        """One row for each architecture of the shortlist: score, loss beside the reference's, compute multiplier, memory."""
        beside = {row.architecture: row for row in self.compared}
        found = []
        for one in self.shortlist:
            score, row = self.mad(one.label), beside.get(one.label)
            found.append(
                {
                    **asdict(one),
                    "score": None if score is None else score.score,
                    "score_low": None if score is None or score.interval is None else score.interval.low,
                    "score_high": None if score is None or score.interval is None else score.interval.high,
                    **_estimate("difference", row and row.difference),
                    **_estimate("multiplier", row and row.multiplier),
                }
            )
        return found

    def to_frame(self) -> pd.DataFrame:
        """One row for each architecture of the shortlist."""
        import pandas as pd

        return pd.DataFrame(self.rows())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "headline": self.headline,
            "winner": self.winner,
            "reference": self.reference,
            "space": self.space,
            "shortlist": self.rows(),
            "scores": self.scores.to_dict(),
            "fresh_scores": None if self.fresh is None else self.fresh.to_dict(),
            "laws": {"refused": self.fit} if isinstance(self.fit, str) else self.fit.to_dict(),
            "correlation": {"refused": self.correlation} if isinstance(self.correlation, str) else self.correlation.to_dict(),
            "stages": [asdict(stage) for stage in self.stages],
            "not_tried": list(self.not_tried),
        }

    def _repr_html_(self) -> str:
        from html import escape

        table: str = self.to_frame().to_html(index=False, float_format="{:.4g}".format)
        return f"<p><b>{escape(self.headline)}</b></p>{table}"


def shortlist(scores: Scores, reference: str, number: int) -> list[tuple[ArchitectureScore, Role]]:
    """The reference, the candidates of best score, and, of every three, one of the lower scores, spread over their range.

    ``number`` counts all of them.
    """
    own = [one for one in scores.architectures if one.label == reference]
    others = [one for one in scores.architectures if one.label != reference and one.complete]
    places = max(0, number - len(own))
    spread = places // 3
    best, rest = others[: places - spread], others[places - spread :]
    step = len(rest) / spread if spread else 0.0
    low = [rest[min(len(rest) - 1, round((i + 1) * step) - 1)] for i in range(spread)] if rest else []
    roles: list[tuple[ArchitectureScore, Role]] = [*((one, "reference") for one in own), *((one, "best score") for one in best)]
    return [*roles, *((one, "for the correlation") for one in low)]


def _estimate(name: str, found: Any) -> dict[str, float | None]:
    return {
        name: None if found is None else found.value,
        f"{name}_low": None if found is None else found.low,
        f"{name}_high": None if found is None else found.high,
    }
