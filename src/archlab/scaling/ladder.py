"""Ladders: the budgets and sizes of an IsoFLOP study, and the default rules of size, batch and learning rate.

A ladder is a YAML file, in the package or the user's own; its fields are those of :class:`Ladder`, and those that are left
out have their defaults::

    summary: one line
    budgets: [2e11, 4e11, 8e11]
    sizes: 5
    data: stdlib
    tokenizer: ascii

The rules join measurements on bytes of text at the small end with published rules at the large one; every one can be
overridden. None of them is the paper's (arXiv 2403.17844), which does not give its own.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

from archlab.errors import ArchlabError, in_one_line, unknown
from archlab.fields import (
    Count,
    Positive,
    Seeds,
    above,
    at_most,
    between,
    check_fields,
    naming,
    read_fields,
    read_yaml,
)
from archlab.files import is_yaml, read_text
from archlab.scaling.flops import Convention
from archlab.scaling.training_plan import TOLERANCE, LMRun

CENTRE_PARAMS, CENTRE_FLOPS, CENTRE_EXPONENT = 1.3e4, 2e11, 0.57
"""A Transformer++ of about 13k parameters was best at 2e11 FLOPs (standard library as ascii, length 128); the exponent leads to
190M at 4e18, about 20 tokens a parameter (arXiv 2203.15556)."""
REFERENCE_PARAMS = 108e6
REFERENCE_LEARNING_RATE = 4.7e-3
REFERENCE_BATCH_TOKENS = 2048 * 160
LearningRateRule = Literal["measured", "olmo-core"]
HIGHEST_LEARNING_RATE = 2e-2
"""The best of 5e-3, 1e-2, 2e-2 and 4e-2 at 6k and 15k parameters; the rule alone would give five times as much."""
FEWEST_BATCH_TOKENS = 2048
"""A step of fewer tokens takes as long on a CPU."""

ObjectionName = Literal["corpus", "tokens-per-param", "gpus", "sizes", "embeddings", "memory"]
"""Names of :mod:`archlab.scaling.objections`."""


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """Budgets, sizes and rules, the same for every architecture; an ArchlabError names the field that is not allowed."""

    name: str
    """Name of the file unless that gives one."""
    summary: str = ""
    budgets: tuple[Positive, ...] = ()
    """Training FLOPs of each IsoFLOP group."""
    tokens_per_param: tuple[Positive, ...] = ()
    """Train each size of ``params`` on so many tokens a parameter, in place of budgets."""
    horizon_decay: Annotated[float, between(0.001, 0.9)] | None = None
    """Train all ``tokens_per_param`` of a size from one trunk at a constant rate, with a decay over this fraction of the steps
    of each; None for training runs of their own, by the schedule of the recipe."""
    sizes: Count = 5
    """Number of sizes in each group."""
    spread: Annotated[float, above(1)] = 2.0
    """Ratio of parameters of a size and the next smaller one; the sizes lie around :func:`central_params`."""
    least_params: Positive | None = None
    """Leave out the sizes of the rule with fewer parameters."""
    params: tuple[Positive, ...] = ()
    """Sizes of every group, in parameters, in place of the rule."""
    length: Count = 128
    """Tokens of a sequence."""
    data: str = "stdlib"
    """Source of the corpus: :func:`archlab.corpora.prepare`."""
    tokenizer: str | None = None
    vocab_size: Count | None = None
    """Plan for a vocabulary of this size, without the corpus."""
    corpus_tokens: Positive | None = None
    """Tokens for training that the corpus has, to plan without it."""
    vocab_multiple: Count = 1
    """The embedding gets more rows than there are tokens, up to a multiple of this, as matrix units like it (128)."""
    tied: bool = False
    """One table embeds and unembeds tokens."""
    repeat: bool = False
    """Allow training runs that need more tokens than the corpus has."""
    allow: tuple[ObjectionName, ...] = ()
    """Objections that are accepted: :mod:`archlab.scaling.objections`."""
    min_steps: Count = 150
    """Fewest steps of a training run; batches are made smaller to reach it."""
    batch_size: Count | None = None
    """Sequences of a step, in place of the rule."""
    learning_rate: Positive | None = None
    """Peak learning rate, in place of the rule."""
    learning_rate_rule: LearningRateRule = "measured"
    """``olmo-core`` is half of OLMo's rate, for parameters without embeddings: :func:`default_learning_rate`."""
    learning_rate_factors: Mapping[str, Positive] = field(default_factory=dict)
    """Factors on the learning rate by label of an architecture, as :func:`archlab.scaling.tune` finds them; empty for none."""
    seeds: Seeds = (0,)
    convention: Convention = "exact"
    aspect: Positive = 128.0
    """Width for every two layers (a sequence mixer and a channel mixer); a stack is at least as deep as its spec."""
    head_dim: Count = 64
    """Width of a head: with ``width_multiple`` exactly this or half of it where the width is a multiple of that, else as nearly
    as heads of even width divide the width."""
    width_multiple: Count | None = None
    """Every width is a multiple of this, as in 64; by default of 4, and of a sixteenth of the power of two below it."""
    architectures: Mapping[str, str] = field(default_factory=dict)
    """Specs by label, for a plan without specs of its own."""
    peak_flops: Positive | None = None
    """FLOP/s of an accelerator, for a study that is planned on paper."""
    utilisation: Annotated[float, above(0), at_most(1)] = 0.4
    """Fraction of it that training reaches."""
    utilisations: Mapping[str, Annotated[float, above(0), at_most(1)]] = field(default_factory=dict)
    """The same by label of an architecture, where it is known: :func:`measured_utilisations`."""
    memory: Positive | None = None
    """Bytes of an accelerator, for a study that is planned on paper."""
    gpus: Count = 8
    """Number of accelerators, for a study that is planned on paper."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.budgets and not self.tokens_per_param:
            raise ArchlabError("budgets is missing: give training FLOPs of each group, or tokens_per_param and params")
        if self.tokens_per_param and not self.params:
            raise ArchlabError("params is missing: tokens_per_param trains the sizes that it gives, as in params=1e8,3e8")
        if self.horizon_decay is not None and not self.tokens_per_param:
            raise ArchlabError("tokens_per_param is missing: horizon_decay branches one training at several of them")
        for low, high in pairwise(sorted(self.budgets)):
            if high < low * (1 + TOLERANCE):
                raise ArchlabError(f"budgets={low:g} and {high:g} are the same within {TOLERANCE:.0%}: give one of them")

    def flops_per_second(self, label: str) -> float:
        """Return the FLOP/s that training an architecture reaches on an accelerator, for a study that is planned on paper."""
        assert self.peak_flops is not None, "asked for studies on paper only"
        return self.peak_flops * self.utilisations.get(label, self.utilisation)

    def rule(self, run: LMRun) -> float:
        """Return the peak learning rate of a training run before it is tuned."""
        return self.learning_rate or default_learning_rate(run.params, run.params_non_embedding, self.learning_rate_rule)

    def with_values(self, **values: Any) -> "Ladder":
        """Return the ladder with other values; None leaves a field as it is, an ArchlabError names one that is wrong."""
        known = [f.name for f in fields(self) if f.name not in ("name", "summary", "architectures")]
        for name in values:
            if name not in known:
                raise unknown("field of a ladder:", name, known)
        given = {name: value for name, value in values.items() if value is not None}
        if "data" in given or "tokenizer" in given:  # the ladder's own tokenizer and vocabulary fit its own data only
            given = {"tokenizer": None, "vocab_size": None} | given
        return replace(self, **given)

    def to_dict(self) -> dict[str, Any]:
        """Return every field that is not at its default, for a plan's provenance."""
        given = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) != f.default}
        kept = {name: value for name, value in given.items() if name not in ("summary", "architectures") and value != {}}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}


def central_params(flops: float) -> float:
    """Return the parameters around which the sizes of a budget lie."""
    return CENTRE_PARAMS * math.exp(CENTRE_EXPONENT * math.log(flops / CENTRE_FLOPS))


def default_learning_rate(params: float, non_embedding: float, rule: LearningRateRule = "measured") -> float:
    """Return the peak learning rate of a size, to two digits.

    - ``measured``: OLMo's ``4.7e-3 (N / 108M)^(-1/3)`` of all parameters, at most 2e-2, which was measured on a CPU.
    - ``olmo-core``: half of that, of parameters without embeddings, as OLMo-core has it at commit 03a3e2e, after
      arXiv 2406.19146; its ``warmup`` and ``beta2`` are those of ``LMRecipe(warmup="params", beta2="batch")``.
    """
    half, size = (0.5, non_embedding) if rule == "olmo-core" else (1.0, params)
    rate = min(HIGHEST_LEARNING_RATE, half * REFERENCE_LEARNING_RATE * (size / REFERENCE_PARAMS) ** (-1 / 3))
    return float(f"{rate:.2g}")


def default_batch_size(params: float, length: int) -> int:
    """Return the sequences of a batch: OLMo's ``2048 x 160 (N / 108M)^(2/3)`` tokens, at least 2048, to a power of 2."""
    tokens = max(FEWEST_BATCH_TOKENS, REFERENCE_BATCH_TOKENS * (params / REFERENCE_PARAMS) ** (2 / 3))
    return 1 << max(0, round(math.log2(tokens / length)))


def measured_utilisations(path: str, peak_flops: float | None) -> dict[str, float]:
    """Read the fraction of the ``peak_flops`` that architectures reach from what ``archlab bench --device cuda --json`` printed.

    By label, the median over protocols. An ArchlabError says that the file is another's, or that it measured no accelerator.
    """
    if peak_flops is None:
        raise ArchlabError("peak_flops is missing: give the FLOP/s of the accelerator to use measured speeds")
    speeds: dict[str, list[float]] = {}
    text = read_text(Path(path), "file of speeds")
    try:
        document = json.loads(text)
        for step in document["steps"]:
            speeds.setdefault(step["architecture"], []).append(step["flops_per_second"] / peak_flops)
        device = document["device"]
    except Exception as error:  # a file of somebody else may hold anything
        fix = "give what `archlab bench --device cuda --json` printed"
        raise ArchlabError(f"{path} cannot be read: {in_one_line(error)}: {fix}") from None
    if device != "cuda":
        raise ArchlabError(f"{path} measured a {device}: run `archlab bench --device cuda --json` on the accelerator")
    return {label: float(f"{median(some):.3g}") for label, some in speeds.items()}


def load_ladder(name: str) -> Ladder:
    """Load a ladder of the package by name, or the user's own by the path of its YAML file; refuses wrong fields."""
    known = {path.name.removesuffix(".yaml"): path for path in (resources.files("archlab.scaling") / "ladders").iterdir()}
    if name not in known and not is_yaml(name):
        raise unknown("ladder", name, known)
    text = known[name].read_text(encoding="utf-8") if name in known else read_text(Path(name), "ladder")
    with naming(f"ladder {name}"):
        values = read_yaml(text)
        return read_fields(Ladder, {"name": Path(name).stem, **values} if isinstance(values, dict) else values)
