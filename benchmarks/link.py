"""Two hosts and a link between them that is cut: what is lost or doubled when a worker cannot reach its database for a while.

    python -m benchmarks.link --cut 20

A PostgreSQL server and the submitter on this machine; the worker, with two slots, in a network namespace of its own, which has
its own host name and process numbers too, so that it counts as another machine. Once a third of the jobs is done, the link is
cut for so many seconds. Needs Linux, root and iproute2.

A worker that cannot reach its database tries for a minute, then ends; here it is started again, as a batch system would.

- lost: a job without a result; doubled: a job that was begun again after its result was in the store; wrong: a result that is not
  the job's, or two rows for a job; starts: of the worker
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks._toys import Toy, ToyResult, ToyStore, read, sleep_all, went_wrong
from tests.postgres import Server

from archlab.jobs.executor import make_executor
from archlab.jobs.policy import Policy
from archlab.jobs.pull import submit, work
from archlab.store.submissions import Submissions

HERE, THERE, PREFIX = "10.251.16.1", "10.251.16.2", 30
SECONDS = 300.0  # beside the cut, after which it hangs


class Link:
    """A pair of network interfaces, one of them in a namespace of its own."""

    def __init__(self) -> None:
        """Make both, and the namespace."""
        self.name = f"archlab{os.getpid()}"
        self.ours, self.theirs = f"al{os.getpid()}a", f"al{os.getpid()}b"
        self.ip("netns", "add", self.name)
        self.ip("link", "add", self.ours, "type", "veth", "peer", "name", self.theirs, "netns", self.name)
        self.ip("addr", "add", f"{HERE}/{PREFIX}", "dev", self.ours)
        self.ip("-n", self.name, "addr", "add", f"{THERE}/{PREFIX}", "dev", self.theirs)
        self.ip("-n", self.name, "link", "set", self.theirs, "up")
        self.restore()

    @staticmethod
    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True)

    def cut(self) -> None:
        self.ip("link", "set", self.ours, "down")

    def restore(self) -> None:
        self.ip("link", "set", self.ours, "up")

    def remove(self) -> None:
        """Remove both interfaces and the namespace."""
        self.ip("link", "del", self.ours)
        self.ip("netns", "del", self.name)

    def start(self, *command: str) -> "subprocess.Popen[bytes]":
        """Start a program on the other host."""
        other = ["unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        other += ["sh", "-c", 'hostname elsewhere; exec "$@"', "sh"]
        return subprocess.Popen(["ip", "netns", "exec", self.name, *other, *command])


def reachable(server: Server) -> str:
    """The URL of an empty database that the other host reaches."""
    with (server.home / "data" / "pg_hba.conf").open("a") as rules:
        rules.write(f"host all all {HERE}/{PREFIX} trust\n")
    server.settings = (*server.settings, f"listen_addresses=127.0.0.1,{HERE}")
    server.stop()
    server.start()
    return server.database().replace("127.0.0.1", HERE)


def campaign(cut: float, jobs: int) -> dict[str, object]:
    """Compute sleeping jobs on the other host while the link is cut once; what went wrong."""
    link, folder = Link(), Path(tempfile.mkdtemp(prefix="archlab-link-"))
    server = Server()
    processes: list[subprocess.Popen[bytes]] = []
    try:
        store, log = reachable(server), folder / "log"
        log.touch()
        ToyStore(store).close()
        me = (sys.executable, "-m", "benchmarks.link", "--jobs", str(jobs), "--drive")
        started = time.monotonic()
        processes = [subprocess.Popen([*me, "submit", store, str(log)]), link.start(*me, "work", store, str(log))]
        while len(log.read_text().splitlines()) < jobs // 3:
            time.sleep(0.2)
        link.cut()
        time.sleep(cut)
        link.restore()
        while processes[0].poll() is None:
            if processes[-1].poll() is not None:
                processes.append(link.start(*me, "work", store, str(log)))
            assert time.monotonic() - started < cut + SECONDS, "it hangs"
            time.sleep(0.5)
        toys = [Toy(number, 1.0) for number in range(jobs)]
        return {
            "jobs": jobs,
            "cut, s": round(cut),
            "seconds": round(time.monotonic() - started),
            "begun": len(log.read_text().splitlines()),
            **went_wrong(store, log, toys),
            "starts": len(processes) - 1,
        }
    finally:
        for process in processes:
            process.kill()
            process.wait()
        server.stop(at_once=True)
        link.remove()
        shutil.rmtree(server.home, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def drive(role: str, store: str, log: Path, jobs: int) -> None:
    """One of the two hosts: who submits, or the worker."""
    toys = [Toy(number, 1.0) for number in range(jobs)]
    submits = role == "submit"
    name = "workers" if submits else "local"
    with make_executor(partial(sleep_all, log), None if submits else 2, name=name, submits=submits) as executor:
        if submits:
            what = {"toys": [toy.to_dict() for toy in toys]}
            with ToyStore(store) as opened:
                submit(toys, opened, what, number=1, priority=0, executor=executor, policy=Policy[Toy, ToyResult]())
        else:
            with Submissions(store) as submissions:
                work(submissions, executor, {"toys": read}, tell=print, max_idle=300.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cut", type=float, action="append", help="seconds; repeatable; 20 by default")
    parser.add_argument("--jobs", type=int, default=60)
    parser.add_argument("--drive", nargs=3, metavar=("ROLE", "STORE", "LOG"), help="used by the measurement itself")
    arguments = parser.parse_args()
    if arguments.drive:
        role, store, log = arguments.drive
        drive(role, store, Path(log), arguments.jobs)
        return
    found = [campaign(cut, arguments.jobs) for cut in arguments.cut or [20.0]]
    print("|", " | ".join(found[0]), "|")
    print("|" + "--:|" * len(found[0]))
    for row in found:
        print("|", " | ".join(str(value) for value in row.values()), "|")
    sys.exit(any(row["lost"] or row["doubled"] or row["wrong"] for row in found))


if __name__ == "__main__":
    main()
