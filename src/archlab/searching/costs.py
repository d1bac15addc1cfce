"""Costs of an architecture that a search limits or minimises, known before anything is trained."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from archlab.architectures import Architecture

DECODE_LENGTH = 65_536
"""Tokens of context at which the memory of decoding is stated."""
BYTES = 2
"""Bytes for each scalar of the state, as in bfloat16."""


class Cost(NamedTuple):
    """A cost, at a width and a length."""

    text: str
    of: Callable[[Architecture, int, int], float | None]
    """Takes the architecture, the width and the length; None if it is not known."""


def decode_memory(value: Architecture, dim: int, length: int = DECODE_LENGTH) -> int | None:
    """Bytes that one sequence carries after :data:`DECODE_LENGTH` tokens, whatever the ``length`` of training."""
    state = value.state_size(length=DECODE_LENGTH, dim=dim)
    return None if state is None else BYTES * state


def _attention(value: Architecture, dim: int, length: int) -> float:
    mixers = [one for one in value.layers if one.kind == "sequence"]
    return sum(one.is_attention for one in mixers) / max(len(mixers), 1)


COSTS: Mapping[str, Cost] = {
    "params": Cost("parameters of the layers", lambda value, dim, length: value.layer_params(length=length, dim=dim)),
    "state": Cost("scalars carried from token to token", lambda value, dim, length: value.state_size(length=length, dim=dim)),
    "flops": Cost("FLOPs of a forward pass over one sequence", lambda value, dim, length: value.flops(length=length, dim=dim)),
    "decode-memory": Cost(f"bytes of state after {DECODE_LENGTH:,} tokens, in {BYTES} bytes a scalar", decode_memory),
    "attention": Cost("fraction of the sequence mixers that are attention", _attention),
    "layers": Cost("number of layers", lambda value, dim, length: len(value.layers)),
}
"""Every cost by its name in spaces and objectives; they are counted at the width and the length of the protocol."""
