"""Puts the same trials through every executor while their workers are killed, and compares the rows bit for bit.

    python -m benchmarks.executors --every 3

Sixty trials of the protocol smoke: once without faults, then by `archlab run` with two workers, by two `archlab work` on a
temporary PostgreSQL server, and on Ray where it is installed. After so many seconds, as soon as a trial has finished since the
last kill, a worker, its host on Ray or an `archlab work` is killed; what has ended is started again.

- rows: in the store; twice: rows beyond one for a trial; different: rows whose numbers are not those of the run without faults
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from tests.postgres import Server, binaries

from archlab.jobs.worker import WORKER_VARIABLE
from archlab.mad.store import TrialStore
from archlab.store.database import NoStoreError

ARCHITECTURES = (
    "transformer++", "attention", "sliding-attention", "linear-attention", "gla", "hyena", "mh-hyena", "mamba",
    "striped-hyena", "striped-mamba",
)  # fmt: skip
TRIALS = 6 * len(ARCHITECTURES)
RUN = ("run", *ARCHITECTURES, "--protocol", "smoke", "--seeds", "1", "--race", "off")
TIMES = {"wall_seconds", "cpu_seconds", "examples_per_second"}
MARK = "ARCHLAB_BENCHMARK"
SECONDS = 1200.0


class Campaign:
    """One executor, its processes, and the kills that they suffer."""

    def __init__(self, executor: str, store: str, folder: Path) -> None:
        self.store, self.mark, self.errors = store, uuid.uuid4().hex, folder / f"errors-{executor}"
        run = [*RUN, "--store", store, "--executor", executor]
        self.commands = [run if executor == "workers" else [*run, "--workers", "2"]]
        self.commands += [["work", "--slots", "1", "--store", store]] * (2 if executor == "workers" else 0)
        self.processes: list[subprocess.Popen[bytes] | None] = [None for _ in self.commands]
        self.kills = 0

    def start(self) -> None:
        """Start what has ended."""
        for index, command in enumerate(self.commands):
            process = self.processes[index]
            if process is None or process.poll() is not None:
                call = [sys.executable, "-m", "archlab", *command]
                variables = os.environ | {MARK: self.mark, "RAY_worker_niceness": "0"}  # its 15 starves on a busy machine
                with self.errors.open("ab") as errors:
                    self.processes[index] = subprocess.Popen(call, env=variables, stdout=errors, stderr=errors)

    def finished(self) -> int:
        with suppress(NoStoreError), TrialStore(self.store, create=False) as store:
            return len(store.outcomes(statuses=["finished"]))
        return 0

    def victims(self) -> list[int]:
        """The workers of this campaign, their hosts on Ray, and its `archlab work`."""
        found = [one.pid for one in self.processes[1:] if one is not None and one.poll() is None]
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                variables = (place / "environ").read_bytes().split(b"\0")
                is_worker = any(variable.startswith(f"{WORKER_VARIABLE}=".encode()) for variable in variables)
                is_host = (place / "cmdline").read_bytes().startswith(b"ray::_Host")
                if f"{MARK}={self.mark}".encode() in variables and (is_worker or is_host):
                    found.append(int(place.name))
        return found

    def run(self, every: float | None, chance: random.Random) -> float:
        """Run until all trials are done; the seconds that it took."""
        started = last = time.monotonic()
        done = 0
        while True:
            self.start()
            time.sleep(0.5)
            first = self.processes[0]
            assert first is not None
            if first.poll() is not None and self.finished() == TRIALS:
                break
            now = time.monotonic()
            assert now - started < SECONDS, self.errors.read_text()[-3000:]
            if every is not None and now - last >= every and (have := self.finished()) > done and (victims := self.victims()):
                with suppress(ProcessLookupError):
                    os.kill(chance.choice(victims), signal.SIGKILL)
                    self.kills, done, last = self.kills + 1, have, now
        took = time.monotonic() - started
        for process in self.processes:
            if process is not None and process.poll() is None:
                process.terminate()
                process.wait(60)
        return took


def rows(store: str) -> dict[str, list[dict[str, Any]]]:
    """The numbers of every row by the key of its trial, without times."""
    found: dict[str, list[dict[str, Any]]] = {}
    with TrialStore(store, create=False) as opened:
        for record in opened.records():
            if record.result is not None:
                numbers = [(name, value) for name, value in vars(record.result).items() if name not in TIMES]
                exact = {name: value.tobytes() if isinstance(value, np.ndarray) else repr(value) for name, value in numbers}
                found.setdefault(record.key, []).append(exact)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--every", type=float, default=3.0, help="seconds between two kills, at least")
    parser.add_argument("--only", action="append", choices=("local", "workers", "ray"), help="only these; repeatable")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance, folder = random.Random(arguments.seed), Path(tempfile.mkdtemp(prefix="archlab-executors-"))
    server = Server() if binaries() and find_spec("psycopg") else None
    print("| executor | store | trials | kills | seconds | rows | twice | different |")
    print("|---|---|--:|--:|--:|--:|--:|--:|", flush=True)
    expected: dict[str, list[dict[str, Any]]] = {}
    wrong = 0
    try:
        for name, executor, every in (
            ("local, without faults", "local", None),
            ("local", "local", arguments.every),
            ("workers", "workers", arguments.every),
            ("Ray", "ray", arguments.every),
        ):
            if (executor == "workers" and server is None) or (executor == "ray" and not find_spec("ray")):
                continue
            if every is not None and arguments.only and executor not in arguments.only:
                continue
            store = server.database() if executor == "workers" and server else str(folder / f"{name[:8]}.db")
            campaign = Campaign(executor, store, folder)
            took = campaign.run(every, chance)
            found = rows(store)
            expected = expected or found
            twice = sum(len(of) - 1 for of in found.values())
            different = sum(of[0] != found.get(key, [{}])[0] for key, of in expected.items())
            wrong += twice + different + (len(found) != TRIALS)
            counts = f"{TRIALS} | {campaign.kills} | {took:.0f} | {len(found)} | {twice} | {different}"
            print(f"| {name} | {'PostgreSQL' if executor == 'workers' else 'SQLite'} | {counts} |", flush=True)
    finally:
        if server is not None:
            server.stop(at_once=True)
            shutil.rmtree(server.home, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
