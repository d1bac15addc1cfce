"""The six tasks, one instance at a time, in the simplest code.

Written apart from the vectorised generators, which benchmarks time against these and tests compare with these.
"""

from collections.abc import Callable
from functools import cache
from itertools import permutations

import numpy as np

from archlab.tasks import IGNORE, Task

Instance = tuple[list[int], list[int]]
Generator = Callable[[Task, np.random.Generator, bool], Instance]


def in_context_recall(task: Task, rng: np.random.Generator, training: bool) -> Instance:
    knobs = task.knobs()
    noise_vocab_size, frac_noise = knobs.get("noise_vocab_size", 0), knobs.get("frac_noise", 0.0)
    special = noise_vocab_size if task.multi_query else noise_vocab_size + 1
    keys = list(range((task.vocab_size - special) // 2))
    values = list(range(len(keys), task.vocab_size - special))
    noise = list(range(task.vocab_size - special, task.vocab_size - special + noise_vocab_size))

    tokens: list[int] = []
    answers: list[bool] = []
    value_of: dict[int, int] = {}
    while not value_of:
        tokens, answers = [], []
        never_noise = rng.integers(task.length // 2)
        for slot in range(task.length // 2 - 1):
            if slot != never_noise and rng.random() < frac_noise:
                tokens += [int(rng.choice(noise)), int(rng.choice(noise))]
                answers += [False, False]
                continue
            key = int(rng.choice(keys))
            seen = key in value_of
            if not seen:
                value_of[key] = int(rng.choice(values))
            tokens += [key, value_of[key]]
            answers += [False, seen and task.multi_query]
    if not task.multi_query:
        tokens.append(task.vocab_size - 1)
        answers.append(False)
    probe = int(rng.choice(list(value_of)))
    return _shifted([*tokens, probe, value_of[probe]], [*answers, False, True], training)


def fuzzy_in_context_recall(task: Task, rng: np.random.Generator, training: bool) -> Instance:
    padding = task.vocab_size - (1 if task.multi_query else 2)
    num_keys = padding // 2
    key_sizes = list(range(1, task.key_motif_size + 1)) if training else [task.key_motif_size]
    value_sizes = list(range(1, task.value_motif_size + 1))
    motifs = {("key", size): list(permutations(range(num_keys), size)) for size in key_sizes}
    motifs |= {("value", size): list(permutations(range(num_keys, padding), size)) for size in value_sizes}

    def draw(role: str, sizes: list[int]) -> list[int]:
        known = motifs[role, int(rng.choice(sizes))]
        return list(known[rng.integers(len(known))])

    probe, probe_value = draw("key", key_sizes), draw("value", value_sizes)
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
        key, value = draw("key", key_sizes), draw("value", value_sizes)
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
    return _shifted([padding] * num_padding + tokens, [False] * num_padding + answers, training)


def selective_copying(task: Task, rng: np.random.Generator, training: bool) -> Instance:
    blank, copied = task.vocab_size - 2, task.num_tokens_to_copy
    data = [int(rng.choice(blank)) for _ in range(copied)]
    blanks_before = [0] * copied
    for _ in range(task.length - 2 * copied - 1):
        blanks_before[int(rng.integers(copied))] += 1
    tokens: list[int] = []
    for token, blanks in zip(data, blanks_before, strict=True):
        tokens += [blank] * blanks + [token]
    return _copied(task, tokens, data)


def selective_copying_by_numpy(task: Task, rng: np.random.Generator, training: bool) -> Instance:
    blank, copied = task.vocab_size - 2, task.num_tokens_to_copy
    data = rng.choice(blank, size=copied)
    places = rng.integers(0, copied, size=task.length - 2 * copied - 1)
    return _copied(task, np.insert(data, places, blank).tolist(), data.tolist())


def _copied(task: Task, context: list[int], data: list[int]) -> Instance:
    blank, copy = task.vocab_size - 2, task.vocab_size - 1
    return [*context, copy] + [blank] * len(data), [IGNORE] * (task.length - len(data)) + data


def compression(task: Task, rng: np.random.Generator, training: bool) -> Instance:
    tokens = [int(rng.choice(task.vocab_size - 1)) for _ in range(task.length - 1)] + [task.vocab_size - 1]
    return tokens, list(tokens)


def compression_by_numpy(task: Task, rng: np.random.Generator, training: bool) -> Instance:
    tokens = [*rng.choice(task.vocab_size - 1, size=task.length - 1).tolist(), task.vocab_size - 1]
    return tokens, list(tokens)


def memorization(task: Task, rng: np.random.Generator, training: bool) -> Instance:
    value_of = _map(task)
    tokens: list[int] = []
    targets: list[int] = []
    for _ in range(task.length // 2):
        key = int(rng.choice(len(value_of)))
        tokens += [key, task.vocab_size - 1]
        targets += [IGNORE, value_of[key]]
    return tokens, targets


@cache
def _map(task: Task) -> dict[int, int]:
    num_keys = (task.vocab_size - 1) // 2
    values = np.random.default_rng(task.map_seed).permutation(np.arange(num_keys, task.vocab_size - 1))
    return {key: int(values[key]) for key in range(num_keys)}


def _shifted(tokens: list[int], answers: list[bool], training: bool) -> Instance:
    if training:
        return tokens[:-1], tokens[1:]
    return tokens[:-1], [token if asked else IGNORE for token, asked in zip(tokens[1:], answers[1:], strict=True)]


GENERATORS: dict[str, Generator] = {
    "in-context-recall": in_context_recall,
    "noisy-in-context-recall": in_context_recall,
    "fuzzy-in-context-recall": fuzzy_in_context_recall,
    "selective-copying": selective_copying,
    "compression": compression,
    "memorization": memorization,
}


NUMPY_GENERATORS: dict[str, Generator] = {
    "selective-copying": selective_copying_by_numpy,
    "compression": compression_by_numpy,
}
"""Where one call draws all random numbers of an instance as easily."""


def generate(task: Task, rng: np.random.Generator, n: int, training: bool) -> tuple[np.ndarray, np.ndarray]:
    """``n`` instances, one after the other: inputs and targets, each ``(n, input_length)``."""
    drawn = [GENERATORS[task.name](task, rng, training) for _ in range(n)]
    return np.array([inputs for inputs, _ in drawn]), np.array([targets for _, targets in drawn])
