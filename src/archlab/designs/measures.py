"""The measurements that findings are tested by: from scores and language models to numbers, one a seed where there are seeds."""

from collections.abc import Mapping, Sequence
from math import exp
from statistics import fmean

import numpy as np

from archlab.designs.correlation import correlate
from archlab.designs.finding import Finding
from archlab.designs.measured import MEAN
from archlab.designs.verdict import Quantity, over_seeds
from archlab.errors import ArchlabError
from archlab.mad.architecture_score import ArchitectureScore, SettingScore
from archlab.mad.scores import Scores
from archlab.scaling.fits import Resampling, fit_power_law, fit_state
from archlab.scaling.study import RunTable, Study

LEARNED = 0.05
"""An architecture has learned a task if its score is this much above chance."""
SOLVED = 0.99
"""Score from which a task tells architectures apart no more."""
FRACTION = 0.5
"""Size of the model off the optimum, over the best one."""
BySeed = Mapping[int, float]


def measure(finding: Finding, scores: Scores | None, study: Study | None) -> list[Quantity]:
    """Measure what a finding is about: one quantity for each pair, and for each budget of a ladder."""
    if finding.test in ("scores", "longest"):
        assert scores is not None
        return _scores(finding, scores)
    assert study is not None
    if finding.test == "losses":
        return [quantity for budget in _budgets(study) for quantity in _losses(finding, study, budget)]
    if finding.test == "off-optimal":
        return [quantity for budget in _budgets(study) for quantity in _off_optimal(finding, study, budget)]
    if finding.test == "state-exponent":
        return [_state_exponent(finding, study)]
    assert scores is not None
    return [_correlation(finding, scores, study)]


def _scores(finding: Finding, scores: Scores) -> list[Quantity]:
    """Differences of scores in points: the mean over tasks, or the score at the longest length that was tested."""
    longest = finding.test == "longest"
    by_label = {one.label: _by_seed(one, longest) for one in scores.architectures}
    chance = fmean(one for one in scores.chance if one is not None)
    found = []
    for better, than in finding.compare:
        means = [fmean(values.values()) if (values := by_label[label]) else chance for label in (better, than)]
        doubt = ""
        if max(means) < chance + LEARNED:
            doubt = "neither has learned the task"
        elif min(means) > SOLVED:
            doubt = "both solve the task"
        differences = [100 * value for value in _paired(by_label[better], by_label[than])]
        at = " at the longest length" if longest else ""
        found.append(
            over_seeds(f"score of {better} − {than}{at}", differences, unit="points", doubt=doubt, region=finding.region)
        )
    return found


def _by_seed(architecture: ArchitectureScore, longest: bool) -> BySeed:
    """Scores of an architecture by seed, mean over tasks and settings, of the seeds that have all."""
    read = _longest if longest else _whole
    tasks = [[read(setting) for setting in task.settings] for task in architecture.tasks]
    seeds = set.intersection(*(set(setting) for task in tasks for setting in task))
    return {seed: fmean(fmean(setting[seed] for setting in task) for task in tasks) for seed in sorted(seeds)}


def _whole(setting: SettingScore) -> dict[int, float]:
    return {one.seed: one.score for one in setting.seeds if one.score is not None}


def _longest(setting: SettingScore) -> dict[int, float]:
    return {one.seed: max(one.by_length)[1] for one in setting.seeds if one.by_length}


def _paired(first: BySeed, second: BySeed) -> list[float]:
    """Differences on the seeds that both have."""
    return [first[seed] - second[seed] for seed in first if seed in second]


def _budgets(study: Study) -> list[float]:
    """The budgets of all training runs, those that diverged included."""
    return sorted({run.row()["budget"] for table in study.tables.values() for run in (*table.models, *table.censored)})


def _of_seed(table: RunTable, seed: int) -> RunTable:
    return table.take(np.flatnonzero(table.seed == seed))


def _seeds(table: RunTable) -> list[int]:
    return [int(seed) for seed in np.unique(table.seed)]


def _losses(finding: Finding, study: Study, budget: float) -> list[Quantity]:
    """How much less loss the better one has, in nats a token, both at the best of the sizes trained at a budget."""
    by_label: dict[str, BySeed] = {}
    for label, table in study.tables.items():
        of_seed = {seed: table.loss[(table.seed == seed) & (table.budget == budget)] for seed in _seeds(table)}
        by_label[label] = {seed: float(losses.min()) for seed, losses in of_seed.items() if losses.size}
    return [
        over_seeds(
            f"loss of {than} − {better} at {budget:.3g} FLOPs",
            _paired(by_label.get(than, {}), by_label.get(better, {})),
            unit="nats",
            region=finding.region,
        )
        for better, than in finding.compare
    ]


def _off_optimal(finding: Finding, study: Study, budget: float) -> list[Quantity]:
    """How much less the better one loses in a model of half the best size, in nats a token, at a budget."""
    excess: dict[str, BySeed] = {}
    lacking = {}
    for label, table in study.tables.items():
        minima = {seed: _of_seed(table, seed).minima.get(budget) for seed in _seeds(table)}
        excess[label] = {seed: float(at(FRACTION * at.size)) - at.loss for seed, at in minima.items() if at is not None}
        if missing := len(minima) - len(excess[label]):
            lacking[label] = f"the best size of {label} is not bracketed with {missing} of {len(minima)} seeds"
    return [
        over_seeds(
            f"loss at half the best size above the least, {than} − {better}, at {budget:.3g} FLOPs",
            _paired(excess.get(than, {}), excess.get(better, {})),
            unit="nats",
            doubt=lacking.get(better) or lacking.get(than, ""),
            region=finding.region,
        )
        for better, than in finding.compare
    ]


def _state_exponent(finding: Finding, study: Study) -> Quantity:
    """The exponent of compute-optimal perplexity over state, fitted to each seed."""
    found, doubt = [], ""
    for seed in sorted({seed for table in study.tables.values() for seed in _seeds(table)}):
        try:
            found.append(_exponent([_of_seed(table, seed) for table in study.tables.values()]))
        except ArchlabError as error:
            doubt = f"seed {seed}: {error}"
    return over_seeds("exponent of perplexity over state", found, doubt=doubt, region=finding.region)


def _exponent(tables: Sequence[RunTable]) -> float:
    """One exponent for all architectures; the state of a best size follows a power law through the runs."""
    states, perplexities, labels = [], [], []
    for table in tables:
        for minimum in table.minima.values():
            states.append(float(fit_power_law(x=table.N, y=table.state)(minimum.size)))
            perplexities.append(exp(minimum.loss))
            labels.append(table.label)
    if not labels:
        raise ArchlabError("no architecture has a best size between the smallest and the largest")
    return fit_state(perplexity=perplexities, state=states, group=labels, resampling=Resampling(0)).exponent


def _correlation(finding: Finding, scores: Scores, study: Study) -> Quantity:
    """Kendall's tau of the mean score with the least loss of the largest budget, with its interval over architectures."""
    try:
        row = [row for row in correlate(scores, study).rows if row.score == MEAN][-1]
    except ArchlabError as error:
        return Quantity(name="tau of score and loss", unit="", value=None, doubt=str(error), region=finding.region)
    low, high = row.interval or (None, None)
    name = f"tau of score and {row.outcome} over {len(row.architectures)} architectures"
    doubt = "" if row.interval else "fewer than four architectures, or one value only"
    return Quantity(name=name, unit="", value=row.tau, low=low, high=high, doubt=doubt, region=finding.region)
