"""Whether a small test predicts a large result: MAD scores beside the losses of language models, by architecture."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from archlab.designs.measured import (
    Kind,
    Measured,
    costs_of,
    plain_name,
    published_outcomes,
    published_scores,
    scores_of,
    study_outcomes,
    under_common_names,
)
from archlab.designs.published import load_published
from archlab.designs.rank_statistics import (
    CONFIDENCE,
    SIGNIFICANCE,
    Floats,
    Interval,
    Pairs,
    ordered_pairs,
    partial_tau,
    power,
    reliability,
    tau_b,
    tau_interval,
)
from archlab.errors import ArchlabError, unknown
from archlab.fields import checked
from archlab.mad.results import Results
from archlab.mad.scores import Scores
from archlab.scaling.study import Study, open_study

if TYPE_CHECKING:
    import pandas as pd

NOISY = 0.7
"""Reliability below which a column is too noisy to be told from one that does not predict."""
WEAK = 0.4
"""A column whose interval of tau stays below this predicts little at best."""


@dataclass(frozen=True, kw_only=True)
class Influence:
    """Tau without one of the architectures."""

    architecture: str
    """The one whose absence changes tau most."""
    tau: float
    """Tau without it."""
    low: float
    """The least tau with one architecture left out."""
    high: float


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """The agreement of one column of scores with one outcome over the architectures that have both."""

    score: str
    """``mean``, the name of a task, or that of the capacity at one."""
    kind: Kind
    """Which of these it is."""
    outcome: str
    better: str
    """Whether the ``lower`` or the ``higher`` outcome is the better."""
    architectures: tuple[str, ...]
    scores: tuple[float, ...]
    outcomes: tuple[float, ...]
    score_intervals: tuple[Interval | None, ...]
    outcome_intervals: tuple[Interval | None, ...]
    tau: float | None
    """Kendall's tau-b, positive where the better score goes with the better outcome; None where a column has one value."""
    interval: Interval | None
    """Interval of tau over architectures and over the noise of both columns; None with fewer than four architectures."""
    p: float | None
    """Probability of a tau as far from zero, were the columns independent."""
    p_holm: float | None
    """The same after Holm's correction for all tasks of the outcome; None of the mean and of capacities."""
    spearman: float | None
    """Spearman's correlation of the columns as they stand: negative where a better score goes with a lower loss."""
    pearson: float | None
    """Pearson's correlation of the columns as they stand."""
    decisions: Pairs
    """Pairs of architectures that the score puts into the order of the outcome."""
    influence: Influence | None
    partial_tau: float | None
    """Tau given the logarithms of state and FLOPs; None where these are not known or determine a column."""
    score_reliability: float | None
    """Fraction of the variance of the score between architectures that is not noise; None where the noise is not known."""
    outcome_reliability: float | None

    @property
    def decision_accuracy(self) -> float | None:
        """The fraction of all pairs that are ordered right; a tie is not."""
        return self.decisions.right / self.decisions.total if self.decisions.total else None

    @property
    def ceiling(self) -> float | None:
        """The largest Pearson correlation that the noise of both columns allows, as far as it is known."""
        known = [one for one in (self.score_reliability, self.outcome_reliability) if one is not None]
        return float(np.sqrt(np.prod(known))) if known else None

    @property
    def verdict(self) -> str:
        """The conclusion that the numbers allow, in a few words."""
        if self.tau is None:
            return "one value only"
        significant = self.p if self.p_holm is None else self.p_holm
        if significant is not None and significant < SIGNIFICANCE:
            return "predicts" if self.tau > 0 else "predicts the reverse"
        if self.score_reliability is not None and self.score_reliability < NOISY:
            return "too noisy to tell"
        if self.interval is not None and self.interval.high < WEAK:
            return "predicts little at best"
        return "too few to tell"


@dataclass(frozen=True, kw_only=True)
class Correlations:
    """The agreement of every column of scores with every outcome."""

    scores_from: str
    outcomes_from: str
    rows: tuple[Correlation, ...]
    unmatched: tuple[str, ...]
    """Architectures that one side has and the other lacks."""
    notes: tuple[str, ...]
    """Limits of the comparison, as the source states them."""

    @property
    def headline(self) -> str:
        """The answer in a sentence: the mean against the first outcome."""
        first = self.rows[0]
        n = len(first.architectures)
        if first.tau is None:
            return f"{first.score}: one value only over {n} architectures: nothing to correlate"
        decisions = f"{first.decisions.right} of {first.decisions.total} pairs ordered right"
        tied = f", {first.decisions.tied} tied" if first.decisions.tied else ""
        interval = "" if first.interval is None else f" [{first.interval.low:.2f}, {first.interval.high:.2f}]"
        found = f"{first.score} against {first.outcome}: tau {first.tau:.2f}{interval} over {n} architectures, {decisions}{tied}"
        return f"{found}. {self.power}"

    @property
    def power(self) -> str:
        """A sentence on how much so many architectures can show."""
        n = len(self.rows[0].architectures)
        if n < 4:
            return f"{n} points say nothing about the order of other architectures."
        chance = power(n)
        word = "little" if chance < 0.5 else "something" if chance < 0.8 else "much"
        return f"{n} points say {word}: of columns with a true tau of .6, {100 * chance:.0f} % would show one that is not zero."

    def to_frame(self) -> pd.DataFrame:
        """One row for each column of scores and outcome."""
        import pandas as pd

        return pd.DataFrame([_row(one) for one in self.rows])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; unknown values are None."""
        return {
            "headline": self.headline,
            "scores_from": self.scores_from,
            "outcomes_from": self.outcomes_from,
            "confidence": CONFIDENCE,
            "unmatched": list(self.unmatched),
            "notes": list(self.notes),
            "rows": [_document(one) for one in self.rows],
        }

    def _repr_html_(self) -> str:
        from html import escape

        table: str = self.to_frame().to_html(index=False, float_format="{:.3g}".format)
        return f"<p><b>{escape(self.headline)}</b></p>{table}"


Location = str | os.PathLike[str]


@checked
def correlate(
    scores: Scores | Location | None = None,
    study: Study | Location | None = None,
    *,
    published: str | None = None,
    run: int | str | None = None,
    size: str | None = None,
    tokens: str | None = None,
    metric: str | None = None,
    names: Mapping[str, str] | None = None,
) -> Correlations:
    """Correlate MAD scores with the losses of language models, by architecture.

    Args:
        scores: MAD scores, or the store that has them; by default those of ``published``.
        study: language models, or the store that has them; by default the outcomes of ``published``.
        published: published tables that archlab comes with, such as ``"mesanet"``, for the side that is not given.
        run: the run of the store, by number or label; by default the widest that is comparable with the latest.
        size: only published models of this size, as in ``"1B"``.
        tokens: only those trained on so many tokens, as in ``"50B"``.
        metric: only this published metric.
        names: names of architectures in the outcomes, with those that they have in the scores. Names that are equal but for
            case and punctuation match by themselves.

    Returns:
        A :class:`Correlations`: for the mean and each task against each outcome, tau-b with an interval of 95 %, Spearman,
        Pearson, pairs ordered right, and what limits them.

    Raises:
        ArchlabError: a side is missing, a name to match is on neither, two names are matched with one, or fewer than three
            architectures are on both sides.
    """
    source = None if published is None else load_published(published)
    if scores is None and source is None:
        raise ArchlabError("no MAD scores: give a store of trials (--store), or published tables (--published)")
    if study is None and source is None:
        raise ArchlabError("no losses: give a store of language models (--study), or published tables (--published)")
    costs: dict[str, dict[str, float]] = {}
    if scores is None:
        assert source is not None
        left, scores_from = published_scores(source), f"{source.title} ({source.source})"
    else:
        found = scores if isinstance(scores, Scores) else _scores(scores, run)
        left, costs, scores_from = scores_of(found), costs_of(found), "own MAD scores"
    if study is None:
        assert source is not None
        right = published_outcomes(source, size=size, tokens=tokens, metric=metric)
        outcomes_from = f"{source.title} ({source.source})"
    else:
        right, outcomes_from = study_outcomes(study if isinstance(study, Study) else open_study(study)), "own language models"
    aliases = {**({} if source is None or scores is None else source.names), **(names or {})}
    have = dict.fromkeys(name for one in left for name in one.values)
    _check_match(names or {}, right, have)
    right = under_common_names(right, have, aliases)
    rows = [row for outcome in right for row in _against(outcome, left, costs)]
    if not rows:
        mine, theirs = ", ".join(have), ", ".join(dict.fromkeys(name for one in right for name in one.values))
        raise ArchlabError(
            f"fewer than three architectures have both: scores of {mine or 'none'}; losses of {theirs}: "
            "say which are the same by names={LOSSES: SCORES} (--match LOSSES=SCORES)"
        )
    both = {name for row in rows for name in row.architectures}
    others = dict.fromkeys([*have, *(name for one in right for name in one.values)])
    return Correlations(
        scores_from=scores_from,
        outcomes_from=outcomes_from,
        rows=tuple(rows),
        unmatched=tuple(name for name in others if name not in both),
        notes=() if source is None else (*source.notes, *((source.scores.where,) if source.scores and scores is None else ())),
    )


def _check_match(names: Mapping[str, str], outcomes: Sequence[Measured], scores: Collection[str]) -> None:
    """Refuse to match a name that its side does not have."""
    losses = dict.fromkeys(name for one in outcomes for name in one.values)
    for name, other in names.items():
        for side, wanted, there in (("losses", name, losses), ("scores", other, scores)):
            if plain_name(wanted) not in map(plain_name, there):
                raise unknown(f"architecture beside the {side}, in match {name}={other}:", wanted, list(there))


def _scores(store: Location, run: int | str | None) -> Scores:
    with Results(store) as results:
        return results.scores(run)


def _against(outcome: Measured, scores: Sequence[Measured], costs: Mapping[str, Mapping[str, float]]) -> list[Correlation]:
    """Every column of scores against one outcome, with Holm's correction over the tasks."""
    rows = [_correlation(one, outcome, costs) for one in scores if len(one.values.keys() & outcome.values.keys()) >= 3]
    tasks = {one.name for one in scores if one.kind == "task"}
    tested = sorted((row.p, row.score) for row in rows if row.score in tasks and row.p is not None)
    adjusted, largest = {}, 0.0
    for rank, (p, name) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * p))
        adjusted[name] = largest
    return [Correlation(**{**vars(row), "p_holm": adjusted.get(row.score)}) for row in rows]


def _correlation(score: Measured, outcome: Measured, costs: Mapping[str, Mapping[str, float]]) -> Correlation:
    shared = tuple(name for name in score.values if name in outcome.values)
    x, y = score.column(shared), outcome.column(shared)
    x_draws, y_draws = score.noise(shared), outcome.noise(shared)
    varied = bool(np.ptp(x) > 0 and np.ptp(y) > 0)
    raw = np.array([outcome.values[name] for name in shared])
    logs = [np.array([costs[name].get(one, np.nan) for one in shared]) for name in costs]
    logs = [log for log in logs if np.isfinite(log).all() and np.ptp(log) > 0]
    return Correlation(
        score=score.name,
        kind=score.kind,
        outcome=outcome.name,
        better=outcome.better,
        architectures=shared,
        scores=tuple(score.values[name] for name in shared),
        outcomes=tuple(raw.tolist()),
        score_intervals=_intervals(score, shared),
        outcome_intervals=_intervals(outcome, shared),
        tau=float(tau_b(x, y)) if varied else None,
        interval=tau_interval(x, y, x_draws, y_draws) if varied else None,
        p=float(stats.kendalltau(x, y).pvalue) if varied else None,
        p_holm=None,
        spearman=float(stats.spearmanr(x, raw).statistic) if varied else None,
        pearson=float(stats.pearsonr(x, raw).statistic) if varied else None,
        decisions=ordered_pairs(x, y, x_draws, y_draws),
        influence=_influence(x, y, shared) if varied and len(shared) > 3 else None,
        partial_tau=partial_tau(x, y, logs) if varied and logs and len(shared) > len(logs) + 3 else None,
        score_reliability=reliability(x, x_draws),
        outcome_reliability=reliability(y, y_draws),
    )


def _influence(x: Floats, y: Floats, names: Sequence[str]) -> Influence | None:
    found = float(tau_b(x, y))
    without = np.array([float(tau_b(np.delete(x, i), np.delete(y, i))) for i in range(x.size)])
    if not np.isfinite(without).all():
        return None
    most = int(np.abs(without - found).argmax())
    return Influence(architecture=names[most], tau=without[most].item(), low=without.min().item(), high=without.max().item())


def _intervals(column: Measured, names: Sequence[str]) -> tuple[Interval | None, ...]:
    tail = (1 - CONFIDENCE) / 2
    return tuple(
        Interval(*np.quantile(column.draws[name], [tail, 1 - tail]).tolist()) if name in column.draws else None for name in names
    )


def _row(one: Correlation) -> dict[str, Any]:
    low, high = one.interval or (None, None)
    return {
        "score": one.score,
        "outcome": one.outcome,
        "architectures": len(one.architectures),
        "tau": one.tau,
        "tau_low": low,
        "tau_high": high,
        "p": one.p,
        "p_holm": one.p_holm,
        "spearman": one.spearman,
        "pearson": one.pearson,
        **{f"pairs_{name}": number for name, number in one.decisions._asdict().items()},
        "decision_accuracy": one.decision_accuracy,
        "partial_tau": one.partial_tau,
        "ceiling": one.ceiling,
        "verdict": one.verdict,
    }


def _document(one: Correlation) -> dict[str, Any]:
    points = [
        {"architecture": name, "score": score, "outcome": outcome}
        for name, score, outcome in zip(one.architectures, one.scores, one.outcomes, strict=True)
    ]
    influence = None if one.influence is None else asdict(one.influence)
    reliabilities = {"score_reliability": one.score_reliability, "outcome_reliability": one.outcome_reliability}
    return {**_row(one), "better": one.better, "influence": influence, **reliabilities, "points": points}
