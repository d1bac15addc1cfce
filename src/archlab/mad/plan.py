"""A plan: a protocol and the architectures to put through it; what a run sets out to compute."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Annotated, Any

from archlab.architectures import Architecture, architecture
from archlab.architectures.normalise import Normalised, normalise
from archlab.architectures.stored import StoredArchitecture
from archlab.errors import ArchlabError
from archlab.fields import check_fields, not_empty
from archlab.machine import Device
from archlab.mad.protocol import Protocol
from archlab.mad.scores import Scores
from archlab.mad.scoring import score
from archlab.mad.store import OutcomeRecord, TrialStore
from archlab.mad.trial import Trial
from archlab.tasks.check import check_outside


@dataclass(frozen=True)
class Plan:
    """The trials that a run sets out to compute."""

    protocol: Protocol
    architectures: Annotated[tuple[Architecture, ...], not_empty]
    device: Device = "cpu"

    def __post_init__(self) -> None:
        """Check that there are architectures, each of which counts once, and that they fit the width."""
        check_fields(self)
        for value in self.architectures:
            value.validate(self.protocol.dim)

    def trials(self) -> list[Trial]:
        """Every training of the plan, see :meth:`Protocol.trials`."""
        return self.protocol.trials(self.architectures, self.device)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; :meth:`from_dict` is the inverse."""
        return {
            "protocol": asdict(self.protocol),
            "architectures": [{"spec": str(a), "name": a.name} for a in self.architectures],
            "device": self.device,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Plan":
        """The plan that :meth:`to_dict` wrote down, also if layers of its architectures are not available."""
        given = values["architectures"]
        protocol = Protocol.from_dict(values["protocol"])
        architectures = tuple(StoredArchitecture(a["spec"], protocol.dim, a["name"]) for a in given)
        return cls(protocol, architectures, values["device"])


def make_plan(protocol: Protocol, specs: str | Architecture | Sequence[str | Architecture], device: Device = "cpu") -> Plan:
    """The plan for architectures, given as values or as text; each counts once. Refuses an empty list, and architectures
    that do not fit the width.

    Tasks from outside archlab are tried on a few sequences, layers on small inputs, as long as the shortest and the longest
    sequences of the protocol.
    """
    from archlab.layers.external.check import check_third_party

    given = [specs] if isinstance(specs, str | Architecture) else specs
    architectures = dict.fromkeys(
        spec if isinstance(spec, Architecture) else architecture(spec, layer_defaults=protocol.layer_defaults) for spec in given
    )
    if not architectures:
        raise ArchlabError("architectures are empty: give at least one, for example 'mh-attention swiglu'")
    plan = Plan(protocol, tuple(architectures), device)
    settings = [setting for task in protocol.tasks.values() for setting in task.settings]
    check_outside(settings)
    lengths = [setting.input_length for setting in settings]
    layers = (config for value in architectures for config in value.layers)
    check_third_party(layers, protocol.dim, (min(lengths), max(lengths)), device)
    return plan


def at_equal_state(plan: Plan, state: int) -> tuple[Plan, tuple[Normalised, ...]]:
    """The plan with every architecture at the same matrix state (at least 1), and what was done to each.

    A window is bounded by the longest sequence of the plan. What becomes another architecture loses its catalogue name.
    """
    protocol = plan.protocol
    found = tuple(normalise(value, state=state, dim=protocol.dim, length=protocol.max_length) for value in plan.architectures)
    return replace(plan, architectures=tuple(dict.fromkeys(each.architecture for each in found))), found


def score_plan(
    store: TrialStore,
    plan: Plan,
    unreadable: dict[str, str],
    known: Mapping[Trial, OutcomeRecord | None] | None = None,
) -> Scores:
    """Scores of a plan from a store; a result of an earlier version of the code counts where the present has none.

    ``unreadable`` takes a line for every row that cannot be read. ``known`` are the plan's trials with what has been read
    already, results of the present code: the store is read for others only if some have none.
    """
    found = dict.fromkeys(plan.trials()) if known is None else dict(known)
    for record in store.outcomes(unreadable=unreadable) if None in found.values() else ():
        job = record.job
        if (other := found.get(job, record)) is not record and _counts_before(record, other):
            found[job] = record
    return score(found, partial(store.details, unreadable=unreadable), protocol=plan.protocol.name)


def _counts_before(record: OutcomeRecord, other: OutcomeRecord | None) -> bool:
    """A result before none, then the present code before an earlier version, then the later of the two."""
    if other is None:
        return True
    if (record.result is None) != (other.result is None):
        return record.result is not None
    return bool(record.key == other.key or record.key == record.job.key or other.key != other.job.key)
