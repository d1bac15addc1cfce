"""What a training step holds in memory, found out without computing it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch._subclasses.fake_tensor import FakeTensorMode


SLACK = 4 / 3
"""What the allocator and the workspace of operations add: for 12 layers at two shapes, the peak was 1.1 to 1.5 times the sum."""


class StepBytes(NamedTuple):
    """Bytes of one training step."""

    weights: int
    """The parameters; gradients and each of AdamW's two moments take as much again."""
    activations: int
    """What the backward pass needs, each storage once."""
    largest: int
    """The largest of these tensors."""

    def peak(self, data: int = 0) -> int:
        """The most that is taken at once, with so much data: of the largest tensor a backward pass holds two at a time."""
        return round(SLACK * (4 * self.weights + data + self.activations + 2 * self.largest))


Model = TypeVar("Model", bound="nn.Module")


def step_bytes(
    build: Callable[[], Model], loss: "Callable[[Model, FakeTensorMode], Tensor]", *, until_error: bool = False
) -> StepBytes:
    """Run the forward pass on tensors that have shapes and no data, and see what it keeps.

    Args:
        build: makes the model.
        loss: computes what is differentiated; brings tensors of its own into the mode by ``mode.from_tensor``.
        until_error: count what comes before an error instead of raising it: code from elsewhere may need data.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    saved: dict[int, int] = {}
    kept: list[Any] = []  # a storage that is freed would give its address to another one
    largest = 0

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage.nbytes()
        kept.append(storage)
        largest = max(largest, storage.nbytes())
        return tensor

    parameters: list[Tensor] = []
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
            model = build()
            parameters += model.parameters()
            loss(model, mode)
    except Exception:
        if not until_error:
            raise
    weights = {id(p.untyped_storage()): p.numel() * p.element_size() for p in parameters}
    own = {p.untyped_storage()._cdata for p in parameters}
    return StepBytes(sum(weights.values()), sum(size for storage, size in saved.items() if storage not in own), largest)
