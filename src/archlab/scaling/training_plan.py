"""Plans: the training runs of a study, as values and as a file to read and edit."""

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from archlab.architectures import Architecture, architecture
from archlab.errors import ArchlabError
from archlab.fields import Count, Natural, Positive, between, check_fields, naming, not_empty, read_fields, read_yaml, write_yaml
from archlab.files import check_place, read_text, write_whole
from archlab.scaling.flops import Convention, training_flops

if TYPE_CHECKING:
    import pandas as pd

TOLERANCE = 0.01
"""Largest relative distance between the FLOPs of a training run and its budget."""
LMBackbone: TypeAlias = Literal["language-model", "tied-language-model"]
"""The backbones that are language models."""
_COMPUTED = ("backbone", "dim", "steps", "batch_size", "length", "learning_rate", "seed", "corpus_hash", "vocab_size")
_HEAD = "# A plan of archlab: edit it, or delete runs; what contradicts itself is refused when it is read.\n"


def padded(vocab_size: int, multiple: int) -> int:
    """Return the rows of the embedding of so many tokens: the next multiple."""
    return -(-vocab_size // multiple) * multiple


@dataclass(frozen=True)
class Size:
    """One size of an architecture, as a language model over a vocabulary at a training length."""

    architecture: Architecture
    dim: int
    vocab_size: int
    length: int
    backbone: LMBackbone = "language-model"

    @property
    def shape(self) -> dict[str, Any]:
        """The arguments that count parameters and FLOPs, beside the layers."""
        return {name: getattr(self, name) for name in ("dim", "vocab_size", "length", "backbone")}

    @property
    def params(self) -> int:
        """Trainable scalars, embeddings included; a table that embeds and unembeds counts once."""
        return self.architecture.num_params(**self.shape)

    @property
    def params_non_embedding(self) -> int:
        """Trainable scalars without the embedding, the unembedding and its bias."""
        ends = [part for part in self.architecture.around(**self.shape) if part.name in ("embedding", "unembedding")]
        return self.params - sum(part.params for part in ends)

    @property
    def state(self) -> int:
        """Scalars carried from token to token at the training length; 0 if a layer does not tell."""
        return self.architecture.state_size(length=self.length, dim=self.dim) or 0


@dataclass(frozen=True, kw_only=True)
class LMRun:
    """One training run of a language model."""

    label: str
    """Name of the architecture, the same at all its sizes."""
    spec: str
    """The architecture at this size."""
    dim: Count
    budget: Positive
    """Training FLOPs of its IsoFLOP group."""
    flops: Count
    """Training FLOPs of this run by ``convention``, within 1 % of the budget."""
    convention: Convention = "exact"
    params: Count
    params_non_embedding: Count
    state: Natural
    """Scalars carried from token to token at ``length``."""
    steps: Count
    batch_size: Count
    """Sequences of a step."""
    length: Count
    tokens: Count
    """Tokens predicted in all steps."""
    epochs: Positive | None = None
    """Passes over the training split; None if the corpus is not prepared yet."""
    learning_rate: Positive
    """Peak learning rate."""
    seed: Annotated[int, between(0, 2**63 - 1)] = 0
    corpus: str
    """Source of the corpus: :func:`archlab.corpora.prepare`."""
    tokenizer: str
    corpus_hash: str | None = None
    """Hash of the tokens; None if the corpus is not prepared yet."""
    vocab_size: Count
    """Rows of the model's embedding: the tokens of the corpus, up to a multiple of ``vocab_multiple``."""
    vocab_multiple: Count = 1
    backbone: LMBackbone = "language-model"
    warmup_steps: Count | None = None
    """Steps of linear warm-up of a horizon."""
    decay_steps: Count | None = None
    """Steps of linear decay at the end of a horizon, after a constant rate; None for the schedule of the recipe."""

    @cached_property
    def architecture(self) -> Architecture:
        """The architecture that the spec describes."""
        return architecture(self.spec)

    def __str__(self) -> str:
        """Label, width, budget and seed, for messages."""
        return f"{self.label}, width {self.dim}, {self.budget:.3g} FLOPs, seed {self.seed}"

    def identity(self) -> dict[str, Any]:
        """Return everything that can change the result; label and budget cannot."""
        layers = [layer.identity() for layer in self.architecture.layers]
        horizon = {} if self.decay_steps is None else {"warmup_steps": self.warmup_steps, "decay_steps": self.decay_steps}
        return {name: getattr(self, name) for name in _COMPUTED} | {"layers": layers} | horizon

    @cached_property
    def trunk(self) -> str | None:
        """Equal for horizons that begin alike, at a warm-up and a constant rate; None for a training run that is none."""
        if self.decay_steps is None:
            return None
        shared = {name: value for name, value in self.identity().items() if name not in ("steps", "decay_steps")}
        return json.dumps(shared, sort_keys=True)

    @property
    def trunk_steps(self) -> int:
        """Steps before the decay of a horizon."""
        return self.steps - (self.decay_steps or 0)

    def check(self) -> None:
        """Check that the fields do not contradict each other; an ArchlabError names field, value and what the others ask for."""
        check_fields(self)
        self._expect("vocab_size", padded(self.vocab_size, self.vocab_multiple), "of a multiple of vocab_multiple")
        self.architecture.validate(self.dim)
        size = Size(self.architecture, self.dim, self.vocab_size, self.length, self.backbone)
        for name in ("params", "params_non_embedding", "state"):
            self._expect(name, getattr(size, name), f"of the spec at width {self.dim}")
        if (self.warmup_steps is None) != (self.decay_steps is None):
            raise ArchlabError("warmup_steps and decay_steps: a horizon has both: give both, or none for the recipe's schedule")
        if (self.warmup_steps or 0) >= self.trunk_steps:
            raise ArchlabError(
                f"warmup_steps={self.warmup_steps} and decay_steps={self.decay_steps} leave none of {self.steps} steps between "
                "them: give fewer"
            )
        sequences = self.steps * self.batch_size
        self._expect("tokens", sequences * self.length, "of steps x batch_size x length")
        per_sequence = training_flops(self.architecture, **size.shape, convention=self.convention)
        self._expect("flops", per_sequence * sequences, f"of its tokens by the convention {self.convention}")
        if abs(self.flops / self.budget - 1) > TOLERANCE:
            best = max(1, round(self.budget / per_sequence / self.batch_size))
            raise ArchlabError(f"budget={self.budget:g} is not within 1 % of flops={self.flops:g}: {best} steps would be nearest")

    def _expect(self, name: str, expected: int, why: str) -> None:
        given = getattr(self, name)
        if given != expected:
            raise ArchlabError(f"{name}={given} contradicts the {expected} {why}: correct one of them")


def own_fractions(runs: Sequence[LMRun]) -> list[float]:
    """Fraction of its steps that each training run takes itself: a horizon leaves a trunk to the shorter ones that share it."""
    begun = defaultdict(list)
    for run in runs:
        begun[run.trunk].append(run.trunk_steps)
    taken = [max((n for n in begun[run.trunk] if run.trunk and n < run.trunk_steps), default=0) for run in runs]
    return [1 - steps / run.steps for run, steps in zip(runs, taken, strict=True)]


@dataclass(frozen=True)
class Plan:
    """The training runs of a study, and their origin."""

    runs: tuple[LMRun, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Version and ladder, for readers of the file."""

    def try_layers(self, device: Literal["cpu", "cuda"] = "cpu") -> None:
        """Try the layers from outside archlab on small inputs, at the smallest width of each architecture."""
        from archlab.layers.external.check import check_third_party

        least: dict[str, LMRun] = {}
        for run in sorted(self.runs, key=lambda run: run.dim):
            least.setdefault(run.label, run)
        for run in least.values():
            check_third_party(run.architecture.layers, run.dim, (run.length,), device)

    def check(self) -> None:
        """Check every training run, and that they make one study; an ArchlabError names the run and the field."""
        if not self.runs:
            raise ArchlabError("runs: the plan has none: leave at least one")
        for number, run in enumerate(self.runs, start=1):
            with naming(f"run {number} ({run.label}, width {run.dim})"):
                run.check()
        for name in ("corpus", "tokenizer", "corpus_hash", "vocab_size", "backbone", "length", "convention"):
            if len(values := {getattr(run, name) for run in self.runs}) > 1:
                shown = ", ".join(sorted(map(str, values)))
                raise ArchlabError(f"{name}: {shown}: losses compare only if it is the same in all runs: make a plan for each")
        first_of: dict[float, LMRun] = {}
        for run in self.runs:
            first = first_of.setdefault(run.budget, run)
            if run.batch_size != first.batch_size:
                one, other = (f"{each.batch_size} ({each.label}, width {each.dim})" for each in (first, run))
                raise ArchlabError(
                    f"batch_size: budget {run.budget:.3g} has {one} and {other}: all architectures of a budget need the same, "
                    "so that they read the same data in the same order"
                )
        known: dict[str, LMRun] = {}
        for run in self.runs:
            first = known.setdefault(json.dumps(run.identity(), sort_keys=True), run)
            if first is not run:
                raise ArchlabError(f"runs: {first} and {run} are the same training run: delete one of them")

    def to_dict(self) -> dict[str, Any]:
        """Return everything, JSON-ready."""
        return {"provenance": dict(self.provenance), "runs": [asdict(run) for run in self.runs]}

    def to_frame(self) -> "pd.DataFrame":
        """Return a data frame with a row for each training run."""
        import pandas as pd

        return pd.DataFrame([asdict(run) for run in self.runs])

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html(index=False, float_format="{:.4g}".format))

    def to_yaml(self) -> str:
        """Return the text of the file: provenance, the fields that all runs share, and a line a run."""
        rows = [asdict(run) for run in self.runs]
        shared = {name: value for name, value in rows[0].items() if all(row[name] == value for row in rows)}
        own = [{name: value for name, value in row.items() if name not in shared} for row in rows]
        lines = "".join(f"- {write_yaml(values, flow=True).strip()}\n" for values in own)
        return f"{_HEAD}{write_yaml({'provenance': dict(self.provenance), 'all': shared})}runs:\n{lines}"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file, whole or not at all; refuses a place where another plan is, which may have been edited."""
        place = Path(path)
        text = self.to_yaml()
        check_place(place, "plan")
        if place.is_file() and place.read_bytes() != text.encode():
            raise ArchlabError(f"plan {place}: another plan is there: choose another name or remove it")
        write_whole(place, text, "plan")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Plan":
        """Read a file and check it; refuses one that contradicts itself, naming the run and the field."""
        if not os.path.exists(path):
            raise ArchlabError(f"plan {path} does not exist: `archlab scale plan SPEC -o {path}` makes it")
        text = read_text(Path(path), "plan")
        with naming(f"plan {path}"):
            file = read_fields(_PlanFile, read_yaml(text))
            rows = enumerate(file.runs, start=1)
            runs = tuple(read_fields(LMRun, {**file.all, **row}, f"run {number}") for number, row in rows)
            plan = cls(runs, file.provenance)
            plan.check()
        return plan


@dataclass(frozen=True, kw_only=True)
class _PlanFile:
    """A plan as its file has it."""

    provenance: Mapping[str, Any] = field(default_factory=dict)
    all: Mapping[str, Any] = field(default_factory=dict)
    """Fields that all runs share."""
    runs: Annotated[list[Mapping[str, Any]], not_empty]

    def __post_init__(self) -> None:
        check_fields(self)
