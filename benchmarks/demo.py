"""The architectures of `make demo` by two versions of archlab: processor time and leaderboard, before and after.

    git worktree add --detach ../before COMMIT
    python benchmarks/demo.py --before ../before

Runs the protocol `quick` of both source trees at once, so that other programs disturb both alike. The processor time is that of
the trials alone: data, training and evaluation, without starting Python. With `--stores` the same command finishes what was
interrupted.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import _results
from archlab.mad.bench import DEMO

HERE = Path(__file__).parents[1]
SIDES = ("before", "after")


def start(tree: Path, *words: str) -> subprocess.Popen[str]:
    """The command line of a source tree, with its standard output to read."""
    environment = os.environ | {"PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "archlab", *words], env=environment, stdout=subprocess.PIPE, text=True)


def read(processes: dict[str, subprocess.Popen[str]]) -> dict[str, Any]:
    """The JSON documents that processes print, once all of them have ended."""
    texts = {side: process.communicate()[0] for side, process in processes.items()}
    if any(process.returncode for process in processes.values()):
        sys.exit("error: a run failed, see above")
    return {side: json.loads(text) for side, text in texts.items()}


def seconds(architecture: dict[str, Any], by_key: dict[str, float]) -> float:
    """Processor seconds of the trials that a row of a leaderboard stands on."""
    settings = [setting for task in architecture["tasks"].values() for setting in task["settings"]]
    return sum(by_key[seed["key"]] for setting in settings for seed in setting["seeds"])


def percent(found: dict[str, Any]) -> str:
    """A score with its 95 % interval."""
    return f"{100 * found['score']:.1f} ({100 * found['low']:.1f} to {100 * found['high']:.1f})"


def times(seconds: dict[str, float]) -> dict[str, float]:
    """Three columns: seconds before and after, and the fraction that is left."""
    found = {f"CPU s {side}": round(own, 1) for side, own in seconds.items()}
    return found | {"fraction": round(seconds["after"] / seconds["before"], 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architectures", nargs="*", default=DEMO, help="catalogue names or specs; default: those of the demo")
    parser.add_argument("--before", type=Path, required=True, metavar="TREE", help="root of the other version")
    parser.add_argument("--seeds", default="1", help="number of seeds (default: 1)")
    parser.add_argument("--tasks", help="only these tasks, as A,B")
    parser.add_argument("--workers", default="1", help="workers of each version (default: 1)")
    parser.add_argument("--stores", type=Path, metavar="FOLDER", help="where trials are kept; default: nowhere")
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write; default: benchmarks/results, by date")
    args = parser.parse_args()
    trees = dict(zip(SIDES, (args.before, HERE), strict=True))
    asked = [*args.architectures, "--seeds", args.seeds, *(["--tasks", args.tasks] if args.tasks else [])]
    with TemporaryDirectory() as temporary:
        stores = {side: str((args.stores or Path(temporary)) / f"{side}.db") for side in SIDES}
        runs = {
            side: start(trees[side], "run", *asked, "--workers", args.workers, "--store", stores[side], "--json")
            for side in SIDES
        }
        boards = read(runs)
        listed = read({side: start(trees[side], "trials", "--store", stores[side], "--json") for side in SIDES})
    spent = {side: {trial["key"]: trial["cpu_seconds"] for trial in listed[side]} for side in SIDES}
    rows: list[dict[str, str | float]] = []
    totals = dict.fromkeys(SIDES, 0.0)
    for after in boards["after"]["architectures"]:
        before = next(one for one in boards["before"]["architectures"] if one["name"] == after["name"])
        pair = dict(zip(SIDES, (before, after), strict=True))
        own = {side: seconds(pair[side], spent[side]) for side in SIDES}
        totals = {side: totals[side] + own[side] for side in SIDES}
        scores = {f"MAD score {side}": percent(pair[side]) for side in SIDES}
        tasks = {
            task: " to ".join(f"{100 * pair[side]['tasks'][task]['score']:.1f}" for side in SIDES) for task in after["tasks"]
        }
        rows.append({"architecture": after["name"], **times(own), **scores, **tasks})
    rows.append({"architecture": "all", **times(totals), **dict.fromkeys(list(rows[0])[4:], "")})
    print(_results.table(rows))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=args.before, capture_output=True, text=True)
    settings = {
        "before": f"commit {commit.stdout.strip() or 'unknown'}",
        "time": "processor time of the trials, both versions at once",
        "scores": "percent on the test split; MAD score with its 95 % interval over seeds and test instances",
        "seeds": args.seeds,
    }
    named = [] if args.architectures is DEMO else args.architectures
    command = shlex.join(["python", "benchmarks/demo.py", "--before", "TREE", *named, *asked[len(args.architectures) :]])
    print(_results.write("demo", "The demo before and after", command, settings, rows, args.json))


if __name__ == "__main__":
    main()
