"""Spaces of tests, and trainings whose scores are a function of the architecture."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.synthetic_records import result

from archlab.architectures import Architecture
from archlab.mad.protocol import load_protocol
from archlab.mad.trial import Trial, TrialResult
from archlab.searching.space import Space, load_space

SMOKE = load_protocol("smoke")
VARIED = """
summary: knobs, branches, depth, a choice for the whole stack, and a limit
spec: "{2|3}*[{block}] {last:2}"
rules:
  block: ["{mixer} {channel}"]
  mixer: [mh-attention, "mamba(d_state={4|8})", "parallel({mixers}, {mixers})"]
  mixers: [mh-attention, mh-linear-attention]
  last: [mlp, swiglu]
once:
  channel: [mlp, swiglu]
at_most: {params: 60000}
"""


def space(text: str, folder: Path, protocol: Any = SMOKE) -> Space:
    """The space of a file with this text."""
    (folder / "own.yaml").write_text(text)
    return load_space(str(folder / "own.yaml"), protocol)


def truth(architecture: Architecture) -> float:
    """A score that attention early and an MLP at the end make high."""
    high = sum(config.is_attention / (index + 1) for index, config in enumerate(architecture.layers))
    return 0.2 + 0.2 * min(high, 2.0) + 0.1 * (architecture.layers[-1].kind == "channel")


def made_up(trials: list[Trial], on_progress: object, thresholds: object) -> Iterator[tuple[int, TrialResult]]:
    """Stand in for training: eight test sequences of a hundred answers, and some noise by seed."""
    for index, trial in enumerate(trials):
        right = round(100 * truth(trial.architecture))
        yield index, result(trial, [right + (trial.seed * 7 + n) % 3 - 1 for n in range(8)], answers=100, curve=[(8, 0.5)])
