"""Decoding: a whole model takes one token at a time, and every layer carries its state."""

from collections.abc import Iterable

import torch
from torch import Tensor

from archlab.architectures.backbones import Backbone, Residual
from archlab.layers.contract import LayerConfig, Recurrent


class Decoder:
    """The step form of a whole model: the states of its layers, from the first token on."""

    def __init__(self, model: Backbone, batch_size: int = 1) -> None:
        self.model = model
        self.mixing: list[Residual] = list(model.layers[: model.num_mixing])  # type: ignore[arg-type]
        self.states = [r.layer.init_state(batch_size) if isinstance(r.layer, Recurrent) else {} for r in self.mixing]

    def step(self, ids_b: Tensor, taken_b: Tensor | None = None) -> Tensor:
        """Take in one token a sequence, ``(batch,)``, and return the logits of the next, ``(batch, vocab_size)``.

        Sequences of which the token is not taken, padding for example, keep their states; their logits mean nothing.
        """
        x_bd: Tensor = self.model.embedding(ids_b)
        for index, residual in enumerate(self.mixing):
            if isinstance(residual.layer, Recurrent):
                before = self.states[index]
                y_bd, after = residual.layer.step(residual.norm(x_bd), before)
                self.states[index] = (
                    after if taken_b is None else {name: _kept(before[name], after[name], taken_b) for name in after}
                )
                x_bd = x_bd + y_bd
            else:
                x_bd = residual(x_bd[:, None])[:, 0]
        return self.model.logits(x_bd[:, None])[:, 0]

    def reorder(self, rows_b: Tensor) -> None:
        """Let each sequence go on from the states of the one with this number, as beam search does."""
        self.states = [{name: tensor.index_select(0, rows_b) for name, tensor in state.items()} for state in self.states]


def _kept(before: Tensor, after: Tensor, taken_b: Tensor) -> Tensor:
    return torch.where(taken_b.view(-1, *[1] * (after.dim() - 1)), after, before)


def without_step_form(layers: Iterable[LayerConfig], model: Backbone) -> LayerConfig | None:
    """The first sequence mixer of a model that has no step form; None if all have one."""
    pairs = zip(layers, model.layers, strict=True)
    return next((x for x, residual in pairs if x.kind == "sequence" and not isinstance(residual.layer, Recurrent)), None)
