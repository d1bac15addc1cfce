"""Stored trainings of language models whose losses follow a known law."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tests.scaling.fits.laws import Law

from archlab.scaling.recipe import LMRecipe
from archlab.scaling.result import CurvePoint, LMResult
from archlab.scaling.store import StudyStore
from archlab.scaling.training_plan import LMRun
from archlab.scaling.trial import LMTrial

BUDGETS = (1e17, 2e17, 4e17, 8e17)


def trial(label: str, budget: float, size: float, tokens: float, seed: int = 0, **values) -> LMTrial:
    known = {
        "spec": f"mh-attention swiglu(inner={ord(label[0])})",
        "dim": int(size**0.5),
        "flops": int(6 * size * tokens),
        "params": int(size),
        "params_non_embedding": int(0.9 * size),
        "state": int(10 * size**0.5),
        "steps": 1000,
        "batch_size": 32,
        "length": 128,
        "learning_rate": 1e-3,
        "corpus": "stdlib",
        "tokenizer": "ascii",
        "corpus_hash": "0" * 64,
        "vocab_size": 99,
    }
    run = LMRun(label=label, budget=budget, tokens=int(tokens), seed=seed, **known | values)
    return LMTrial(run, LMRecipe())


def result(loss: float | None, train_losses: Sequence[float] = (5.0, 4.0)) -> LMResult:
    """A training of 1000 steps; its curve has the training losses, evenly spaced."""
    steps = np.linspace(0, 1000, len(train_losses) + 1)[1:].astype(int).tolist()
    return LMResult(
        status="diverged" if loss is None else "finished",
        reason="the loss is not a number at step 7" if loss is None else "",
        steps=1000,
        loss=loss,
        curve=tuple(CurvePoint(*at, loss if at[0] == 1000 else None) for at in zip(steps, map(float, train_losses), strict=True)),
        epochs=0.5,
        tokens_per_second=1e4,
        utilisation=0.4,
        gemm=1e11,
        peak_bytes=1 << 30,
        seconds=100.0,
        processes=1,
    )


def ladder(label: str, law: Law, budgets=BUDGETS, sizes=7, reach=4.0, seeds=1, noise=0.0) -> list[tuple[LMTrial, LMResult]]:
    """An IsoFLOP study around the law's optima; the noise, in nats, is that of the seed and size, whatever the law."""
    rng = np.random.default_rng(0)
    found = []
    for budget in budgets:
        best = law.size_factor * (budget / 6) ** law.size_exponent
        for size in best * np.geomspace(1 / reach, reach, sizes):
            for seed in range(seeds):
                tokens, off = budget / 6 / size, noise * rng.normal()
                curve = law.loss(size, tokens * (np.arange(20) + 0.5) / 20) + off
                found.append((trial(label, budget, size, tokens, seed), result(float(law.loss(size, tokens) + off), curve)))
    return found


def stripes(best: float) -> dict[str, tuple[str, float]]:
    """Specs of Hyena with a share of attention, and the floors of their losses: a parabola in the share."""
    hyena, attention = "hyena swiglu", "mh-attention swiglu"
    specs = {0.0: hyena, 0.25: f"{hyena} {hyena} {hyena} {attention}", 0.5: f"{hyena} {attention}", 1.0: attention}
    return {f"{share:g} of it": (spec, 1.7 + 0.2 * (share - best) ** 2) for share, spec in specs.items()}


def sweep_of(specs: dict[str, tuple[str, float]], **values) -> list[tuple[LMTrial, LMResult]]:
    """A ladder of each spec, by its label, whose law has that floor."""
    return [
        (replace(one, run=replace(one.run, spec=spec)), outcome)
        for label, (spec, floor) in specs.items()
        for one, outcome in ladder(label, Law(E=floor), **values)
    ]


def fill(path: Path, trainings: list[tuple[LMTrial, LMResult]]) -> Path:
    with StudyStore(path) as store:
        for one, outcome in trainings:
            store.finish(one, outcome, {})
    return path


SMALL = Law(E=1.2, A=96.6, B=410.0)
"""A law whose optima lie where the quick ladder looks for them."""


def made_up_training(one: LMTrial, on_progress, thresholds) -> LMResult:
    """Takes no time; the best learning rate is 2e-2."""
    return result(float(SMALL.loss(one.run.params, one.run.tokens)) + 0.01 * math.log2(one.run.learning_rate / 2e-2) ** 2)
