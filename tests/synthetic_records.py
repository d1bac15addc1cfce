"""Records as a store would hold them, made up: nothing is trained."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from archlab.architectures import Architecture, architecture
from archlab.mad.recipe import Recipe
from archlab.mad.scores import Scores
from archlab.mad.scoring import score as score_records
from archlab.mad.store import Record
from archlab.mad.trial import CurvePoint, Metrics, Trial, TrialResult
from archlab.store import ledger
from archlab.tasks import Task

RECIPE = Recipe(steps=1000, batch_size=32, evaluations=10, num_evaluation=200, stop_accuracy=0.99)
PROVENANCE = {
    "host": "lab",
    "cpu": "a processor",
    "gpu": None,
    "platform": "Linux",
    "python": "3.11.2",
    "torch": "2.13.0",
    "numpy": "2.1.0",
    "archlab": "0.1.0",
    "commit": "0123456789abcdef",
    "started": "2026-01-01T00:00:00+00:00",
    "finished": "2026-01-01T00:01:00+00:00",
    "wall_seconds": 60.0,
}
Truth = Callable[[Trial], float]


def plan(
    specs: Iterable[str | Architecture],
    settings: Iterable[Task],
    *,
    seeds: Iterable[int] = (0, 1, 2),
    learning_rates: Iterable[float] = (1e-3,),
    recipe: Recipe = RECIPE,
) -> list[Trial]:
    """Every combination as a trial at width 128."""
    return [
        Trial(
            architecture=architecture(spec) if isinstance(spec, str) else spec,
            setting=setting,
            recipe=recipe,
            dim=128,
            learning_rate=learning_rate,
            weight_decay=0.0,
            seed=seed,
        )
        for seed in seeds
        for setting in settings
        for spec in specs
        for learning_rate in learning_rates
    ]


def result(
    trial: Trial,
    numerators: Sequence[float],
    *,
    answers: int = 4,
    selected: float | None = None,
    loss: float = 0.5,
    curve: Sequence[tuple[int, float]] = (),
    solved_step: int | None = None,
    status: str = "finished",
) -> TrialResult:
    """A result with these right answers by test sequence, each of ``answers`` answers."""
    right = np.asarray(numerators, dtype=np.float32)
    score = float(right.sum() / (answers * right.size))
    test = Metrics(score, score, loss)
    held_out = score if selected is None else selected
    return TrialResult(
        status=status,  # type: ignore[arg-type]
        steps=curve[-1][0] if curve else trial.num_steps,
        solved_step=solved_step,
        selected_step=curve[-1][0] if curve else trial.num_steps,
        selected=Metrics(held_out, held_out, loss),
        test=test,
        test_last=test,
        curve=tuple(CurvePoint(step, loss, Metrics(value, value, loss)) for step, value in curve),
        numerators=right,
        denominators=np.full(right.size, answers, dtype=np.float32),
        examples_per_second=1000.0,
        wall_seconds=60.0,
        cpu_seconds=59.0,
    )


def record(trial: Trial, outcome: TrialResult | None, *, status: str | None = None, error: str | None = None) -> Record:
    """The record of an ended trial, or of one that failed or still runs."""
    settled = status or (outcome.status if outcome else "running")
    origin = {"provenance": dict(PROVENANCE), "finished": str(PROVENANCE["finished"])}
    return ledger.Record(key=trial.key, job=trial, status=settled, result=outcome, error=error, **origin)  # type: ignore[arg-type]


def simulate(
    trials: Iterable[Trial], truth: Truth, *, num_units: int = 200, spread: float = 0.02, seed: int = 0
) -> dict[str, Record]:
    """Records of trials whose scores scatter around ``truth`` by seed, with curves that rise to the score."""
    records = {}
    for index, trial in enumerate(trials):
        rng = np.random.default_rng([seed, index])
        chance = trial.setting.chance
        rate = float(np.clip(truth(trial) + rng.normal(0.0, spread), chance, 1.0))
        numerators = rng.binomial(4, rate, size=num_units)
        evaluations = trial.recipe.evaluations
        steps = [trial.num_steps * (i + 1) // evaluations for i in range(evaluations)]
        middle = rng.uniform(0.25, 0.6) * trial.num_steps
        curve = [(s, chance + (rate - chance) / (1 + np.exp(-12 * (s - middle) / trial.num_steps))) for s in steps]
        solved = next((s for s, value in curve if value >= trial.recipe.stop_accuracy), None)
        curve = [point for point in curve if solved is None or point[0] <= solved]
        records[trial.key] = record(trial, result(trial, numerators.tolist(), curve=curve, solved_step=solved, loss=1.0 - rate))
    return records


def score(trials: Iterable[Trial], records: Mapping[str, Record], **options: Any) -> Scores:
    """Score trials by the records with their keys."""
    return score_records([(trial, records.get(trial.key)) for trial in trials], **options)
