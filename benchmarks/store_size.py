"""CPU time and memory of the commands that read large stores, by number of trials.

    python benchmarks/store_size.py --trials 10000 30000 100000

Fills stores with made-up results of the `paper` protocol (66 settings, 6 grid points, 5 seeds, as many architectures as the
number takes), then runs `archlab scores`, `report`, `runs` and a run with nothing to do as processes of their own, and reads
their CPU seconds and peak memory; at the end `archlab run --protocol paper --dry-run` for `--plans` architectures.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import insert

import _results
from archlab.mad.plan import Plan, make_plan
from archlab.mad.protocol import load_protocol
from archlab.mad.store import TrialStore
from archlab.mad.trial import CurvePoint, Metrics, Trial, TrialResult
from archlab.store.provenance import environment

UNITS = 1280
SEEDS = 5
DISTINCT = 499
"""Made-up results for each number of steps."""
ARCHLAB = [sys.executable, "-m", "archlab"]


def specs(number: int) -> list[str]:
    """Architectures that differ in a knob."""
    return [f"2*[mh-hyena(heads={2 ** (i % 8)}) swiglu(inner={64 + i})]" for i in range(number)]


def made_up(trial: Trial, rng: np.random.Generator) -> TrialResult:
    """A result whose size is that of a real one: 20 evaluations, and the test units of the protocol."""
    rate = float(np.clip(rng.normal(0.6, 0.2), trial.setting.chance, 0.98))
    steps = [trial.num_steps * (i + 1) // 20 for i in range(20)]
    curve = [CurvePoint(step, 1.0 - rate, Metrics(rate * (i + 1) / 20, rate, 1.0 - rate)) for i, step in enumerate(steps)]
    at_end = Metrics(rate, rate, 1.0 - rate)
    return TrialResult(
        status="finished", steps=trial.num_steps, solved_step=None, selected_step=steps[-1], selected=at_end, test=at_end,
        test_last=at_end, curve=tuple(curve), numerators=rng.binomial(8, rate, UNITS).astype(np.float32),
        denominators=np.full(UNITS, 8, np.float32),
        examples_per_second=1000.0, wall_seconds=60.0, cpu_seconds=59.0,
    )  # fmt: skip


def origin(number: int) -> dict[str, Any]:
    """The provenance of the trial that ends in this minute."""
    ended = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number)
    times = {"started": (ended - timedelta(minutes=1)).isoformat(), "finished": ended.isoformat(), "wall_seconds": 60.0}
    return environment() | times


def fill(path: Path, plan: Plan) -> int:
    """Fill a store with results of every trial of a plan, in few transactions; one trial ends every minute."""
    rng = np.random.default_rng(0)
    costs = {kind: asdict(trial.costs) for kind, trial in {trial.kind: trial for trial in plan.trials()}.items()}
    made: dict[tuple[int, int], dict[str, Any]] = {}
    with TrialStore(path) as store:
        store.remember_run(plan.to_dict())
        trials = plan.trials()
        for start in range(0, len(trials), 1000):
            rows = []
            for number, trial in enumerate(trials[start : start + 1000], start):
                like = trial.num_steps, number % DISTINCT
                if like not in made:
                    made[like] = store.result_columns(made_up(trial, rng))
                provenance = origin(number) | {"costs": costs[trial.kind]}
                rows.append({"key": trial.key, "trial": trial.to_dict(), "provenance": provenance} | made[like])
            with store._write() as connection:
                connection.execute(insert(store.table), rows)
    return len(trials)


def measured(checkout: Path, *arguments: str) -> tuple[float, float, float]:
    """CPU seconds, wall seconds and peak memory in MiB of a command of a checkout."""
    began = time.monotonic()
    environment = os.environ | {"PYTHONPATH": str(checkout / "src")}
    process = subprocess.Popen(
        [*ARCHLAB, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{shlex.join(arguments)}: {errors}")
    return usage.ru_utime + usage.ru_stime, time.monotonic() - began, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[10_000, 30_000, 100_000], help="sizes of the stores, about")
    parser.add_argument("--plans", type=int, nargs="*", default=[1, 10, 100], help="architectures of the plans of dry runs")
    parser.add_argument("--folder", type=Path, help="where the stores are made and kept; default: a temporary folder")
    parser.add_argument("--beside", type=Path, metavar="CHECKOUT", help="earlier code, whose commands run in turns with ours")
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write; default: benchmarks/results, by date")
    args = parser.parse_args()
    checkouts = {"before": args.beside} if args.beside else {}
    checkouts["now"] = Path(__file__).parents[1]
    protocol = load_protocol("paper").with_seeds(range(SEEDS))
    rows: list[dict[str, Any]] = []

    def note(name: str, trials: int, *arguments: str) -> None:
        """Run a command with the code of every checkout, and note what it took."""
        row: dict[str, Any] = {"command": name, "trials": trials}
        for code, checkout in checkouts.items():
            cpu, wall, memory = measured(checkout, *arguments)
            row |= {f"{code}, CPU s": cpu, f"{code}, wall s": wall, f"{code}, MiB": memory}
        rows.append(row)
        print(row, flush=True)

    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        for number in args.trials:
            own = protocol if number >= protocol.num_trials else protocol.with_seeds([0]).with_tasks(["recall", "copy"])
            plan = make_plan(own, specs(max(1, round(number / own.num_trials))))
            path, page = folder / f"{number}.db", folder / "report.html"
            made = len(plan.trials()) if path.exists() else fill(path, plan)
            store = ["--store", str(path)]
            narrowed = ["--seeds", str(SEEDS)] if own is protocol else ["--seeds", "1", "--tasks", "recall,copy"]
            note("scores", made, "scores", *store)
            note("report", made, "report", *store, "-o", str(page))
            rows.append(
                dict.fromkeys(rows[-1], 0.0) | {"command": "page, MB", "trials": made, "now, MiB": page.stat().st_size / 2**20}
            )
            note("runs", made, "runs", *store)
            note("nothing to do", made, "run", *(str(a) for a in plan.architectures), "--protocol", "paper", *narrowed, *store)
        for number in args.plans:
            dry = ["run", *specs(number), "--protocol", "paper", "--dry-run", "--store", str(folder / "none.db")]
            note("paper --dry-run", 396 * number, *dry)
    command = f"python {shlex.join(['benchmarks/store_size.py', *sys.argv[1:]])}"
    print(_results.table(rows))
    print(_results.write("store-size", "Large stores", command, {"units a trial": UNITS, "seeds": SEEDS}, rows, args.json))


if __name__ == "__main__":
    main()
