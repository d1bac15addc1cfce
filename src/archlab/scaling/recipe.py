"""The recipe of a language model, beside its size, data, batch and learning rate."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from archlab.fields import Count, Natural, NonNegative, between, check_fields
from archlab.training.steps import learning_rate

LARGE_BATCH_TOKENS = 512 * 1024


@dataclass(frozen=True, kw_only=True)
class LMRecipe:
    """A training recipe of language models. Everything here can change the loss, if by rounding only."""

    schedule: Literal["cosine", "wsd"] = "cosine"
    """Course of the learning rate after the warm-up: cosine, or warm-up, stable, decay (arXiv 2404.06395)."""
    warmup: Annotated[float, between(0, 0.999)] | Literal["params"] = 0.05
    """Fraction of the steps with linear warm-up, in [0, 1); ``params`` is as many tokens as there are parameters without
    embeddings, at most half of the steps (OLMo-core, commit 03a3e2e)."""
    decay: Annotated[float, between(0, 1)] = 0.2
    """Fraction of the steps over which ``wsd`` decays linearly at the end."""
    final_lr: Annotated[float, between(0, 1)] = 0.1
    """Learning rate of the last step, as a fraction of the peak."""
    weight_decay: NonNegative = 0.1
    """On matrices only, and never on embeddings or on parameters that a layer exempts."""
    beta1: Annotated[float, between(0, 0.9999)] = 0.9
    beta2: Annotated[float, between(0, 0.99999)] | Literal["batch"] = 0.95
    """``batch`` is 0.99 for batches below 512k tokens, else 0.95 (OLMo-core, commit 03a3e2e)."""
    grad_clip: NonNegative = 1.0
    """Largest gradient norm; 0 does not clip."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 is autocast: parameters, optimiser and sensitive operations stay in fp32."""
    micro_batch: Natural = 0
    """Sequences that a process computes at once, their gradients are accumulated; 0 for its whole share of the batch."""
    recompute: bool = False
    """Keep only what goes in between layers, and compute the rest again in the backward pass (activation checkpointing)."""
    compiled: bool = False
    """Compile every layer with :func:`torch.compile`."""
    kernels: Literal["torch", "fla"] = "torch"
    """Kernels for the layers' recurrences: PyTorch's operations, or on a GPU, where there are such, those of
    flash-linear-attention (:mod:`archlab.layers.ops.kernels`). These multiply in TF32, with ``precision="bf16"`` in bfloat16."""
    embedding_std: Annotated[float, between(1e-6, 100)] = 0.02
    """Standard deviation of the token embedding's initialisation."""
    evaluations: Count = 1
    """Evenly spaced evaluations on the validation split, the last after the last step."""
    validation_tokens: Count = 131_072
    """Tokens of the validation split that are evaluated, if it has so many: always the same."""

    def __post_init__(self) -> None:
        check_fields(self, "recipe")

    def resolved(self, *, params: int, tokens: int, batch_tokens: int) -> "LMRecipe":
        """Return the recipe with numbers for ``warmup`` and ``beta2``, for a run of so many parameters without embeddings."""
        warmup = min(0.5, params / tokens) if self.warmup == "params" else self.warmup
        beta2 = (0.99 if batch_tokens < LARGE_BATCH_TOKENS else 0.95) if self.beta2 == "batch" else self.beta2
        return replace(self, warmup=warmup, beta2=beta2)

    def horizon(self, steps: int, warmup_steps: int, decay_steps: int) -> "LMRecipe":
        """Return the recipe with the schedule of a horizon: warm-up, constant rate, decay."""
        # a half, so that the fractions give these steps back however they are rounded
        return replace(self, schedule="wsd", warmup=(warmup_steps + 0.5) / steps, decay=(decay_steps + 0.5) / steps)

    def rate(self, step: int, num_steps: int) -> float:
        """Learning rate of a step (from 1) as a fraction of the peak."""
        assert self.warmup != "params", "resolved before"
        return learning_rate(step, num_steps, self.schedule, warmup=self.warmup, final=self.final_lr, decay=self.decay)
