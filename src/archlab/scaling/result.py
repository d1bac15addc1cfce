"""The progress and the result of the training run of a language model."""

import signal
from dataclasses import asdict, dataclass
from typing import Any, Literal

from archlab.fields import check_value
from archlab.store.record import check_numbers


class Interrupted(Exception):  # noqa: N818 - nothing went wrong
    """The training was asked to end by a signal, and has written a checkpoint if it may."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def status(self) -> int:
        """The exit status that says so: 143 for SIGTERM, 130 for Ctrl-C."""
        return 128 + self.number

    def __str__(self) -> str:
        return f"ended by {signal.Signals(self.number).name}"


@dataclass(frozen=True)
class LMProgress:
    """Progress of a training run, about once a second."""

    step: int
    start_step: int
    """Steps that were computed before this process took the training run up."""
    num_steps: int
    tokens_per_second: float
    loss: float
    """Training loss of the latest step, in nats a token."""


@dataclass(frozen=True)
class CurvePoint:
    """One point of the loss curve."""

    step: int
    train_loss: float
    """Mean over the steps since the previous point, in nats a token."""
    validation_loss: float | None
    """None where it was not evaluated."""


@dataclass(frozen=True, kw_only=True)
class LMResult:
    """Result of the training run of a language model."""

    status: Literal["finished", "diverged"]
    """A diverged one is censored: its loss is not known, only that this learning rate did not get there."""
    reason: str
    """Why it diverged; else empty."""
    steps: int
    """Steps taken."""
    loss: float | None
    """On the validation split after the last step, in nats a token; None if it diverged."""
    curve: tuple[CurvePoint, ...]
    epochs: float
    """How often the training split was read."""
    tokens_per_second: float
    utilisation: float
    """On an accelerator whose data sheet is known model FLOPs (3 x forward, without idle experts) over its peak; elsewhere
    FLOPs (3 x forward) over what products of large matrices reach on this machine."""
    gemm: float
    """FLOP/s that those reach, on all processes together."""
    peak_bytes: int
    """Largest memory of a process: resident on a CPU, allocated on a GPU."""
    seconds: float
    """Time of training, without evaluation and checkpoints; over all parts of a training run that was interrupted."""
    processes: int
    """That shared the model at the end."""
    not_kept: str = ""
    """Why its weights, which were to be kept, could not be written; else empty."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready but for numbers that are not finite."""
        return asdict(self) | {"curve": [[p.step, p.train_loss, p.validation_loss] for p in self.curve]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "LMResult":
        """The result that :meth:`to_dict` wrote down; refuses what is no number where one belongs."""
        check_value("status", values["status"], Literal["finished", "diverged"])
        check_value("reason", values["reason"], str)
        numbers = [value for name, value in values.items() if name not in ("status", "reason", "not_kept", "curve")]
        check_numbers(number for part in (numbers, *values["curve"]) for number in part if number is not None)
        return cls(**values | {"curve": tuple(CurvePoint(*point) for point in values["curve"])})
