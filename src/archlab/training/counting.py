"""Kernels, bytes and FLOPs of a training step on a GPU, counted without one and without computing the step."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor
    from torch._subclasses.fake_tensor import FakeTensorMode


class Kernel(NamedTuple):
    """A launch, by all that decides how long it takes."""

    name: str
    bytes: int
    """Bytes read and written, each once."""
    flops: int
    """Floating-point operations of products, transforms, attention and scans; functions of single elements count none."""
    is_half: bool
    """Whether it computes in bfloat16."""

    @property
    def remains(self) -> bool:
        """Whether it is a product, a transform, attention, a scan or the optimiser, into which others could be fused."""
        return self.flops > 0 or self.name in _OPTIMISER


@dataclass
class Counts:
    """The operations of a step."""

    kernels: Counter[Kernel] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    """Operations that wait for the device: the host reads a value or needs one to know a shape. No CUDA graph holds them."""

    @property
    def num_kernels(self) -> int:
        """Number of launches."""
        return self.kernels.total()

    @property
    def bytes(self) -> int:
        """Bytes that all launches read and write."""
        return sum(number * kernel.bytes for kernel, number in self.kernels.items())

    @property
    def least_bytes(self) -> int:
        """Bytes that are left if all other kernels were fused into those that remain."""
        return sum(number * kernel.bytes for kernel, number in self.kernels.items() if kernel.remains)

    @property
    def flops(self) -> int:
        """Floating-point operations of all launches."""
        return sum(number * kernel.flops for kernel, number in self.kernels.items())

    def clear(self) -> None:
        """Begin anew."""
        self.kernels.clear()
        self.waits.clear()


_FREE = {"empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided", "_unsafe_view", "lift_fresh", "resize_"}
_OPTIMISER = {"_fused_adamw_"}
_OVERWRITING = {"copy_", "fill_", "zero_", "normal_", "uniform_"}
"""Operations in place that do not read what was there."""
_GATHERING = {"embedding", "index", "index_select", "gather"}
"""Operations that read as much of their first tensor as they write."""
_WAITING = {
    *("_local_scalar_dense", "_linalg_check_errors", "equal", "is_nonzero"),
    *("nonzero", "masked_select", "bincount", "repeat_interleave", "_unique2", "unique_dim", "unique_consecutive"),
}
_LAUNCHES = {
    "_fft_r2c": 2,
    "_fft_c2r": 2,
    "_fft_c2c": 2,
    "convolution_backward": 3,
    "embedding_dense_backward": 4,
    "sort": 4,
    "linalg_lu_factor_ex": 3,
    "linalg_lu_solve": 3,
    "linalg_cholesky_ex": 3,
    "_scaled_dot_product_flash_attention_for_cpu_backward": 3,
}
"""Operations that launch several kernels, and how many they launch at least."""
_TENSORS_A_LAUNCH = 36
"""Tensors of a list that one launch takes."""


@contextmanager
def counting() -> "Iterator[tuple[FakeTensorMode, Counts]]":
    """Count what is computed in this context, on tensors that have shapes and no data, as if a GPU computed it.

    Build and compute inside; tensors from outside come in by ``mode.from_tensor``. Layers take the branches that they have for
    a GPU, autocast is that of a CPU, which widens fewer functions of single elements. A value that the host reads is 1.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils._python_dispatch import TorchDispatchMode

    from archlab.layers.ops.flop_counter import formulas

    known = formulas()
    counts = Counts()

    class Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            name = operation._schema.name.partition("::")[2]
            if name in _WAITING or (name == "index" and any(_is_mask(x) for x in args[1])):
                counts.waits[name] += 1
            if name == "_local_scalar_dense":
                return 1.0 if args[0].is_floating_point() else 1
            result = operation(*args, **kwargs)
            if not operation.is_view and name not in _FREE and operation.namespace != "prim":
                formula = known.get(operation.overloadpacket)
                flops = int(formula(*args, **kwargs, out_val=result)) if formula else 0
                moved, is_half = _moved(name, operation._schema, args, kwargs, result)
                listed = len(args[0]) if args and isinstance(args[0], list) and name not in ("cat", "stack") else 1
                counts.kernels[Kernel(name, moved, flops, is_half)] += _LAUNCHES.get(name, -(-listed // _TENSORS_A_LAUNCH))
            return result

    with FakeTensorMode(allow_non_fake_inputs=True) as mode, Count(), gpu_branches():  # type: ignore[no-untyped-call]
        yield mode, counts


@contextmanager
def gpu_branches() -> Iterator[None]:
    """Tensors without data say that they are not on a CPU, so that layers take the branches that they have for a GPU."""
    from torch._subclasses.fake_tensor import FakeTensor

    FakeTensor.is_cpu = property(lambda _: False)  # type: ignore[assignment]
    try:
        yield
    finally:
        del FakeTensor.is_cpu  # what tensors have by themselves


def _is_mask(index: Any) -> bool:
    import torch

    return isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)


def _moved(name: str, schema: Any, args: Any, kwargs: Any, result: Any) -> tuple[int, bool]:
    """Bytes that an operation reads and writes, and whether it computes in bfloat16."""
    import torch
    from torch.utils._pytree import tree_leaves

    def tensors(values: Any) -> "list[Tensor]":
        return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]

    results = [x for x, kind in zip(result if isinstance(result, tuple) else (result,), schema.returns, strict=False) if kind]
    is_new = not any(one.alias_info for one in schema.returns)
    written = sum(map(_bytes, tensors(results))) if is_new else 0
    first, moved = True, written
    for index, argument in enumerate(schema.arguments):
        value = kwargs.get(argument.name) if argument.kwarg_only or index >= len(args) else args[index]
        found = tensors(value)
        size = written if first and name in _GATHERING else sum(map(_bytes, found))
        changes = argument.alias_info is not None and argument.alias_info.is_write
        is_read = not (changes and (argument.kwarg_only or name in _OVERWRITING))
        moved += size * (changes + is_read)
        first = False
    return moved, any(x.dtype == torch.bfloat16 for x in [*tensors(args), *tensors(result)])


def _bytes(x: "Tensor") -> int:
    """Bytes of the elements that differ: an axis that is expanded is read once."""
    number = x.element_size()
    for size, stride in zip(x.shape, x.stride(), strict=True):
        number *= size if stride else min(size, 1)
    return number
