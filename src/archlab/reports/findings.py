"""What the report says in words: what was found, and what a reader must be warned of."""

from collections.abc import Sequence

from archlab.mad.comparison import Difference, difference
from archlab.mad.scores import ArchitectureScore, Scores
from archlab.mad.spending import HALVING_ERROR, HALVING_LARGEST_ERROR, Spending
from archlab.mad.store import Record
from archlab.reports.format import count, human, percent, percent_interval, short_task
from archlab.reports.provenance import mixed_versions


def ranking(scores: Scores) -> str:
    """Who leads and by how much."""
    leader, *others = scores.architectures
    if leader.score is None:
        return "No architecture has a score yet"
    text = f"{leader.label} leads with {percent(leader.score)} % ({percent_interval(leader.interval)})"
    ahead = difference(scores, leader.label, others[0].label) if others and others[0].score is not None else None
    if ahead is None:
        return text if others else f"{leader.label} scores {percent(leader.score)} % ({percent_interval(leader.interval)})"
    lead = f"{100 * ahead.mean:.1f} points ({100 * ahead.interval.low:.1f} to {100 * ahead.interval.high:.1f})"
    if ahead.interval.low > 0:
        return f"{text}, {lead} ahead of {others[0].label}"
    return f"{text}, but is not separated from {others[0].label}: {lead}"


def spent(spending: Spending) -> str:
    """What stopping early and leaving out have saved."""
    left_out = spending.trainings - spending.trainings_started
    text = (
        f"{left_out} of {count(spending.trainings, 'training')} left out, {spending.dropped} dropped; "
        f"{human(spending.steps_spent)} of {human(spending.steps)} steps and {spending.flops_spent:.3g} of "
        f"{spending.flops:.3g} FLOPs spent: {percent(spending.saved)} % saved by stopping early and by racing"
    )
    if not spending.dropped:
        return text
    return (
        f"{text}; where it was measured, dropping cost a task {100 * HALVING_ERROR:.1f} points on average and "
        f"{100 * HALVING_LARGEST_ERROR:.1f} at most"
    )


def best_of_tasks(scores: Scores) -> str:
    """Which architecture is best on how many tasks."""
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
    return f"{_join(names)} {_has(names)} the best score on {most} of {count(scored, 'task')}{' each' if len(names) > 1 else ''}"


def separation(scores: Scores) -> str:
    """Which architectures the leader cannot be told apart from."""
    leader = scores.architectures[0]
    found = [difference(scores, other.label, leader.label) for other in scores.architectures[1:]]
    known: Sequence[Difference] = [x for x in found if x is not None]
    if not known:
        return "There is no pair to compare"
    level = [x.first for x in known if x.interval.low <= 0 <= x.interval.high]
    if not level:
        return f"{leader.label} is separated from every other architecture"
    return f"{leader.label} cannot be told apart from {_join(level)}"


def solved(scores: Scores) -> str:
    """Who solves how many tasks."""
    numbers = {a.label: sum(t.settings[0].steps_to_solve is not None for t in a.tasks) for a in scores.architectures}
    most = max(numbers.values())
    if most == 0:
        return "No architecture solves a task within the planned steps"
    names = [label for label, number in numbers.items() if number == most]
    return f"{_join(names)} {'solve' if len(names) > 1 else 'solves'} {most} of {count(len(scores.tasks), 'task')}"


def frontier(scores: Scores) -> str:
    """Which architectures no other beats with as little or less state, of those whose state is known."""
    scored = [(a.costs.state_size, a.score, a.label) for a in scores.architectures if a.score is not None]
    known = [(state, score, label) for state, score, label in scored if state is not None]
    best = [
        label
        for state, score, label in known
        if not any((s <= state and v > score) or (s < state and v >= score) for s, v, _ in known)
    ]
    if not scored:
        return "No architecture has a score yet"
    unknown = [label for state, _, label in scored if state is None]
    note = f"; what {_join(unknown)} {'carry' if len(unknown) > 1 else 'carries'} is not known" if unknown else ""
    return f"For the state they carry, none beats {_join(best)}{note}" if best else "What the architectures carry is not known"


def warnings(scores: Scores) -> list[str]:
    """What makes these scores less than they look."""
    found = []
    if scores.interval_over == "test instances":
        found.append(
            "One seed: the intervals cover test instances only. They say nothing about other initialisations or training data, "
            "which on these tasks can change a score by more than the interval's width."
        )
    for architecture in scores.architectures:
        if not architecture.complete:
            found.append(_partial(architecture))
        if architecture.num_diverged:
            number = count(architecture.num_diverged, "trial")
            found.append(f"{architecture.label}: {number} diverged (the loss became NaN or infinite) and count as chance.")
    return found + mixed_versions(record.provenance for record in _ended(scores))


def _partial(architecture: ArchitectureScore) -> str:
    missing = [short_task(task.task) for task in architecture.tasks if not task.complete]
    return (
        f"{architecture.label} is partial: {architecture.num_complete} of {count(architecture.num_settings, 'setting')} complete "
        f"(incomplete: {_join(missing)}). Its scores, marked *, are means of what there is, and it is ranked after complete ones."
    )


def _ended(scores: Scores) -> list[Record]:
    return [record for record in scores.records if record.result is not None]


def _has(names: Sequence[str]) -> str:
    return "have" if len(names) > 1 else "has"


def _join(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
