"""Proposers: which architectures to evaluate next, as a pure function of a seed and of what has been evaluated.

Nothing of a proposer is stored: after an interruption it is asked again for all that it proposed, with the same answers.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Protocol

import numpy as np
from typing_extensions import override

from archlab.architectures import Architecture
from archlab.errors import ArchlabError, unknown
from archlab.searching.analysis import features
from archlab.searching.grammar import Choices
from archlab.searching.pareto import Floats, best_first
from archlab.searching.space import ENUMERABLE, Member, Space

KnownLosses = Callable[[Architecture], Sequence[float | None]]
"""The losses of an architecture that are known before it is trained, None for the others."""
FIRST = 8
"""Members that are drawn at random before anything is learned from results."""
_TRIES = 25
"""Proposals in a row that are not new, after which others are drawn."""
_CHILDREN = 16
"""Children for each that is proposed, where they are pre-selected."""
_RIDGE = 0.1
"""Weight of the penalty, in units of the similarity of an architecture to itself."""
_CROSSED = 0.5
"""Fraction of the children that have two parents."""


@dataclass(frozen=True)
class Proposal:
    """An architecture to be evaluated, and how it came about."""

    architecture: Architecture
    choices: Choices
    origin: str
    """``random``, ``mutation``, ``crossover``, ``tpe``, ``exhaustive`` or ``consensus``."""
    parents: tuple[int, ...] = ()
    """Numbers of the evaluated architectures that it was made from."""

    @property
    def member(self) -> Member:
        """The member of the space."""
        return Member(self.architecture, self.choices)


@dataclass(frozen=True)
class Evaluated:
    """A proposal with its losses, one for each objective, to be made small; None if its training failed."""

    proposal: Proposal
    losses: tuple[float, ...] | None = field(compare=False)


class Proposer(Protocol):
    """Proposes members of a space; a pure function of its own fields and ``done``."""

    def propose(self, done: Sequence[Evaluated], number: int) -> list[Proposal]:
        """Up to ``number`` members that are not among ``done``, nor twice; fewer if the space has no more."""


@dataclass(frozen=True)
class Exhaustive:
    """All members, in the order of the grammar."""

    space: Space
    seed: int = 0

    def propose(self, done: Sequence[Evaluated], number: int) -> list[Proposal]:
        """The next ones."""
        known = {one.proposal.architecture for one in done}
        new = (Proposal(*one, "exhaustive") for one in self.space.members if one.architecture not in known)
        return list(islice(new, number))


@dataclass(frozen=True)
class Random:
    """Members whose choices are drawn evenly."""

    space: Space
    seed: int = 0

    def propose(self, done: Sequence[Evaluated], number: int) -> list[Proposal]:
        """New ones."""
        return _new(self.space, done, number, _rng(self.seed, done), None)


@dataclass(frozen=True)
class Evolution:
    """NSGA-II: parents by tournaments over rank and crowding distance, children by crossover and mutation of their choices.

    The parents are the best half of all that was evaluated, :data:`FIRST` at least; with one objective, plain evolution of
    the best. Source: Deb et al. 2002, with one batch for a generation.
    """

    space: Space
    seed: int = 0

    def propose(self, done: Sequence[Evaluated], number: int) -> list[Proposal]:
        """Random members at first, then children of the best."""
        rng = _rng(self.seed, done)
        if len(done) < FIRST:
            return _new(self.space, done, min(number, FIRST - len(done)), rng, None)
        known = [(index, one.losses) for index, one in enumerate(done) if one.losses is not None]
        order = [known[index][0] for index in best_first(np.array([losses for _, losses in known]))] if known else []
        parents = order[: max(FIRST, len(order) // 2)]

        def parent() -> int:
            return parents[int(min(rng.integers(len(parents), size=2)))]

        def child() -> Proposal | None:
            first, second = parent(), parent()
            if first != second and rng.random() < _CROSSED:
                crossed = self.space.cross(done[first].proposal.member, done[second].proposal.member, rng)
                return None if crossed is None else Proposal(*crossed, "crossover", (first, second))
            mutated = self.space.mutate(done[first].proposal.member, rng)
            return None if mutated is None else Proposal(*mutated, "mutation", (first,))

        return _new(self.space, done, number, rng, child if parents else None)


@dataclass(frozen=True)
class Guided(Evolution):
    """NSGA-II of which only the most promising children are proposed, by a regression of all losses on choices.

    It makes :data:`_CHILDREN` times as many children as are asked for, and proposes those whose predicted losses rank best among
    what was evaluated. The prediction is ridge regression on indicators of each choice and of the number of layers of each
    name; costs are known.
    """

    known: KnownLosses | None = None

    @override
    def propose(self, done: Sequence[Evaluated], number: int) -> list[Proposal]:
        scored = [one for one in done if one.losses is not None]
        if len(done) < FIRST or not scored:
            return super().propose(done, number)
        children = super().propose(done, _CHILDREN * number)
        losses = np.array([one.losses for one in scored])
        predicted = _predicted([one.proposal for one in scored], losses, children)
        for row, child in zip(predicted, children, strict=True):
            for index, loss in enumerate(self.known(child.architecture) if self.known else ()):
                row[index] = row[index] if loss is None else loss
        order = best_first(np.concatenate([losses, predicted]))
        return [children[index - len(scored)] for index in order if index >= len(scored)][:number]


def _predicted(known: Sequence[Proposal], losses: Floats, asked: Sequence[Proposal]) -> Floats:
    """Losses of proposals by ridge regression on what is known of others: ``(asked, objectives)``."""
    both = [*known, *asked]
    described = features([one.architecture for one in both], [one.choices for one in both])
    columns = sorted({item for one in described for item in one.items()})
    x = np.array([[one.get(name) == value for name, value in columns] for one in described], dtype=float)
    kernel = x @ x.T / x.sum(1).mean()
    num, mean = len(known), losses.mean(0)
    weights = np.linalg.solve(kernel[:num, :num] + _RIDGE * np.eye(num), losses - mean)
    found: Floats = mean + kernel[num:, :num] @ weights
    return found


@dataclass(frozen=True)
class TPE:
    """Tree-structured Parzen estimator by Optuna's ask and tell, over all choices together, grouped by those that occur together.

    Source: Watanabe 2023 (arXiv 2304.11127); several objectives: Ozaki et al. 2022. A study is made anew from the results for
    every batch; where it asks for what was evaluated, or is beyond the limits, it is asked again.
    """

    space: Space
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse to start without Optuna."""
        try:
            import optuna  # noqa: F401
        except ImportError:
            raise ArchlabError("proposer tpe: needs Optuna: pip install 'archlab[search]'") from None

    def propose(self, done: Sequence[Evaluated], number: int) -> list[Proposal]:
        """Random members at first, then those that Optuna's sampler asks for."""
        import optuna

        rng = _rng(self.seed, done)
        if len(done) < FIRST:
            return _new(self.space, done, min(number, FIRST - len(done)), rng, None)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        options: dict[str, Any] = {"multivariate": True, "group": True, "constant_liar": True, "n_startup_trials": 0}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(seed=int(rng.integers(2**31)), **options)
        width = next((len(one.losses) for one in done if one.losses), 1)
        study = optuna.create_study(directions=["minimize"] * width, sampler=sampler)
        for one in done:
            study.add_trial(_frozen(self.space, one))

        def asked() -> Proposal | None:
            trial = study.ask()
            member = self.space.derive(lambda name, alternatives: str(trial.suggest_categorical(name, alternatives)))
            return None if member is None else Proposal(*member, "tpe")

        return _new(self.space, done, number, rng, asked)


def _frozen(space: Space, one: Evaluated) -> Any:
    import optuna

    distributions: dict[str, Any] = {}

    def known(name: str, alternatives: tuple[str, ...]) -> str:
        distributions[name] = optuna.distributions.CategoricalDistribution(alternatives)
        return one.proposal.choices[name]

    space.derive(known)
    state = optuna.trial.TrialState.FAIL if one.losses is None else optuna.trial.TrialState.COMPLETE
    params = dict(one.proposal.choices)
    return optuna.trial.create_trial(
        params=params, distributions=distributions, values=one.losses and list(one.losses), state=state
    )


def _rng(seed: int, done: Sequence[Evaluated]) -> np.random.Generator:
    return np.random.default_rng([seed, len(done)])


def _new(
    space: Space,
    done: Sequence[Evaluated],
    number: int,
    rng: np.random.Generator,
    make: Callable[[], Proposal | None] | None,
) -> list[Proposal]:
    """Proposals that are new by ``make``, in which random members take the place of those that it does not find."""
    known = {one.proposal.architecture for one in done}
    found: list[Proposal] = []
    for way in (make, lambda: Proposal(*space.sample(rng), "random")):
        misses = 0
        while way and len(found) < number and misses < _TRIES:
            proposal = way()
            if proposal is None or proposal.architecture in known:
                misses += 1
                continue
            misses = 0
            known.add(proposal.architecture)
            found.append(proposal)
    if len(found) < number and space.grammar.num_derivations <= ENUMERABLE:  # few are left
        left = [member for member in space.members if member.architecture not in known]
        some = rng.permutation(len(left))[: number - len(found)]
        found += [Proposal(left[index].architecture, left[index].choices, "random") for index in some]
    return found


PROPOSERS: Mapping[str, Callable[[Space, int], Proposer]] = {
    "nsga2": Evolution,
    "guided": Guided,
    "random": Random,
    "exhaustive": Exhaustive,
    "tpe": TPE,
}
"""Every proposer by its name; takes a space and a seed."""


def make_proposer(name: str, space: Space, seed: int = 0, known: KnownLosses | None = None) -> Proposer:
    """The proposer with this name, a key of :data:`PROPOSERS`; refuses others. ``known`` helps the one that predicts losses."""
    if name not in PROPOSERS:
        raise unknown("proposer", name, PROPOSERS)
    made = PROPOSERS[name](space, seed)
    return replace(made, known=known) if isinstance(made, Guided) else made
