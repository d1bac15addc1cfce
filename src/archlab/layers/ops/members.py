"""Hand-written gradients inside ``torch.func.vmap``, which runs several models of one shape as one program."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


def apply(function: type[Function], *args: Any) -> Tensor:
    """``function.apply(*args)``; inside ``vmap``, which knows no rule for it, for one member after the other."""
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        function, args = _MemberByMember, (function, *args)
    out: Tensor = function.apply(*args)  # type: ignore[no-untyped-call]
    return out


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
