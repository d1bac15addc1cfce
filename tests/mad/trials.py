"""Trials that take a fraction of a second."""

from archlab.architectures import architecture
from archlab.mad.recipe import Recipe
from archlab.mad.train import train_together
from archlab.mad.trial import Trial, TrialResult
from archlab.tasks import setting

COPYING = setting("selective-copying", length=12, num_tokens_to_copy=2, num_train_examples=64)
RECALL = setting("in-context-recall", length=8, num_train_examples=50)
MEMORY = setting("memorization", vocab_size=17, length=8, num_train_examples=256)


def trial(spec="mh-attention(heads=2) swiglu", task=COPYING, *, seed=0, learning_rate=5e-3, weight_decay=0.1, **recipe) -> Trial:
    """A trial at width 16: six steps of sixteen sequences unless ``recipe`` says otherwise."""
    small = {"steps": 6, "batch_size": 16, "evaluations": 3, "num_evaluation": 40, "embedding_std": 1.0}
    return Trial(
        architecture=architecture(spec),
        setting=task,
        recipe=Recipe(**small | recipe),
        dim=16,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        seed=seed,
    )


def train(trial: Trial, on_progress=lambda _: None, thresholds=None) -> TrialResult:
    """Train and evaluate one trial alone."""
    ((_, result),) = train_together([trial], lambda _, progress: on_progress(progress), [thresholds or {}])
    return result
