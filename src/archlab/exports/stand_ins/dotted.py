"""Any module class as a layer."""

from typing import Any

from torch import Tensor, nn


class FirstOutput(nn.Module):
    """A module that may return several things, of which the first is the output."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x_bld: Tensor) -> Tensor:
        """``(batch, length, dim)`` to the same shape."""
        y = self.module(x_bld)
        y_bld: Tensor = y[0] if isinstance(y, tuple) else y
        return y_bld


class ModuleLayer:
    """A class with its arguments; ``width`` names the one that takes the width, None for the first."""

    def __init__(self, factory: Any, width: str | None, arguments: dict[str, Any]) -> None:
        self.factory, self.width, self.arguments = factory, width, arguments

    def build(self, dim: int, max_length: int) -> nn.Module:
        """An initialised module of this width."""
        first = {} if self.width is None else {self.width: dim}
        return FirstOutput(self.factory(*([dim] if self.width is None else []), **first, **self.arguments))
