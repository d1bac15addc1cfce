"""Sentences of the report: its findings, and its warnings."""

from collections.abc import Sequence

import numpy as np

from archlab.format import count, human, percent, percent_interval, short_task
from archlab.mad.bootstrap import CONFIDENCE
from archlab.mad.comparison import difference
from archlab.mad.scores import UNAVAILABLE, Scores
from archlab.mad.spending import HALVING_ERROR, HALVING_LARGEST_ERROR, Spending
from archlab.reports.provenance import mixed_versions
from archlab.scaling.warnings import WarningGroup, grouped
from archlab.searching.pareto import front
from archlab.tasks.stored import UNAVAILABLE as NO_TASK


def ranking(scores: Scores) -> str:
    """The leader and its distance from the second; with one seed without intervals, since the order is not established."""
    leader, *others = scores.architectures
    if leader.score is None:
        return "No architecture has a score yet"
    score = f"{percent(leader.score)}\N{NO-BREAK SPACE}%"
    if not scores.one_seed:
        score += f" ({percent_interval(leader.interval)})"
    second = others[0] if others else None
    ahead = difference(scores, leader.label, second.label) if second and second.score is not None else None
    if second is None:
        return f"{leader.label} scores {score}"
    if ahead is None:
        return f"{leader.label} leads with {score}"
    if scores.one_seed:
        lead = f"{leader.label} has the highest score, {score}, {_points(ahead.mean)} above {second.label}"
        return f"{lead}; one seed: order not established"
    bounds = [f"{100 * bound:.1f}".replace("-", "−") for bound in (ahead.interval.low, ahead.interval.high)]
    lead = f"{_points(ahead.mean)} ({' to '.join(bounds)})"
    if ahead.interval.low > 0:
        return f"{leader.label} leads with {score}, {lead} ahead of {second.label}"
    return f"{leader.label} leads with {score}, but is not separated from {second.label}: {lead}"


def _points(difference: float) -> str:
    return f"{100 * difference:.1f}\N{NO-BREAK SPACE}points"


def reading(scores: Scores) -> str:
    """The lead of the page: the meaning of scores and intervals."""
    text = (
        "Scores are the fraction of right answers on the test split, in percent: per setting the best grid point, chosen on the "
        "selection split; then the mean over seeds, settings and tasks. Intervals are "
        f"{100 * CONFIDENCE:.0f}\N{NO-BREAK SPACE}% bootstrap intervals over {scores.interval_over}."
    )
    if scores.one_seed:
        return text
    return (
        f"{text} With two or three seeds they are too narrow where seeds differ much, for a single task more than for the mean."
    )


def spent(spending: Spending) -> str:
    """The compute that early stopping and racing have saved."""
    left_out = spending.trials - spending.trials_started
    text = (
        f"{left_out} of {count(spending.trials, 'trial')} left out, {spending.dropped} dropped; "
        f"{human(spending.steps_spent)} of {human(spending.steps)} steps and {spending.flops_spent:.3g} of "
        f"{spending.flops:.3g} FLOPs spent: {percent(spending.saved)}\N{NO-BREAK SPACE}% saved by stopping early and by racing"
    )
    if not spending.dropped:
        return text
    return (
        f"{text}; where it was measured, dropping cost a task {100 * HALVING_ERROR:.1f} points on average and "
        f"{100 * HALVING_LARGEST_ERROR:.1f} at most"
    )


def best_of_tasks(scores: Scores) -> str:
    """The architecture that is best on most tasks."""
    if len(scores.architectures) == 1:
        return "Scores by task"
    winners: dict[str, int] = {}
    scored = 0
    for index in range(len(scores.tasks)):
        found = {a.label: percent(a.tasks[index].score) for a in scores.architectures if a.tasks[index].score is not None}
        if found:
            scored += 1
            best = max(found.values(), key=float)
            for label, text in found.items():
                winners[label] = winners.get(label, 0) + (text == best)
    if not winners:
        return "No task has a score yet"
    most = max(winners.values())
    names = [label for label, number in winners.items() if number == most]
    verb, each = ("have", " each") if len(names) > 1 else ("has", "")
    return f"{_join(names)} {verb} the best score on {most} of {count(scored, 'task')}{each}"


def separation(scores: Scores) -> str:
    """The architectures that the leader cannot be told apart from."""
    leader, known = scores.architectures[0], scores.differences
    if not known:
        return "There is no pair to compare"
    if scores.one_seed:
        return "One seed: order not established"
    level = [x.first for x in known if x.interval.low <= 0 <= x.interval.high]
    if not level:
        return f"{leader.label} is separated from every other architecture"
    return f"{leader.label} cannot be told apart from {_join(level)}"


def solved(scores: Scores) -> str:
    """The architectures that solve most tasks."""
    numbers = {a.label: sum(t.settings[0].steps_to_solve is not None for t in a.tasks) for a in scores.architectures}
    most = max(numbers.values())
    if most == 0:
        return "No architecture solves a task within the planned steps"
    names = [label for label, number in numbers.items() if number == most]
    return f"{_join(names)} {'solve' if len(names) > 1 else 'solves'} {most} of {count(len(scores.tasks), 'task')}"


def frontier(scores: Scores) -> str:
    """The architectures that no other beats with as little or less state, among those whose state is known."""
    scored = [(a.costs.state_size, a.score, a.label) for a in scores.architectures if a.score is not None]
    known = [(state, score, label) for state, score, label in scored if state is not None]
    best = [known[index][2] for index in front(np.array([(state, -score) for state, score, _ in known]))]
    if not scored:
        return "No architecture has a score yet"
    unknown = [label for state, _, label in scored if state is None]
    note = f"; the state of {_join(unknown)} is not known" if unknown else ""
    return f"For the state they carry, none beats {_join(best)}{note}" if best else "The state of the architectures is not known"


def warnings(scores: Scores) -> list[str | WarningGroup]:
    """Reasons to trust these scores less; one that several architectures share is said once."""
    found: list[str | WarningGroup] = []
    if scores.one_seed:
        found.append(
            "One seed: the intervals cover test instances only. They say nothing about other initialisations or training data, "
            "which on these tasks can change a score by more than the interval's width."
        )
    if scores.unavailable:
        found.append(f"{_join(scores.unavailable)}: {NO_TASK}; scores come from the store, and chance is not known.")
    by_architecture = []
    for architecture in scores.architectures:
        if not architecture.available:
            cause = f"{UNAVAILABLE}; scores come from the store, costs that are not stored are unknown"
            by_architecture.append((cause, architecture.label))
        if not architecture.complete:
            missing = [short_task(task.task) for task in architecture.tasks if not task.complete]
            complete = f"{architecture.num_complete} of {count(architecture.num_settings, 'setting')} complete"
            cause = f"Partial, {complete} (incomplete: {_join(missing)}); scores, marked *, are means over what has a score"
            by_architecture.append((f"{cause}, and are ranked after complete ones", architecture.label))
        if architecture.num_diverged:
            number = count(architecture.num_diverged, "trial")
            cause = f"{number} diverged (the loss became NaN or infinite) and count as chance"
            by_architecture.append((cause, architecture.label))
    found += grouped(by_architecture)
    return [*found, *mixed_versions(record.provenance for record in scores.records if record.result is not None)]


def _join(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
