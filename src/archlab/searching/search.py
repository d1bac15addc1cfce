"""The loop of a search: propose, evaluate, propose again; then the rungs, the consensus, and the winner once more."""

import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from archlab.architectures import Architecture
from archlab.errors import ArchlabError
from archlab.jobs import scheduler
from archlab.jobs.events import Listener, RunSummary
from archlab.jobs.executor import Executor
from archlab.machine import Device
from archlab.mad.architecture_score import ArchitectureScore
from archlab.mad.memory import check_memory
from archlab.mad.plan import Plan, make_plan, score_plan
from archlab.mad.preview import check_can_compute
from archlab.mad.protocol import Protocol, load_protocol
from archlab.mad.racing import Race, Racing
from archlab.mad.scores import Scores
from archlab.mad.store import OutcomeRecord, TrialStore
from archlab.mad.study import read_specs
from archlab.mad.trial import Progress, Trial, TrialResult
from archlab.searching.analysis import as_typed, consensus, features, importance
from archlab.searching.costs import COSTS
from archlab.searching.objectives import MEAN, Objective, read_objectives
from archlab.searching.pareto import best_first, front
from archlab.searching.proposers import Evaluated, Proposal, make_proposer
from archlab.searching.result import Again, Candidate, Search
from archlab.searching.space import Space, load_space

EVALUATIONS = 24
"""Architectures that are proposed by default, by other proposers than the exhaustive one."""
FEWEST_FOR_CONSENSUS = 8
"""Evaluated architectures from which the best have something in common."""
Workplace = Executor[Trial, Progress, TrialResult]


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """The work that a search sets out to do. Equal plans give equal results."""

    space: Space
    proposer: str
    objectives: tuple[Objective, ...]
    evaluations: int
    """Architectures that are proposed, and evaluated by the first protocol."""
    rungs: tuple[Protocol, ...]
    """Protocols, each for the promoted part of what went through the one before."""
    promote: float
    """Fraction that goes on to the next rung."""
    seed: int
    batch: int
    """Architectures that are proposed at once."""
    device: Device = "cpu"

    @property
    def protocol(self) -> Protocol:
        """The last rung, whose scores are the result."""
        return self.rungs[-1]

    @property
    def fresh(self) -> Protocol:
        """The same from seeds that the search has not seen."""
        first = max(self.protocol.seeds) + 1
        return self.protocol.with_seeds(range(first, first + len(self.protocol.seeds)))

    def known_losses(self, architecture: Architecture) -> list[float | None]:
        """The losses that are costs, None for scores."""
        dim, length = self.space.dim, self.space.length
        return [COSTS[one.name].of(architecture, dim, length) if one.name in COSTS else None for one in self.objectives]

    def values(self, score: ArchitectureScore) -> dict[str, float | None]:
        """The objectives of an architecture by name; None where there is none."""
        return {one.name: one.value(score, self.space.dim, self.space.length) for one in self.objectives}

    def numbers(self) -> list[int]:
        """Architectures on each rung, if the space has enough."""
        found = [self.evaluations]
        for _ in self.rungs[1:]:
            found.append(promoted(found[-1], self.promote))
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: all that decides on the result."""
        plan = {
            "space": {one.name: getattr(self.space, one.name) for one in fields(Space)} | {"grammar": asdict(self.space.grammar)},
            "proposer": self.proposer,
            "objectives": [one.name for one in self.objectives],
            "evaluations": self.evaluations,
            "rungs": [asdict(one) for one in self.rungs],
            "promote": self.promote,
            "seed": self.seed,
            "batch": self.batch,
        }
        found: dict[str, Any] = json.loads(json.dumps(plan))  # as a store gives it back
        return found


def make_search_plan(
    space: str,
    protocol: str | os.PathLike[str] | Protocol | None = None,
    *,
    proposer: str = "guided",
    objectives: Sequence[str] = ("mad", "state"),
    evaluations: int | None = None,
    rungs: Sequence[str | os.PathLike[str]] = (),
    promote: float = 0.5,
    suite: str | None = None,
    tasks: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    seed: int = 0,
    batch: int = 4,
    device: Device = "cpu",
) -> SearchPlan:
    """The plan of a search; the arguments are those of :func:`archlab.search`. Refuses what cannot be met as asked."""
    last, _ = read_specs([], protocol, suite)
    last = last if tasks is None else last.with_tasks(tasks)
    last = last if seeds is None else last.with_seeds(seeds)
    before = [load_protocol(os.fspath(name)) for name in rungs]
    protocols = (*before, last)
    if repeated := [name for name, number in Counter(one.name for one in protocols).items() if number > 1]:
        raise ArchlabError(f"rungs: {repeated[0]} is there twice, the protocol {last.name} is the last rung: leave one out")
    found = load_space(space, last, before)
    chosen = read_objectives(objectives, last)
    for one in before:
        if lacking := [x.name for x in chosen if x.larger_is_better and x.name not in (MEAN, *one.tasks)]:
            raise ArchlabError(f"rungs: protocol {one.name} has no task {lacking[0]}, which is an objective: choose another")
    make_proposer(proposer, found)
    found.sample(np.random.default_rng(seed))  # refuses a space without members
    if evaluations is None:
        evaluations = len(found.members) if proposer == "exhaustive" else EVALUATIONS
    return SearchPlan(
        space=found,
        proposer=proposer,
        objectives=chosen,
        evaluations=evaluations,
        rungs=protocols,
        promote=promote,
        seed=seed,
        batch=batch,
        device=device,
    )


def promoted(number: int, fraction: float) -> int:
    """How many of a number of architectures go on to the next rung: one at least."""
    return max(1, math.ceil(fraction * number))


@dataclass(frozen=True)
class Advance:
    """The state of a search after a batch."""

    what: str
    """The protocol; for the consensus and for fresh seeds that as well."""
    evaluated: int
    evaluations: int
    best: ArchitectureScore | None
    seconds_left: float | None
    """Time until this rung ends; None while nothing had to be computed."""
    front: tuple[tuple[str, Mapping[str, float | None]], ...]
    """The architectures that no other beats so far, with their objectives; best first by the first of these."""


def run_search(
    plan: SearchPlan,
    store: TrialStore,
    executor: Workplace,
    *,
    race: Race = "exact",
    listeners: Sequence[Listener] = (),
    on_advance: Callable[[Advance], None] = lambda _: None,
) -> Search:
    """Carry out a search; results that the store has are not computed again.

    Raises:
        ArchlabError: the space has no member within its limits, a cost is not known, or no proposal could be scored.
        KeyboardInterrupt: after Ctrl-C; what is finished is in the store, and the same call does the rest.
    """
    proposer = make_proposer(plan.proposer, plan.space, plan.seed, plan.known_losses)
    first, *others = plan.rungs
    evaluator = _Evaluator(plan, store, executor, race, listeners, on_advance)
    done: list[Evaluated] = []
    while len(done) < plan.evaluations:
        batch = proposer.propose(done, min(plan.batch, plan.evaluations - len(done)))
        if not batch:
            break
        for one in batch:
            _check_costs(plan, one.architecture)
        scored = evaluator.evaluate(first, [one.architecture for one in batch], plan.evaluations)
        done += [Evaluated(one, plan_losses(plan, scored[one.architecture])) for one in batch]
    proposals = [one.proposal for one in done]
    reached = [first] * len(proposals)
    here = list(range(len(proposals)))
    for protocol in others:
        here = _promoted(plan, [done[index] for index in here], here)
        for start in range(0, len(here), plan.batch):
            some = here[start : start + plan.batch]
            scored = evaluator.evaluate(protocol, [proposals[index].architecture for index in some], len(here))
            for index in some:
                done[index] = Evaluated(proposals[index], plan_losses(plan, scored[proposals[index].architecture]))
                reached[index] = protocol
    common = _consensus(plan, [done[index] for index in here])
    number = next((index for index in here if proposals[index].architecture == common), None)
    if common is not None and number is None:
        number = len(proposals)
        scored = evaluator.evaluate(plan.protocol, [common], len(here) + 1, "with the consensus")
        proposals.append(Proposal(common, {}, "consensus"))
        done.append(Evaluated(proposals[-1], plan_losses(plan, scored[common])))
        reached.append(plan.protocol)
        here.append(number)
    winner = min((index for index in here if done[index].losses), key=lambda index: _first(done[index]), default=None)
    if winner is None:
        failed = next(iter(evaluator.reasons.values()), "no architecture has a score")
        raise ArchlabError(f"search of space {plan.space.name}: nothing could be scored: {failed}")
    roles = {winner: "winner"} | ({number: "consensus"} if number not in (None, winner) else {})
    fresh = evaluator.evaluate(plan.fresh, [proposals[index].architecture for index in roles], len(roles), "from fresh seeds")
    return _result(plan, evaluator, proposals, reached, here, winner, number, roles, fresh)


def plan_losses(plan: SearchPlan, score: ArchitectureScore) -> tuple[float, ...] | None:
    """The losses of an architecture, one for each objective; None if a score is missing."""
    values = plan.values(score)
    losses = [one.loss(value) for one in plan.objectives if (value := values[one.name]) is not None]
    return tuple(losses) if len(losses) == len(values) else None


def _check_costs(plan: SearchPlan, architecture: Architecture) -> None:
    """Refuse a cost that is not known, before anything is trained for it."""
    for one in plan.objectives:
        if one.name in COSTS and COSTS[one.name].of(architecture, plan.space.dim, plan.space.length) is None:
            raise ArchlabError(f"objective {one.name}: {architecture}: it is not known of a layer: leave the objective out")


def _first(one: Evaluated) -> float:
    assert one.losses is not None
    return one.losses[0]


def _promoted(plan: SearchPlan, done: Sequence[Evaluated], numbers: Sequence[int]) -> list[int]:
    """The numbers of those that go on, in the order of proposals."""
    known = [(number, one.losses) for number, one in zip(numbers, done, strict=True) if one.losses is not None]
    if not known:
        return []
    order = best_first(np.array([losses for _, losses in known]))
    return sorted(known[index][0] for index in order[: promoted(len(numbers), plan.promote)])


def _consensus(plan: SearchPlan, done: Sequence[Evaluated]) -> Architecture | None:
    scored = sorted((one for one in done if one.losses is not None), key=_first)
    if len(scored) < FEWEST_FOR_CONSENSUS:
        return None
    found = consensus([one.proposal.architecture for one in scored])
    return found if plan.space.admits(found) else None


class _Evaluator:
    """Puts architectures through protocols, by the one scheduler and the one store."""

    def __init__(
        self,
        plan: SearchPlan,
        store: TrialStore,
        executor: Workplace,
        race: Race,
        listeners: Sequence[Listener],
        on_advance: Callable[[Advance], None],
    ) -> None:
        self.plan, self.store, self.executor, self.race = plan, store, executor, race
        self.listeners, self.on_advance = listeners, on_advance
        self.known: dict[tuple[str, tuple[int, ...]], dict[Architecture, ArchitectureScore]] = {}
        self.reasons: dict[str, str] = {}
        self._seconds: list[float] = []

    def evaluate(
        self, protocol: Protocol, architectures: Sequence[Architecture], evaluations: int, which: str = ""
    ) -> Mapping[Architecture, ArchitectureScore]:
        """Scores of architectures under a protocol, of ``evaluations`` that will be asked for."""
        started = time.monotonic()
        plan = make_plan(protocol, architectures, self.plan.device)
        summary = self._compute(plan)
        self.reasons |= summary.failed
        known = self.known.setdefault((protocol.name, protocol.seeds), {})
        known |= {one.architecture: one for one in self.score(plan).architectures}
        if summary.computed:
            self._seconds.append((time.monotonic() - started) / len(architectures))
        left = evaluations - len(known)
        seconds = float(np.mean(self._seconds[-4:])) * left if self._seconds else None
        best = max(known.values(), key=lambda one: one.score or 0.0)
        what = f"{protocol.name} {which}".strip()
        self.on_advance(Advance(what, len(known), evaluations, best, seconds, self._front(known.values())))
        return known

    def _front(self, scores: Iterable[ArchitectureScore]) -> tuple[tuple[str, Mapping[str, float | None]], ...]:
        known = [(one, losses) for one in scores if (losses := plan_losses(self.plan, one))]
        best = sorted((known[index] for index in front(np.array([losses for _, losses in known]))), key=lambda one: one[1])
        defaults = self.plan.space.layer_defaults
        return tuple((str(as_typed(one.architecture, defaults)), self.plan.values(one)) for one, _ in best)

    def score(self, plan: Plan) -> Scores:
        """The scores of a plan from the store."""
        trials = {trial.key: trial for trial in plan.trials()}
        found: dict[Trial, OutcomeRecord | None] = dict.fromkeys(trials.values())
        found |= {trials[record.key]: record for record in self.store.outcomes(keys=trials, unreadable={})}
        return score_plan(self.store, plan, {}, found)

    def _compute(self, plan: Plan) -> RunSummary:
        trials = plan.trials()
        policy = Racing(trials, self.race)
        stored = {record.key for record in self.store.outcomes([one.key for one in trials], policy.settled, unreadable={})}
        left = [trial for trial in trials if trial.key not in stored]
        check_can_compute(left)
        check_memory(left, self.executor.num_workers, 1)
        return scheduler.run(trials, self.store, self.executor, policy=policy, listeners=self.listeners)


def _result(
    plan: SearchPlan,
    evaluator: _Evaluator,
    proposals: Sequence[Proposal],
    reached: Sequence[Protocol],
    here: Sequence[int],
    winner: int,
    common: int | None,
    roles: Mapping[int, str],
    fresh: Mapping[Architecture, ArchitectureScore],
) -> Search:
    scores = evaluator.score(Plan(plan.protocol, tuple(proposals[index].architecture for index in here), plan.device))
    final = {one.architecture: one for one in scores.architectures}
    candidates = []
    for number, (proposal, protocol) in enumerate(zip(proposals, reached, strict=True)):
        of_rung = evaluator.known[protocol.name, protocol.seeds]
        score = final[proposal.architecture] if number in here else of_rung[proposal.architecture]
        candidates.append(
            Candidate(
                number=number,
                architecture=proposal.architecture,
                spec=str(as_typed(proposal.architecture, plan.space.layer_defaults)),
                choices=proposal.choices,
                origin=proposal.origin,
                parents=proposal.parents,
                rung=protocol.name,
                values=plan.values(score),
                intervals={one.name: one.interval(score) for one in plan.objectives},
                on_front=False,
            )
        )
    complete = [number for number in here if None not in candidates[number].values.values()]
    losses = np.array([plan_losses(plan, final[proposals[number].architecture]) for number in complete])
    for index in front(losses):
        candidates[complete[index]] = replace(candidates[complete[index]], on_front=True)
    main = plan.objectives[0]
    again = [
        Again(
            number=number,
            role=role,
            seeds=plan.fresh.seeds,
            first=candidates[number].values[main.name],
            first_interval=candidates[number].intervals[main.name],
            fresh=main.value(fresh[proposals[number].architecture], plan.space.dim, plan.space.length),
            fresh_interval=main.interval(fresh[proposals[number].architecture]),
        )
        for number, role in roles.items()
    ]
    chosen = [proposals[number] for number in complete if proposals[number].choices]
    described = features([one.architecture for one in chosen], [one.choices for one in chosen])
    values = [candidates[number].values[main.name] or 0.0 for number in complete if proposals[number].choices]
    return Search(
        space=plan.space.name,
        summary=plan.space.summary,
        size=plan.space.size,
        proposer=plan.proposer,
        seed=plan.seed,
        objectives={one.name: one.larger_is_better for one in plan.objectives},
        rungs=tuple(one.name for one in plan.rungs),
        seeds=plan.protocol.seeds,
        dim=plan.space.dim,
        length=plan.space.length,
        candidates=tuple(candidates),
        winner=winner,
        consensus=common,
        again=tuple(again),
        importance=importance(described, values),
        scores=scores,
    )
