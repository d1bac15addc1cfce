"""Memory of a training step, found without computing it."""

import math
import weakref
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from archlab.training.counting import gpu_branches

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch._subclasses.fake_tensor import FakeTensorMode


FRAGMENTATION = 1.4
"""Bytes that glibc's allocator takes for each byte it is asked for: 1.1 to 1.6 for ten layers at one shape."""

LONG_STEP = 4000
"""Operations from which on a step counts as long."""
_PRIMES = (7, 11, 13, 17, 19, 23, 29, 31)


class LongStepError(Exception):
    """A step has more operations than were allowed."""


Model = TypeVar("Model", bound="nn.Module")


def step_bytes(
    weights: int,
    build: Callable[[], Model],
    loss: "Callable[[Model, FakeTensorMode], Tensor]",
    *,
    on_gpu: bool = False,
    until_error: bool = False,
    most_operations: float = math.inf,
    few: int = 1,
    batch: int = 1,
) -> int:
    """The most bytes that tensors take at once in a training step with AdamW.

    The forward and backward pass run on tensors that have shapes and no data; what counts are the storages alive after each
    operation, and AdamW's two moments beside the bytes of the ``weights``. What an operation takes for itself is not seen. The
    loss brings tensors of its own into the mode by ``mode.from_tensor``. With ``on_gpu`` layers take the branches that they have
    for a GPU. With ``until_error`` what comes before an error counts
    instead of raising it: code from elsewhere may need data.

    The ``few`` sequences of the loss may stand for a ``batch``: a storage whose size they divide, which :func:`few_sequences`
    sees to, counts as often as there are more of them; the others, such as those of one block in a loop, count once.

    Raises:
        LongStepError: the step has more than ``most_operations``.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    now = most = operations = 0
    alive: dict[int, Any] = {}

    class Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal operations
            operations += 1
            if operations > most_operations:
                raise LongStepError
            result = operation(*args, **(kwargs or {}))
            for tensor in tree_leaves(result):
                if isinstance(tensor, torch.Tensor):
                    count(tensor.untyped_storage())
            return result

    def count(storage: Any) -> None:
        nonlocal now, most
        address, size = storage._cdata, storage.nbytes()
        if address in alive:
            return
        if size % few == 0:
            size = size // few * batch

        def freed(_: object) -> None:
            nonlocal now
            now -= size
            del alive[address]

        alive[address] = weakref.ref(storage, freed)
        now += size
        most = max(most, now)

    try:
        taken = gpu_branches() if on_gpu else nullcontext()
        with FakeTensorMode(allow_non_fake_inputs=True) as mode, Count(), taken:  # type: ignore[no-untyped-call]
            loss(build(), mode).backward()  # type: ignore[no-untyped-call]
    except LongStepError:
        raise
    except Exception:
        if not until_error:
            raise
    return max(most, 2 * weights) + 2 * weights


def few_sequences(sizes: Iterable[int]) -> int | None:
    """A small number of sequences that divides none of these sizes, of weights and axes; None if there is none."""
    known = set(sizes)
    return next((prime for prime in _PRIMES if all(size % prime for size in known)), None)
