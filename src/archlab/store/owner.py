"""Owners of claims: processes that others can see to be alive or dead."""

import os
import secrets
from dataclasses import dataclass, field

from archlab.machine import process_space, process_started

LEASE_SECONDS = 60.0
"""An owner on another machine that has not been heard of for this long, by the clock of the database, is taken to be dead."""


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A process that claims jobs."""

    machine: str
    """Space of process ids that it lives in: :func:`archlab.machine.process_space`."""
    pid: int
    process_started: str
    """Start of the process, which tells it from a later one with the same id; empty where the system does not say."""
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    """Name of the owner: one process may own through several stores."""

    @classmethod
    def of_this_process(cls) -> "Owner":
        """A new owner, alive as long as this process."""
        return cls(machine=process_space(), pid=os.getpid(), process_started=process_started(os.getpid()) or "")

    @property
    def kernel(self) -> str:
        """The running system that it lives in, which containers share; the host's name where the system does not say."""
        host, _, rest = self.machine.partition(" ")
        return rest.partition(" ")[0] or host

    def is_alive(self, last_heartbeat: float, now: float) -> bool:
        """Whether the owner still computes: certain on its own machine, by its heartbeat elsewhere (Unix times, by one clock)."""
        if self.machine == process_space():
            return process_started(self.pid) == self.process_started
        return isinstance(last_heartbeat, float | int) and now - last_heartbeat < LEASE_SECONDS  # else it is damaged
