"""Kills workers, runs and the database at random points, and counts what was lost, doubled, wrong or hung.

    python -m benchmarks.faults --injections 300

Toy jobs that sleep are computed through `run` and `work` on SQLite and on PostgreSQL, and through Ray where it is installed. A
round is one store with some jobs; its processes are restarted after every fault, as their users would, until all jobs are done.

- lost: a job without a result, though every process says that it is done
- doubled: a job that was begun again after its result was in the store
- wrong: a result that is not the job's, or more than one row for a job
- hung: a round that was not done in time
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
from collections import Counter
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks._toys import Toy, ToyResult, ToyStore, read, sleep_all, went_wrong
from tests.postgres import Server, binaries

from archlab.jobs.executor import make_executor
from archlab.jobs.policy import Policy
from archlab.jobs.pull import submit, work
from archlab.jobs.scheduler import run
from archlab.store.submissions import Submissions

JOBS = 24
WORKPLACES = ("run, SQLite", "work, SQLite", "run, PostgreSQL", "work, PostgreSQL", "Ray, SQLite")
SECONDS = 300.0  # after which a round has hung
IN_VAIN = 3
"""Faults in a row that may come without a job that finishes in between: processes need longer to start than faults to come."""


def toys(number: int = JOBS) -> list[Toy]:
    return [Toy(index, 0.05 + 0.02 * (index % 10)) for index in range(number)]


def drive(role: str, store: str, log: Path) -> None:
    """A process of a round: a run, one that submits, a worker, or a run on Ray."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    jobs = toys()
    submits = role == "submit"
    name = {"submit": "workers", "ray": "ray"}.get(role, "local")
    executor = make_executor(partial(sleep_all, log), None if submits else 2, name=name, submits=submits)
    with executor:
        if role == "work":
            with Submissions(store) as submissions:
                work(submissions, executor, {"toys": read}, tell=print)
            return
        with ToyStore(store) as opened:
            if submits:
                what = {"toys": [toy.to_dict() for toy in jobs]}
                submit(jobs, opened, what, number=1, priority=0, executor=executor, policy=Policy[Toy, ToyResult]())
            else:
                run(jobs, opened, executor)


class Round:
    """A store with jobs, the processes that compute them, and the faults that they suffer."""

    def __init__(self, workplace: str, folder: Path, server: Server | None) -> None:
        self.folder, self.log, self.server = folder, folder / "log", server
        self.store = server.database() if server and "PostgreSQL" in workplace else str(folder / "toys.db")
        ToyStore(self.store).close()
        kind = workplace.partition(",")[0]
        self.roles = {"run": ["run", "run"], "work": ["submit", "work", "work"], "Ray": ["ray"]}[kind]
        self.processes: list[subprocess.Popen[bytes] | None] = [None for _ in self.roles]
        self.on_postgres = "PostgreSQL" in workplace

    def start(self) -> None:
        """Start what has ended."""
        for index, role in enumerate(self.roles):
            process = self.processes[index]
            if process is None or process.poll() is not None:
                command = [sys.executable, "-m", "benchmarks.faults", "--drive", role, self.store, str(self.log)]
                with (self.folder / "errors").open("ab") as errors:
                    self.processes[index] = subprocess.Popen(command, stdout=errors, stderr=errors)

    def finished(self) -> int:
        """Number of jobs with a result."""
        with ToyStore(self.store) as store:
            return len(store.records(statuses=["finished"]))

    def inject(self, chance: random.Random) -> str:
        """A fault; its name, or nothing if there was nothing to hurt."""
        living = [one for one in self.processes if one is not None and one.poll() is None]
        faults: dict[str, Callable[[Any], None]] = {
            "kill -9 of a process": lambda one: one.send_signal(signal.SIGKILL),
            "SIGTERM": lambda one: one.send_signal(signal.SIGTERM),
            "Ctrl-C": lambda one: one.send_signal(signal.SIGINT),
            "stopped for a second": pause,
            "kill -9 of a worker": kill_child,
        }
        if self.on_postgres:
            faults |= {"restart of the server": self.restart, "power cut of the server": partial(self.restart, at_once=True)}
        name = chance.choice([*faults])
        if not living:
            return ""
        faults[name](chance.choice(living))
        return name

    def restart(self, _: object, at_once: bool = False) -> None:
        assert self.server is not None
        self.server.stop(at_once=at_once)
        time.sleep(0.3)
        self.server.start()

    def end(self) -> Counter[str]:
        """Stop everything, and count what went wrong."""
        for process in self.processes:
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
        return went_wrong(self.store, self.log, toys())


def pause(one: "subprocess.Popen[bytes]") -> None:
    one.send_signal(signal.SIGSTOP)
    time.sleep(1)
    one.send_signal(signal.SIGCONT)


def kill_child(one: "subprocess.Popen[bytes]") -> None:
    listing = Path(f"/proc/{one.pid}/task/{one.pid}/children")
    for path in Path(f"/proc/{one.pid}/task").glob("*/children") if listing.exists() else ():
        for pid in path.read_text().split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                continue


def campaign(injections: int, workplaces: list[str], seed: int = 0) -> tuple[Counter[tuple[str, str]], dict[str, Counter[str]]]:
    """Faults by workplace and name, and what went wrong by workplace."""
    chance = random.Random(seed)
    faults: Counter[tuple[str, str]] = Counter()
    wrong: dict[str, Counter[str]] = {name: Counter() for name in workplaces}
    server = Server() if any("PostgreSQL" in name for name in workplaces) else None
    try:
        while faults.total() < injections:
            workplace = min(workplaces, key=lambda name: sum(n for (where, _), n in faults.items() if where == name))
            folder = Path(tempfile.mkdtemp(prefix="archlab-faults-"))
            one = Round(workplace, folder, server)
            deadline = time.monotonic() + SECONDS
            before, in_vain = 0, 0
            while (finished := one.finished()) < JOBS:
                if time.monotonic() > deadline:
                    wrong[workplace]["hung"] += 1
                    print((folder / "errors").read_text()[-3000:], file=sys.stderr)
                    break
                one.start()
                time.sleep(chance.uniform(0.5, 3.0))
                before, in_vain = finished, in_vain if finished == before else 0
                if faults.total() < injections and in_vain < IN_VAIN and (name := one.inject(chance)):
                    faults[workplace, name] += 1
                    in_vain += 1
            wrong[workplace] += one.end()
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        if server is not None:
            server.stop(at_once=True)
            shutil.rmtree(server.home, ignore_errors=True)
    return faults, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--injections", type=int, default=300)
    parser.add_argument("--only", action="append", choices=WORKPLACES, help="only here; repeatable")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--drive", nargs=3, metavar=("ROLE", "STORE", "LOG"), help="used by the campaign itself")
    arguments = parser.parse_args()
    if arguments.drive:
        role, store, log = arguments.drive
        drive(role, store, Path(log))
        return
    there = [
        name
        for name in arguments.only or WORKPLACES
        if not ("PostgreSQL" in name and (binaries() is None or not find_spec("psycopg")))
    ]
    there = [name for name in there if not (name.startswith("Ray") and not find_spec("ray"))]
    faults, wrong = campaign(arguments.injections, there, arguments.seed)
    kinds = ("lost", "doubled", "wrong", "hung")
    print("| where | fault | injections |", " | ".join(kinds), "|")
    print("|---|---|--:|" + "--:|" * len(kinds))
    for (where, name), number in sorted(faults.items()):
        print(f"| {where} | {name} | {number} |" + " |" * len(kinds))
    for where in there:
        number = sum(n for (place, _), n in faults.items() if place == where)
        print(f"| {where} | all | {number} |", " | ".join(str(wrong[where][kind]) for kind in kinds), "|")
    if any(counts.total() for counts in wrong.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
