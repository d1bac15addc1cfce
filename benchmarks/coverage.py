"""How often 95 % intervals of `archlab scale compare` hold the truth, and how wide they are.

    python benchmarks/coverage.py

Simulated studies of three architectures whose laws differ in floor, factors and exponents: five budgets from 4e18 to 8e19 FLOPs,
seven sizes within four times the best, one seed. The standard deviation of the errors is equal at all budgets (0.005 nats), falls
as C^-0.5 (from 0.009) or as C^-1 (from 0.04); a smaller ladder has three budgets and five sizes. The oracle knows the noise: its
intervals are those of the delta method at the true laws with the true weights. Then three of the 105 runs fail, at a loss of
6 to 11, and the intervals are compared with those of the whole study and of the study without the three. Finished studies are
kept in the JSON file's `.part`, so that the same command goes on after an interruption.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import _results
from archlab.scaling.analysis.comparison import Comparison, compare_study
from archlab.scaling.fits import Resampling
from archlab.scaling.fits.together import jacobian
from archlab.scaling.study import RunTable

Z = 1.96
BEYOND = 10.0


@dataclass(frozen=True)
class Truth:
    """A law with ``C = 6 N D``."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, size: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        return self.E + self.A * size**-self.alpha + self.B * tokens**-self.beta

    def size(self, flops: np.ndarray) -> np.ndarray:
        total = self.alpha + self.beta
        return (self.alpha * self.A / (self.beta * self.B)) ** (1 / total) * (flops / 6) ** (self.beta / total)

    def least(self, flops: np.ndarray) -> np.ndarray:
        return self.loss(self.size(flops), flops / 6 / self.size(flops))

    @property
    def exponent(self) -> float:
        """By which the least loss falls towards the floor."""
        return self.alpha * self.beta / (self.alpha + self.beta)

    def reaching(self, loss: np.ndarray) -> np.ndarray:
        return ((loss - self.E) / (self.least(np.float64(1)) - self.E)) ** (-1 / self.exponent)

    def variance(self, flops: np.ndarray, table: RunTable, noise: np.ndarray) -> np.ndarray:
        """Of the least loss at the budgets, by weighted least squares that know the noise."""
        p = np.array([[np.log(self.A), np.log(self.B), np.log(self.E), self.alpha, self.beta]])
        weighted = jacobian(p, np.log(table.N), np.log(table.D))[0] / noise[:, None]
        at = jacobian(p, np.log(self.size(flops)), np.log(flops / 6 / self.size(flops)))[0]
        return np.square(np.linalg.lstsq(np.linalg.qr(weighted)[1].T, at.T, rcond=None)[0]).sum(axis=0)


LAWS = (Truth(1.69, 406.4, 410.7, 0.34, 0.28), Truth(1.72, 320, 420, 0.33, 0.283), Truth(1.66, 480, 380, 0.345, 0.272))
LADDER = np.array([4e18, 8e18, 2e19, 4e19, 8e19])
CASES = {
    "equal": (LADDER, 7, 0.005, 0.0),
    "C^-0.5": (LADDER, 7, 0.009, 0.5),
    "C^-1": (LADDER, 7, 0.04, 1.0),
    "equal, 3 budgets of 5 sizes": (LADDER[:3], 5, 0.005, 0.0),
}


def study(case: str, seed: int) -> tuple[dict[str, RunTable], np.ndarray]:
    """The runs of the architectures, and the standard deviation of the error of each."""
    budgets, sizes, largest, falling = CASES[case]
    rng = np.random.default_rng([seed, list(CASES).index(case)])
    flops, index = np.repeat(budgets, sizes), np.tile(np.arange(sizes), len(budgets))
    noise, zero = largest * (flops / budgets[0]) ** -falling, np.zeros_like(index)
    tables = {}
    for label, law in zip("abc", LAWS, strict=True):
        size = law.size(flops) * np.geomspace(1 / 4, 4, sizes)[index]
        tokens = flops / 6 / size
        loss = law.loss(size, tokens) + noise * rng.normal(size=len(flops))
        tables[label] = RunTable(label, flops, index, zero, flops, size, tokens, loss, size, models=(), censored=())
    return tables, noise


def measure(case: str, seed: int, resamples: int) -> list[dict[str, float | str]]:
    """One study: for every pair with `a`, number and budget, whether it is held, and its width over the oracle's."""
    tables, noise = study(case, seed)
    beyond = BEYOND * float(CASES[case][0][-1])
    found = compare_study(tables, Resampling(resamples, seed=seed), reference="a", flops=[beyond])
    rows: list[dict[str, float | str]] = []
    for row in found.rows:
        own, flops = "abc".index(row.architecture), np.array([row.budget])
        first, second = LAWS[0], LAWS[own]
        at = second.reaching(first.least(flops))
        slope = second.exponent * (first.least(flops) - second.E)
        ours = first.variance(flops, tables["a"], noise)
        theirs = tables[row.architecture]
        spread = {
            "difference": np.sqrt(ours + second.variance(flops, theirs, noise)),
            "multiplier": np.sqrt(ours + second.variance(at, theirs, noise)) / slope,
        }
        truth = {"difference": second.least(flops) - first.least(flops), "multiplier": np.log(at / flops)}
        for number, (low, high) in bounds(row).items():
            held = bool(low <= truth[number][0] <= high)
            oracle = float(2 * Z * spread[number][0])
            rows.append({"number": number, "budget": row.budget, "held": held, "width": high - low, "oracle": oracle})
    return rows


def bounds(row: Comparison) -> dict[str, tuple[float, float]]:
    """The bounds of the difference, and of the logarithm of the multiplier."""
    found = {"difference": (row.difference.low, row.difference.high)}
    m = row.multiplier
    low, high = (-np.inf, np.inf) if m is None else (m.low or 0.0, np.inf if m.high is None else m.high)
    with np.errstate(divide="ignore"):
        return found | {"multiplier": (float(np.log(low)), float(np.log(high)))}


def failures(case: str, seed: int, resamples: int) -> dict[str, float | int]:
    """Three runs fail: the largest change of a width, as a fraction, and the largest move of a bound, in widths."""
    tables, _ = study(case, seed)
    rng = np.random.default_rng([seed, 7])
    labels, rows = rng.choice(list(tables), 3), rng.choice(len(tables["a"].loss), 3, replace=False)
    failed = {label: table.loss.copy() for label, table in tables.items()}
    gone = {label: np.ones(len(table.loss), bool) for label, table in tables.items()}
    for label, row in zip(labels, rows, strict=True):
        failed[label][row], gone[label][row] = rng.uniform(6, 11), False
    names = ("budget", "size_index", "seed", "C", "N", "D", "loss", "state")
    studies = [
        tables,
        {label: replace(table, loss=failed[label]) for label, table in tables.items()},
        {label: replace(table, **{name: getattr(table, name)[gone[label]] for name in names}) for label, table in tables.items()},
    ]
    beyond = BEYOND * float(CASES[case][0][-1])
    made = [compare_study(one, Resampling(resamples, seed=seed), reference="a", flops=[beyond]) for one in studies]
    whole, with_failed, without = (np.array([list(bounds(row).values()) for row in one.rows]) for one in made)
    width, broken, removed = (np.ptp(one, axis=2) for one in (whole, with_failed, without))
    return {
        "width": float(np.abs(broken / width - 1).max()),
        "width_to_removed": float(np.abs(broken / removed - 1).max()),
        "bound_to_removed": float((np.abs(with_failed - without).max(axis=2) / removed).max()),
        "named": sum(len(note.cases) for note in made[1].notes if note.cause.startswith("outliers")),
    }


def rows_of(case: str, measured: list[list[dict]]) -> Iterator[dict[str, str | float]]:
    """A row for each number: coverage and width by budget."""
    flat = [row for one in measured for row in one]
    budgets = sorted({row["budget"] for row in flat})
    for number in ("difference", "multiplier"):
        cells: dict[str, str | float] = {"noise": case, "number": number}
        names = [*("smallest", "2nd", "3rd", "4th")[: len(budgets) - 2], "largest", "10 x beyond"]
        ratios = []
        for name, budget in zip(names, budgets, strict=True):
            some = [row for row in flat if (row["number"], row["budget"]) == (number, budget)]
            cells[name] = f"{np.mean([row['held'] for row in some]):.3f}"
            ratios.append(np.median([row["width"] / row["oracle"] for row in some]))
        yield cells | {"median width over the oracle's": f"{min(ratios):.2f} to {max(ratios):.2f}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=200, help="simulated studies of each kind (default: 200)")
    parser.add_argument("--resamples", type=int, default=500, help="resamples of each study (default: 500)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write; default: benchmarks/results, by date")
    args = parser.parse_args()
    path = args.json or _results.RESULTS / f"coverage-{_results.machine()['date']}.json"
    part = path.with_suffix(".part")
    known = json.loads(part.read_text()) if part.exists() else {}
    for seed in range(args.studies):
        for case in CASES:
            if (key := f"{case} {seed} {args.resamples}") not in known:
                known[key] = measure(case, seed, args.resamples)
        if (key := f"failures {seed} {args.resamples}") not in known:
            known[key] = failures("equal", seed, args.resamples)
        if seed % 10 == 9 or seed == args.studies - 1:
            part.write_text(json.dumps(known))
            print(f"{seed + 1} of {args.studies} studies", flush=True)
    seeds, how = range(args.studies), args.resamples
    rows = [
        {name: cells.get(name, "") for name in ["noise", "number", "smallest", "2nd", "3rd", "4th", "largest", "10 x beyond",
         "median width over the oracle's"]}
        for case in CASES
        for cells in rows_of(case, [known[f"{case} {seed} {how}"] for seed in seeds])
    ]  # fmt: skip
    broken = [known[f"failures {seed} {how}"] for seed in seeds]
    settings = {
        "studies of each kind": args.studies,
        "resamples": how,
        "error of a coverage": f"about {np.sqrt(0.95 * 0.05 / args.studies):.3f} (two pairs a study share an architecture)",
        "three failed runs, exactly three runs named": f"{np.mean([one['named'] == 3 for one in broken]):.1%} of studies",
        **{
            f"three failed runs, {text}": f"at most {100 * max(one[name] for one in broken):.0f} % in any study, "
            f"{100 * np.median([one[name] for one in broken]):.0f} % in the median study; "
            f"{np.mean([one[name] <= 0.2 for one in broken]):.1%} of studies within 20 %"
            for name, text in (
                ("width", "largest change of a width beside the study before they failed"),
                ("width_to_removed", "largest change of a width beside the study without them"),
                ("bound_to_removed", "largest move of a bound beside the study without them, in widths"),
            )
        },
    }
    print(_results.table(rows), *(f"{name}: {value}" for name, value in settings.items()), sep="\n")
    print(_results.write("coverage", "Do intervals of comparisons hold the truth?", "python benchmarks/coverage.py",
                         settings, rows, path))  # fmt: skip
    part.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
