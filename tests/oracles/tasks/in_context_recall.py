"""In-context recall, plain and noisy, pair by pair."""

import numpy as np

from archlab.tasks import IGNORE, setting
from archlab.tasks.in_context_recall import InContextRecall


def in_context_recall(task: InContextRecall, rng: np.random.Generator, training: bool) -> tuple[list[int], list[int]]:
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
        in_use = rng.choice(keys, size=task.keys_per_sequence, replace=False) if task.keys_per_sequence else keys
        never_noise = rng.integers(task.length // 2)
        for slot in range(task.length // 2 - 1):
            if slot != never_noise and rng.random() < frac_noise:
                tokens += [int(rng.choice(noise)), int(rng.choice(noise))]
                answers += [False, False]
                continue
            key = int(rng.choice(in_use))
            seen = key in value_of
            if not seen:
                value_of[key] = int(rng.choice(values))
            tokens += [key, value_of[key]]
            answers += [False, seen and task.multi_query]
    if not task.multi_query:
        tokens.append(task.vocab_size - 1)
        answers.append(False)
    probe = int(rng.choice(list(value_of)))
    return shifted([*tokens, probe, value_of[probe]], [*answers, False, True], training)


def shifted(tokens: list[int], answers: list[bool], training: bool) -> tuple[list[int], list[int]]:
    """Inputs and targets of a sequence in which the next token is asked: everywhere in training, else where it is an answer."""
    if training:
        return tokens[:-1], tokens[1:]
    return tokens[:-1], [token if asked else IGNORE for token, asked in zip(tokens[1:], answers[1:], strict=True)]


GENERATORS = {"in-context-recall": in_context_recall, "noisy-in-context-recall": in_context_recall}
SETTINGS = [
    setting("in-context-recall", multi_query=False, vocab_size=21, length=32),
    setting("noisy-in-context-recall", multi_query=False, frac_noise=0.8, length=8),
    setting("noisy-in-context-recall", frac_noise=0.0, noise_vocab_size=0),
]
TINY = [
    setting("in-context-recall", vocab_size=4, length=8),
    setting("in-context-recall", vocab_size=7, length=6, multi_query=False),
    setting("in-context-recall", vocab_size=6, length=8, keys_per_sequence=2),
    setting("noisy-in-context-recall", vocab_size=5, noise_vocab_size=1, frac_noise=0.6, length=8),
    setting("noisy-in-context-recall", vocab_size=6, noise_vocab_size=1, frac_noise=0.6, length=6, multi_query=False),
]
