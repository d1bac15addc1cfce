"""The step form of a layer that is made of layers: their states side by side in one flat dictionary."""

from collections.abc import Iterable

from torch import Tensor, nn

from archlab.layers.contract import Recurrent

State = dict[str, Tensor]


def init_states(layers: Iterable[nn.Module], batch_size: int) -> State:
    """The states of all sequence mixers before the first token, each name behind the layer's index: ``"0.keys"``."""
    return {
        f"{index}.{name}": tensor
        for index, layer in enumerate(layers)
        if isinstance(layer, Recurrent)
        for name, tensor in layer.init_state(batch_size).items()
    }


def step_each(layers: Iterable[nn.Module], x_bd: Tensor, state: State) -> tuple[list[Tensor], State]:
    """One token (B, D) through every layer: the outputs (B, D), and the new states as :func:`init_states` has them."""
    outputs: list[Tensor] = []
    after: State = {}
    for index, layer in enumerate(layers):
        if isinstance(layer, Recurrent):
            prefix = f"{index}."
            own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
            y_bd, own = layer.step(x_bd, own)
            after |= {prefix + name: tensor for name, tensor in own.items()}
        else:
            y_bd = layer(x_bd[:, None])[:, 0]
        outputs.append(y_bd)
    return outputs, after
