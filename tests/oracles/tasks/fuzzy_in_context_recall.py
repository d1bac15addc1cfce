"""Fuzzy in-context recall, motif by motif."""

from itertools import permutations

import numpy as np

from archlab.tasks import setting
from archlab.tasks.fuzzy_in_context_recall import FuzzyInContextRecall
from tests.oracles.tasks.in_context_recall import shifted


def fuzzy_in_context_recall(task: FuzzyInContextRecall, rng: np.random.Generator, training: bool) -> tuple[list[int], list[int]]:
    padding = task.vocab_size - (1 if task.multi_query else 2)
    num_keys = padding // 2
    key_sizes = list(range(1, task.key_motif_size + 1)) if training else [task.key_motif_size]
    value_sizes = list(range(1, task.value_motif_size + 1))
    motifs = {("key", size): list(permutations(range(num_keys), size)) for size in key_sizes}
    motifs |= {("value", size): list(permutations(range(num_keys, padding), size)) for size in value_sizes}

    def draw(role: str, sizes: list[int]) -> list[int]:
        known = motifs[role, int(rng.choice(sizes))]
        return list(known[rng.integers(len(known))])

    in_use = [draw("key", key_sizes) for _ in range(task.keys_per_sequence)]

    def draw_key() -> list[int]:
        return in_use[rng.integers(len(in_use))] if in_use else draw("key", key_sizes)

    probe, probe_value = draw_key(), draw("value", value_sizes)
    probe_size = len(probe) + len(probe_value)
    limit = task.length - probe_size - task.key_motif_size - task.value_motif_size
    position = rng.integers(task.length - 2 * probe_size)
    value_of: dict[tuple[int, ...], list[int]] = {}
    tokens: list[int] = []
    answers: list[bool] = []

    def add(key: list[int], value: list[int]) -> None:
        seen = tuple(key) in value_of
        known = value_of.setdefault(tuple(key), value)
        tokens.extend([*key, *known])
        answers.extend([False] * len(key) + [seen and task.multi_query] * len(known))

    while len(tokens) < limit:
        key, value = draw_key(), draw("value", value_sizes)
        if key == probe:
            value = probe_value
        known = value_of.get(tuple(key), value)
        is_last = len(tokens) + len(key) + len(known) >= limit
        if tuple(probe) not in value_of and (len(tokens) >= position or is_last):
            add(probe, probe_value)
        if len(tokens) < limit:
            add(key, value)
    if not task.multi_query:
        tokens.append(task.vocab_size - 1)
        answers.append(False)
    tokens += [*probe, *probe_value]
    answers += [False] * len(probe) + [True] * len(probe_value)
    num_padding = task.length + 1 - len(tokens)
    return shifted([padding] * num_padding + tokens, [False] * num_padding + answers, training)


GENERATORS = {"fuzzy-in-context-recall": fuzzy_in_context_recall}
SETTINGS = [
    setting("fuzzy-in-context-recall", multi_query=False, length=64),
    setting("fuzzy-in-context-recall", vocab_size=5, key_motif_size=1, value_motif_size=2, length=7),
]
TINY = [
    setting("fuzzy-in-context-recall", vocab_size=6, length=9, key_motif_size=2, value_motif_size=1, keys_per_sequence=2),
    setting("fuzzy-in-context-recall", vocab_size=5, length=7, key_motif_size=2, value_motif_size=1),
    setting("fuzzy-in-context-recall", vocab_size=5, length=9, key_motif_size=1, value_motif_size=2),
    setting("fuzzy-in-context-recall", vocab_size=6, length=11, key_motif_size=2, value_motif_size=2, multi_query=False),
    setting("fuzzy-in-context-recall", vocab_size=5, length=15, key_motif_size=2, value_motif_size=2),
]
