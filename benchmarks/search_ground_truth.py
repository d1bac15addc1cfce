"""Search on a table of all answers: do proposers find the true front of the 64 stacks of six layers, and how soon?

    archlab search --space stacks6 --proposer exhaustive --protocol benchmarks/stacks6.yaml --store stacks6.db
    python benchmarks/search_ground_truth.py --store stacks6.db

The first command trains all 64 stacks, half a minute of one core each; it can be stopped and continued. The second replays
proposers on its scores, from many seeds each, with the mean score and the state as objectives: nothing is trained. Every proposal
is asked for a second time from the results before it, as after an interruption, and must be the same; none may come twice.

The hypervolume is that between the found points and the worst score and largest state of the table, over that of the true front.
The front is found within a point if for each of its stacks one of no larger state was evaluated whose score is at most so much
lower: seeds of training alone move a score by about as much. Intervals are of 95 %, over seeds, by the bootstrap.
"""

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

import _results
from archlab.architectures import Architecture
from archlab.mad.protocol import load_protocol
from archlab.searching.pareto import front, hypervolume
from archlab.searching.proposers import PROPOSERS, Evaluated, make_proposer
from archlab.searching.space import Space, load_space

BUDGETS = (8, 12, 16, 20, 24)
POINT = 0.01
Table = Mapping[Architecture, tuple[float, float]]
"""Losses: the mean score, negative, and the state."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", default="stacks6.db", help="a store with trials of all 64 stacks")
    parser.add_argument("--protocol", default=str(Path(__file__).parent / "stacks6.yaml"))
    parser.add_argument("--seeds", type=int, help="only the first so many seeds of the protocol")
    parser.add_argument("--repeats", type=int, default=20, help="seeds of every proposer")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--json", type=Path, help="where to write; by default benchmarks/results")
    args = parser.parse_args()
    protocol = load_protocol(args.protocol)
    protocol = protocol.with_seeds(protocol.seeds[: args.seeds])
    space = load_space("stacks6", protocol)
    table, seconds = scored(args.store, space, protocol)
    _results_of_table(table, seconds)
    best = true_front(table)
    rows = []
    for name in PROPOSERS:
        if name == "exhaustive":
            continue
        found = [replay(name, space, table, seed, args.batch) for seed in range(args.repeats)]
        for budget in BUDGETS:
            volumes = np.array([volume([table[one] for one in each[:budget]], table) for each in found])
            near = [within_a_point([table[one] for one in each[:budget]], [table[one] for one in best]) for each in found]
            fronts = [len(best & set(each[:budget])) for each in found]
            low, high = interval(volumes)
            rows.append(
                {
                    "proposer": name,
                    "evaluations": budget,
                    "CPU s": round(float(np.mean([sum(seconds[one] for one in each[:budget]) for each in found]))),
                    "hypervolume": f"{volumes.mean():.3f} ({low:.3f}-{high:.3f})",
                    "of the front": round(float(np.mean(fronts)) / len(best), 2),
                    "within a point": f"{sum(near)} of {len(found)}",
                    "whole front": f"{sum(number == len(best) for number in fronts)} of {len(found)}",
                    "best score": f"{sum(winner(table) in each[:budget] for each in found)} of {len(found)}",
                }
            )
    print(_results.table(rows))
    command = shlex.join(["python", "benchmarks/search_ground_truth.py", *sys.argv[1:]])
    settings = {
        "protocol": f"{protocol.name}, seeds {', '.join(map(str, protocol.seeds))}",
        "true front": "; ".join(
            f"{one} ({100 * -table[one][0]:.1f} %, state {table[one][1]:,.0f})"
            for one in sorted(best, key=lambda one: table[one])
        ),
        "by number of attention layers, best score and mean, rank of the best": by_attention(table),
        "repeats": args.repeats,
        "batch": args.batch,
    }
    title = "Do proposers find the front of the 64 stacks of six attention or MLP layers?"
    print(_results.write("search-ground-truth", title, command, settings, rows, args.json))


def scored(store: str, space: Space, protocol) -> tuple[dict[Architecture, tuple[float, float]], dict[Architecture, float]]:
    """The losses of every stack, and the processor seconds of its trials."""
    from archlab.mad.plan import make_plan, score_plan
    from archlab.mad.store import TrialStore

    stacks = [one.architecture for one in space.members]
    with TrialStore(store, create=False) as opened:
        scores = score_plan(opened, make_plan(protocol, stacks), {})
        seconds: Counter[Architecture] = Counter()
        for record in scores.records:
            if record.result is not None:
                seconds[record.job.architecture] += record.result.cpu_seconds
    lacking = [one.label for one in scores.architectures if not one.complete]
    if lacking:
        sys.exit(f"{len(lacking)} of {len(stacks)} stacks have no score yet, the first is {lacking[0]}: see --help")
    state = {one: float(one.state_size(length=space.length, dim=space.dim) or 0) for one in stacks}
    return {one.architecture: (-(one.score or 0.0), state[one.architecture]) for one in scores.architectures}, dict(seconds)


def replay(name: str, space: Space, table: Table, seed: int, batch: int) -> list[Architecture]:
    """The stacks that a proposer evaluates, in order."""
    done: list[Evaluated] = []

    def proposed(before: list[Evaluated]):
        return make_proposer(name, space, seed, lambda one: (None, table[one][1])).propose(before, batch)

    while len(done) < BUDGETS[-1]:
        proposals = proposed(done)
        assert proposals == proposed(list(done)), "another answer after an interruption"
        done += [Evaluated(one, table[one.architecture]) for one in proposals]
    found = [one.proposal.architecture for one in done]
    assert len(set(found)) == len(found), "a stack was proposed twice"
    return found


def true_front(table: Table) -> set[Architecture]:
    """The stacks that none beats."""
    stacks = list(table)
    return {stacks[index] for index in front(np.array([table[one] for one in stacks]))}


def winner(table: Table) -> Architecture:
    """The stack with the best score."""
    return min(table, key=lambda one: table[one])


def volume(points: list[tuple[float, float]], table: Table) -> float:
    """The hypervolume of points over that of the true front."""
    losses = np.array([*table.values()])
    corner = losses.max(0) + 1e-9
    return hypervolume(np.array(points), corner.tolist()) / hypervolume(losses, corner.tolist())


def within_a_point(points: list[tuple[float, float]], best: list[tuple[float, float]]) -> bool:
    """Whether each point of the front has one beside it with no larger state and a score at most a point lower."""
    return all(any(state <= most and loss <= least + POINT for loss, state in points) for least, most in best)


def interval(values: np.ndarray) -> tuple[float, float]:
    """The central 95 % of bootstrap means."""
    drawn = np.random.default_rng(0).choice(values, size=(2000, len(values))).mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def by_attention(table: Table) -> str:
    """For each number of attention layers: the best stack's score and rank among all, and the mean."""
    order = sorted(table, key=lambda one: table[one])
    parts = []
    for number in range(7):
        own = [one for one in order if sum(config.is_attention for config in one.layers) == number]
        mean = 100 * float(np.mean([-table[one][0] for one in own]))
        parts.append(f"{number}: {-100 * table[own[0]][0]:.1f} % {own[0]}, mean {mean:.1f} %, rank {order.index(own[0]) + 1}")
    return "; ".join(parts)


def _results_of_table(table: Table, seconds: Mapping[Architecture, float]) -> None:
    """Print the best stacks."""
    order = sorted(table, key=lambda one: table[one])
    rows = [
        {"rank": n, "stack": str(one), "score": round(-100 * table[one][0], 1), "CPU s": round(seconds[one])}
        for n, one in enumerate(order[:12], start=1)
    ]
    print(_results.table(rows))


if __name__ == "__main__":
    main()
