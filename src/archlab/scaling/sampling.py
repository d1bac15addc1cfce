"""Text from a kept model, one token at a time: every layer carries its state, as in decoding."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Annotated

import torch
from torch import Tensor

from archlab.architectures.decoding import Decoder, without_step_form
from archlab.errors import ArchlabError
from archlab.fields import Count, Natural, NonNegative, between, checked
from archlab.machine import Device
from archlab.scaling.models import KeptModel, load_model
from archlab.training.context import computing


@checked
def sample(
    run: str | KeptModel,
    prompt: str = "",
    *,
    tokens: Count = 200,
    temperature: NonNegative = 1.0,
    top_k: Natural = 0,
    seed: Annotated[int, between(0, 2**63 - 1)] = 0,
    store: str | os.PathLike[str] = "archlab.db",
    device: Device = "cpu",
) -> str:
    """Continue a text by a kept model; returns the continuation, without the prompt.

    It ends where the model ends the document, or after ``tokens``. Memory does not grow with the text: layers that remember
    all tokens, such as attention, forget the oldest beyond the length that the model was trained at.

    Args:
        run: a kept model, or what :func:`archlab.load_model` finds it by.
        prompt: the text to continue; by default a document begins.
        tokens: the most to draw.
        temperature: divides the logits; at 0 the likeliest token is taken.
        top_k: draw among so many likeliest tokens; 0 for all.
        seed: of the draws: the same one gives the same text on the same machine.
        store: the store beside which the model was kept.
        device: ``"cpu"`` or ``"cuda"``, for a model that is not loaded yet.

    Raises:
        ArchlabError: there is no such model, a value is not allowed, or a layer has no step form.
    """
    kept = run if isinstance(run, KeptModel) else load_model(run, store, device=device)
    return kept.tokenizer.decode(list(_drawn(kept, prompt, tokens, temperature, top_k, seed)))


@torch.inference_mode()
def _drawn(kept: KeptModel, prompt: str, tokens: int, temperature: float, top_k: int, seed: int) -> Iterator[int]:
    tokenizer, device = kept.tokenizer, kept.device
    (encoded,) = tokenizer.encode([prompt.encode(errors="replace")])
    ids = [int(token) for token in encoded[:-1]] or [tokenizer.end]  # what follows an end begins a document
    if (lacking := without_step_form(kept.trial.run.architecture.layers, kept.model)) is not None:
        raise ArchlabError(f"layer {lacking}: has no step form (init_state and step), which sampling needs: add it")
    decoder = Decoder(kept.model)
    generator = torch.Generator().manual_seed(seed)
    with computing("torch", "fp32", device.type):
        for token in ids:
            logits_v = decoder.step(torch.tensor([token], device=device))[0]
        for number in range(tokens):
            token = _pick(logits_v[: tokenizer.vocab_size].float().cpu(), temperature, top_k, generator)
            if token == tokenizer.end:
                return
            yield token
            if number < tokens - 1:
                logits_v = decoder.step(torch.tensor([token], device=device))[0]


def _pick(logits_v: Tensor, temperature: float, top_k: int, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(logits_v.argmax())
    if 0 < top_k < len(logits_v):
        logits_v = logits_v.masked_fill(logits_v < logits_v.topk(top_k).values[-1], -torch.inf)
    scaled_v = (logits_v - logits_v.max()).double() / temperature  # however low the temperature, the largest stays 0
    return int(torch.multinomial(scaled_v.softmax(0), 1, generator=generator))
