"""Depo, step by step along a dictionary of edges."""

import numpy as np

from archlab.tasks import IGNORE, setting
from archlab.tasks.depo import Depo


def depo(task: Depo, rng: np.random.Generator, training: bool) -> tuple[list[int], list[int]]:
    names = task.vocab_size - task.max_hops
    nodes = [int(node) for node in rng.choice(names, size=task.num_nodes, replace=False)]
    after = dict(zip(nodes, [*nodes[1:], nodes[0]], strict=True))
    tokens = [token for index in rng.permutation(len(nodes)) for token in (nodes[index], after[nodes[index]])]
    targets = [IGNORE] * len(tokens)
    for _ in range((task.length - 2 * task.num_nodes) // 3):
        hops, asked = int(rng.integers(1, task.max_hops + 1)), nodes[int(rng.integers(len(nodes)))]
        answer = asked
        for _ in range(hops):
            answer = after[answer]
        tokens += [names + hops - 1, asked, answer]
        targets += [IGNORE, answer, IGNORE]
    return tokens[:-1], targets[:-1]


GENERATORS = {"depo": depo}
SETTINGS = [setting("depo", vocab_size=3, num_nodes=2, max_hops=1, length=7)]
TINY = [setting("depo", vocab_size=5, num_nodes=2, max_hops=2, length=7)]
