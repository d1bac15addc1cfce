"""Accelerators by their data sheets, and the time that a kernel takes on one by a roofline model."""

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from archlab.errors import unknown
from archlab.fields import Positive, check_fields, read_yaml

REACHED_BANDWIDTH = 0.85
"""Fraction of the data sheet's bandwidth that copies usually reach."""
REACHED_FLOPS = 0.6
"""Fraction of the data sheet's FLOP/s that products of the sizes of a layer usually reach."""
CACHE_FACTOR = 2.0
"""Bandwidth of the second-level cache over that of the memory, for a kernel whose operands fit it together."""
CAPTURED_SECONDS = 2.2e-6
"""The least time of a kernel in a CUDA graph."""
EAGER_SECONDS = 7.5e-6
"""The least time of a kernel that Python launches by itself."""


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """The facts of one kind of accelerator, by its data sheet."""

    name: str
    names: list[str]
    """How the driver calls its cards."""
    memory: Positive
    """Bytes."""
    bandwidth: Positive
    """Bytes per second of the memory."""
    cache: Positive
    """Bytes of the second-level cache."""
    bf16: Positive
    """Dense FLOP/s in bfloat16."""
    fp32: Positive
    """FLOP/s in float32, without TF32."""

    def __post_init__(self) -> None:
        check_fields(self, f"accelerator {self.name}")

    def seconds(self, num_bytes: float, flops: float, *, is_half: bool, least: float = CAPTURED_SECONDS) -> float:
        """Model the time of a kernel: the longest of a launch, moving its bytes, and its FLOPs.

        The constants above are assumptions; what they predict was not measured on any of these cards.
        """
        bandwidth = REACHED_BANDWIDTH * self.bandwidth * (CACHE_FACTOR if num_bytes < self.cache else 1.0)
        return max(least, num_bytes / bandwidth, flops / (REACHED_FLOPS * (self.bf16 if is_half else self.fp32)))


@cache
def accelerators() -> dict[str, Accelerator]:
    """Those that the package knows, by name."""
    text = (resources.files("archlab") / "accelerators.yaml").read_text(encoding="utf-8")
    facts: dict[str, dict[str, Any]] = read_yaml(text)
    return {name: Accelerator(name=name, **values) for name, values in facts.items()}


def accelerator(name: str) -> Accelerator:
    """The accelerator of a name; refuses one that is not known."""
    known = accelerators()
    if name not in known:
        raise unknown("accelerator", name, known)
    return known[name]


def accelerator_of(card: str) -> Accelerator | None:
    """The accelerator that the driver calls ``card``; None if the package has no numbers for it."""
    return next((one for one in accelerators().values() if card in one.names), None)
