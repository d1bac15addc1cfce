"""The training run of a language model with its recipe and device, as a value with a key."""

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from archlab.architectures.parser import module_paths
from archlab.architectures.stored import StoredArchitecture
from archlab.corpora import Corpus
from archlab.errors import ArchlabError
from archlab.fields import check_fields, check_value, read_fields
from archlab.layers.contract import origin
from archlab.machine import Device
from archlab.scaling.recipe import LMRecipe
from archlab.scaling.training_plan import LMRun, padded
from archlab.store.fingerprint import MODELS, Numerics, code_fingerprint, job_key

NUMERICS = MODELS | Numerics(
    roots=(
        "archlab.corpora.corpus",
        "archlab.scaling.recipe:LMRecipe.rate",
        "archlab.scaling.recipe:LMRecipe.resolved",
        "archlab.scaling.recipe:LMRecipe.horizon",
        "archlab.scaling.training_loop:train",
        "archlab.scaling.training_plan:LMRun.trunk_steps",
    ),
    modules=(
        "archlab.corpora.corpus",
        "archlab.corpora.order",
        "archlab.scaling.loader",
        "archlab.scaling.objective",
        "archlab.scaling.processes",
        "archlab.scaling.training_loop",
    ),
    idle=(
        "archlab.scaling.recipe:LMRecipe.__post_init__",
        "archlab.scaling.training_loop:CHECKPOINT_SECONDS",
        "archlab.scaling.training_loop:_COLLECT_EVERY",
        "archlab.scaling.training_loop:_collecting",
        "archlab.scaling.training_loop:_forget_peak",
        "archlab.scaling.training_loop:_peak_bytes",
        "archlab.scaling.training_loop:_signals",
        "archlab.scaling.training_loop:gemm_peak",
    ),
)
"""The code that the loss of a language model depends on, beside its layers. Checkpoints restore the exact state."""


@dataclass(frozen=True)
class LMTrial:
    """A training run of a plan, with its recipe and device."""

    run: LMRun
    recipe: LMRecipe
    device: Device = "cpu"

    @cached_property
    def key(self) -> str:
        """The :func:`job_key` of the run, its recipe and device: what it is called and what group it belongs to does not count.

        How many processes share the model is not in it: it changes the loss by rounding only.
        """
        return self._key(self.run.identity())

    @cached_property
    def trunk(self) -> str | None:
        """The key of the trunk that a horizon shares with others; None if the training run is no horizon."""
        return None if self.run.trunk is None else self._key({"trunk": self.run.trunk})

    def _key(self, identity: dict[str, Any]) -> str:
        assert self.run.corpus_hash is not None, "the corpus is prepared before anything is trained on it"
        layers = self.run.architecture.layers
        code = code_fingerprint(*sorted({module for layer in layers for module in layer.modules()}), numerics=NUMERICS)
        return job_key(identity | {"recipe": asdict(self.recipe), "device": self.device}, self.recipe.kernels, code)

    def on(self, corpus: Corpus) -> "LMTrial":
        """Return the training run with hash and epochs of the prepared corpus.

        An ArchlabError says that it was planned for another corpus, or that the corpus is too small for it.
        """
        run = self.run
        for name, found in (("corpus_hash", corpus.hash), ("vocab_size", padded(corpus.vocab_size, run.vocab_multiple))):
            given = getattr(run, name)
            if given is not None and given != found:
                raise ArchlabError(
                    f"{name}: the plan is for {str(given)[:16]}, corpus {run.corpus} with tokenizer {run.tokenizer} has "
                    f"{str(found)[:16]}: give the corpus it was made for, or make the plan again"
                )
        corpus.num_sequences("validation", run.length)
        epochs = corpus.epochs(run.tokens, run.length)
        if epochs > 1 and (run.epochs is None or run.epochs <= 1):
            raise ArchlabError(
                f"corpus {run.corpus}: {run} needs {run.tokens:,} tokens, {corpus.num_tokens('train'):,} are for training: "
                f"plan with repeat=True (--repeat) to read it {epochs:.3g} times, or give a larger corpus"
            )
        return replace(self, run=replace(run, corpus_hash=corpus.hash, epochs=epochs))

    def __str__(self) -> str:
        """Label, width, budget and seed, for messages."""
        return str(self.run)

    @property
    def flops(self) -> float:
        """FLOPs of the training run."""
        return float(self.run.flops)

    @property
    def origin(self) -> str:
        """The modules from outside archlab that compute the training run; empty if there are none."""
        return origin(self.run.architecture.layers)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; :meth:`from_dict` is the inverse."""
        return {"run": asdict(self.run), "recipe": asdict(self.recipe), "device": self.device}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "LMTrial":
        """The trial that :meth:`to_dict` wrote down; an ArchlabError says that a field or value is unknown to this archlab.

        What is stored is data: the modules that its spec names are not imported, see :class:`StoredArchitecture`.
        """
        device = check_value("device", values["device"], Device)
        run = read_fields(LMRun, values["run"], "run")
        check_fields(run, "run")
        if module_paths(run.spec):
            vars(run)["architecture"] = StoredArchitecture(run.spec, run.dim)
        return cls(run, read_fields(LMRecipe, values["recipe"], "recipe"), device)
