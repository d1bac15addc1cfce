"""Claims a second, and the share of time that workers are idle: sleeping jobs on PostgreSQL, by workers that share them.

    python -m benchmarks.claims --jobs 1000 --seconds 1 --workers 8

Each worker is a process of `archlab work` with one slot, on a temporary PostgreSQL server of this machine, which syncs its
commits to the disk. What counts is the time in which all workers have work: from when the last of them has begun its first job
until the first has begun its last. The part of it that no job slept is idle.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from functools import partial
from pathlib import Path

from benchmarks._toys import Toy, ToyStore, read, sleep_all
from tests.postgres import Server

from archlab.jobs.executor import make_executor
from archlab.jobs.pull import work
from archlab.store.submissions import Submissions


def worker(store: str, log: str) -> None:
    with make_executor(partial(sleep_all, Path(log)), 1) as executor, Submissions(store) as submissions:
        work(submissions, executor, {"toys": read}, tell=print, max_idle=3.0)


def measure(jobs: int, seconds: float, workers: int) -> dict[str, float]:
    server, folder = Server(synced=True), Path(tempfile.mkdtemp(prefix="archlab-claims-"))
    try:
        store, log = server.database(), folder / "log"
        toys = [Toy(number, seconds) for number in range(jobs)]
        with ToyStore(store) as opened, Submissions(opened) as submissions:
            submissions.submit(1, "toys", {"toys": [toy.to_dict() for toy in toys]}, [toy.key for toy in toys], 0)
        command = [sys.executable, "-m", "benchmarks.claims", "--work", store, str(log)]
        running = [subprocess.Popen(command) for _ in range(workers)]
        for process in running:
            process.wait()
        with ToyStore(store) as opened:
            finished = len(opened.records(statuses=["finished"]))
        begun: dict[str, list[float]] = defaultdict(list)
        for line in log.read_text().splitlines():
            _, pid, at = line.split()
            begun[pid].append(float(at))
    finally:
        server.stop(at_once=True)
        shutil.rmtree(server.home, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
    # From when the last worker has begun until the first has nothing left to begin: what comes before and after is start and end.
    first, last = max(times[0] for times in begun.values()), min(times[-1] for times in begun.values())
    inside = sum(first <= at < last for times in begun.values() for at in times)
    return {
        "jobs": finished,
        "begun": sum(map(len, begun.values())),
        "seconds": last - first,
        "claims a second": inside / (last - first),
        "idle": 1 - inside * seconds / (workers * (last - first)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=1.0, help="that a job sleeps")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--work", nargs=2, metavar=("STORE", "LOG"), help="used by the benchmark itself")
    arguments = parser.parse_args()
    if arguments.work:
        worker(*arguments.work)
        return
    started = time.monotonic()
    found = measure(arguments.jobs, arguments.seconds, arguments.workers)
    print("| workers | jobs | sleep | jobs done | jobs begun | claims a second | idle |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    print(
        f"| {arguments.workers} | {arguments.jobs:,} | {arguments.seconds:g} s | {found['jobs']:,} | {found['begun']:,} | "
        f"{found['claims a second']:.1f} | {100 * found['idle']:.1f} % |"
    )
    print(f"\n{time.monotonic() - started:.0f} s in all, with the start of the workers")


if __name__ == "__main__":
    main()
