"""A training run that was read from a table, as a value with a key."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from archlab.fields import check_fields, read_fields

if TYPE_CHECKING:
    from archlab.scaling.fits.columns import Floats


@dataclass(frozen=True)
class ImportedRun:
    """A training run that was read from a table."""

    label: str
    budget: float
    """FLOPs of its group: the median of those that are nearly equal."""
    flops: float
    params: float
    tokens: float
    loss: float | None
    """Nats a token; None if the table has none."""
    seed: int

    @cached_property
    def key(self) -> str:
        """Hash of all that the table says of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def architecture(self) -> None:
        """None: only the name is known."""

    @property
    def curve(self) -> tuple[Floats, Floats]:
        """Two empty columns."""
        return np.zeros(0), np.zeros(0)

    @property
    def reason(self) -> str:
        """The reason why there is no loss; else empty."""
        return "" if self.loss is not None else "the table has no loss"

    def row(self) -> dict[str, Any]:
        """Return the training run as a row of a table."""
        return {
            "key": self.key,
            "architecture": self.label,
            "dim": None,
            "seed": self.seed,
            "budget": self.budget,
            "flops": self.flops,
            "params": self.params,
            "params_non_embedding": self.params,
            "state": 0.0,
            "tokens": self.tokens,
            "status": "no loss" if self.loss is None else "finished",
            "loss": self.loss,
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; :meth:`from_dict` is the inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ImportedRun:
        """The run that :meth:`to_dict` wrote down; an ArchlabError names a field that is unknown or has a wrong value."""
        run = read_fields(cls, values)
        check_fields(run)
        return run
