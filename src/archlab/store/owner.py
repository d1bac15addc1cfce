"""Who computes a trial: a process that others can see to be alive or dead."""

import os
import secrets
import socket
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

LEASE_SECONDS = 60.0
"""An owner on another machine that has not been heard of for this long is taken to be dead. The machines'
clocks must agree to within a fraction of it."""


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A process that claims trials."""

    machine: str
    """Host, boot and process namespace: within one of these, process ids mean the same."""
    pid: int
    process_started: str
    """Tells the process from a later one with the same id; empty where the system does not say."""
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    """One process may own through several stores."""

    @classmethod
    def of_this_process(cls) -> "Owner":
        """A new owner, alive as long as this process."""
        return cls(machine=_machine(), pid=os.getpid(), process_started=process_started(os.getpid()) or "")

    def is_alive(self, last_heartbeat: float, now: float) -> bool:
        """Whether the owner still computes: certain on its own machine, by its heartbeat elsewhere (Unix times)."""
        if self.machine == _machine():
            return process_started(self.pid) == self.process_started
        return now - last_heartbeat < LEASE_SECONDS


@cache
def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id")
    namespace = Path("/proc/self/ns/pid")
    return " ".join(
        (
            socket.gethostname(),
            boot.read_text().strip() if boot.exists() else "",
            os.readlink(namespace) if namespace.is_symlink() else "",
        )
    ).strip()


def process_started(pid: int) -> str | None:
    """When the process started, in the system's own words; None if there is no such process or it is a zombie."""
    if Path("/proc/self/stat").exists():
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        state, *values = stat.rpartition(")")[2].split()  # the name before it may hold anything
        return None if state in "ZX" else values[18]
    answer = subprocess.run(["ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    state, _, started = answer.strip().partition(" ")
    return None if not started or state.startswith("Z") else started.strip()
