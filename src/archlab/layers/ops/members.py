"""How hand-written gradients are applied: model by model inside ``torch.func.vmap``, and by as many sequences as fit a cache."""

from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


def apply(function: type[Function], *args: Any) -> Tensor:
    """``function.apply(*args)``; inside ``vmap``, which knows no rule for it, for one member after the other."""
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        function, args = _MemberByMember, (function, *args)
    return function.apply(*args)  # type: ignore[no-untyped-call]


_CACHED_ENTRIES = 1 << 19
"""Entries of the largest argument on a CPU: with all that is computed from it, about as much as a core's caches hold."""


def apply_by_sequences(function: type[Function], *args: Any) -> Tensor:
    """:func:`apply` to some sequences after the other, where all together are more than a CPU's caches hold.

    Every tensor among ``args``, and the result, has the sequences along its first axis.
    """
    tensors = [x for x in args if isinstance(x, Tensor)]
    together = max(1, _CACHED_ENTRIES // max(x[0].numel() for x in tensors))
    if not tensors[0].is_cpu or torch.compiler.is_compiling() or together >= len(tensors[0]):
        return apply(function, *args)
    parts = [torch.split(x, together) if isinstance(x, Tensor) else repeat(x) for x in args]
    return torch.cat([apply(function, *some) for some in zip(*parts, strict=False)])


class _MemberByMember(Function):
    """Only its rule for ``vmap`` is ever called. What happens there is recorded as usual, so it needs no gradient."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        raise NotImplementedError("transforms other than vmap")

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], function: type[Function], *args: Any) -> tuple[Tensor, int]:
        def of(member: int) -> list[Any]:
            return [x if dim is None else x.select(dim, member) for x, dim in zip(args, in_dims[1:], strict=True)]

        return torch.stack([apply(function, *of(member)) for member in range(info.batch_size)]), 0
