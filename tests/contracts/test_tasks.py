"""Every task keeps the contract, in its base setting and in variants that change what it draws."""

from archlab.tasks import registry, setting
from archlab.testing.tasks import TaskContract

VARIANTS = [
    *(setting(name) for name in registry()),
    setting("in-context-recall", multi_query=False, vocab_size=21, length=32),
    setting("noisy-in-context-recall", multi_query=False, frac_noise=0.8, length=8),
    setting("noisy-in-context-recall", frac_noise=0.0, noise_vocab_size=0),
    setting("fuzzy-in-context-recall", multi_query=False, length=64),
    setting("fuzzy-in-context-recall", vocab_size=5, key_motif_size=1, value_motif_size=2, length=7),
    setting("selective-copying", num_tokens_to_copy=1, length=4, vocab_size=4),
    setting("compression", vocab_size=3, length=2),
    setting("memorization", vocab_size=6, length=2),
]


for _task in VARIANTS:
    globals()[f"Test[{_task}]"] = type(f"Test[{_task}]", (TaskContract,), {"task": _task, "__module__": __name__})
