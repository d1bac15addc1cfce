"""Validates the fits of scaling laws: published fits on published data, and known laws in simulated data.

    python benchmarks/fit_validation.py --data PATH

PATH holds, each optional: ``kyo-takano/df.csv`` (runs read off the Chinchilla paper's figure), ``porian/`` (IsoFLOP points and
optima of arXiv 2406.19146) and ``gadre/gadre_runs.csv`` (arXiv 2403.08540). Without it only simulated data are fitted: exact
laws, training curves, and noisy laws to count how often intervals hold the truth. ``--parts speed`` runs one part alone.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

import _results
from archlab.errors import ArchlabError
from archlab.scaling.analysis.comparison import compare_study
from archlab.scaling.fits import (
    Resampling,
    bootstrap,
    fit_envelope,
    fit_isoflop,
    fit_over_training,
    fit_parametric,
    fit_power_law,
)
from archlab.scaling.study import RunTable

E, A, B = 1.69, 406.4, 410.7
PARTS = ["published", "made-up", "envelope", "speed", "coverage"]


@dataclass(frozen=True)
class Check:
    """One number that is known."""

    target: str
    expected: float
    obtained: float
    tolerance: float
    relative: bool = False

    @property
    def row(self) -> dict[str, str | float]:
        error = abs(self.obtained - self.expected) / (abs(self.expected) if self.relative else 1)
        return {
            "target": self.target,
            "expected": f"{self.expected:.6g}",
            "obtained": f"{self.obtained:.6g}",
            "tolerance": f"{self.tolerance:.1g} of it" if self.relative else f"{self.tolerance:g}",
            "within": "yes" if error <= self.tolerance * (1 + 1e-9) else "NO",
        }


def chinchilla(path: Path) -> Iterator[Check]:
    runs = pd.read_csv(path / "kyo-takano" / "df.csv")
    expected = {
        "huber": {"E": 1.78389, "A": 442.16, "B": 1271.81, "alpha": 0.342626, "beta": 0.342002},
        "asymmetric": {"E": 1.7004, "A": 185.37, "B": 1626.9, "alpha": 0.28923, "beta": 0.35560},
    }
    for method, values in expected.items():
        fit = fit_parametric(N=runs.N, D=runs.D, loss=runs.loss, method=method)
        for name, value in values.items():
            yield Check(f"Chinchilla points, {method}: {name}", value, getattr(fit, name), 1e-3, relative=True)
    ours, published = (_asymmetric_error(runs, law) for law in (vars(fit), values))
    yield Check("Chinchilla points, asymmetric: error of the published law over ours", 1.0, published / ours, 1e-3)


def _asymmetric_error(runs: pd.DataFrame, law: dict[str, float]) -> float:
    """What the asymmetric fit minimises: absolute errors, ten times those of losses that are predicted too high."""
    excess = law["E"] + law["A"] / runs.N ** law["alpha"] + law["B"] / runs.D ** law["beta"] - runs.loss
    return float(np.where(excess > 0, 10 * excess, -excess).sum())


def porian(path: Path) -> Iterator[Check]:
    for file, exponent in zip(
        sorted((path / "porian").glob("optimal_pairs_*.csv")), (0.8353, 0.7065, 0.6020, 0.5715, 0.4969), strict=True
    ):
        optima = pd.read_csv(file).dropna()
        law = fit_power_law(x=optima.flops, y=optima.n, sigma=optima.n_star_std)
        yield Check(f"Porian, weighted optima: {file.stem.removeprefix('optimal_pairs_')}", exponent, law.exponent, 1e-4)
    published = pd.read_csv(path / "porian" / "our_vs_published_exponents.csv").set_index(["file", "row"]).published_a
    points = pd.read_csv(path / "porian" / "porian_isoflop_points.csv").dropna()
    for study, runs in points.groupby(["file", "row"]):
        fit = fit_isoflop(C=runs.flops, N=runs.n, loss=runs.loss, D=runs.tokens)
        yield Check(f"Porian, raw points: {study[0]} {study[1]}", published[study], fit.size_law.exponent, 0.03)


def gadre(path: Path) -> Iterator[Check]:
    runs = pd.read_csv(path / "gadre" / "gadre_runs.csv")
    runs = runs[runs.ds == "rpj"]
    small = runs[((runs.M == 20) & (runs.N < 5e8)) | ((runs.M == 320) & (runs.N < 2e7))]
    law = fit_over_training(C=small.C, M=small.M, loss=small.loss_c4_val)
    for name, error in (("rpj-open_lm_1b-32.0", 0.7103), ("rpj-open_lm_7b-1.0", 0.7320)):
        run = runs[runs.name == name].iloc[0]
        found = 100 * abs(float(law(C=run.C, M=run.M)) / run.loss_c4_val - 1)
        yield Check(f"Gadre, error on {name} from five small runs, %", error, found, 0.005)


def study(alpha: float, beta: float, budgets: int = 5, sizes: int = 15, reach: float = 16) -> tuple[np.ndarray, ...]:
    """FLOPs, sizes, tokens and losses of runs within so many times the optimal size of each budget."""
    share = beta / (alpha + beta)
    factor = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
    flops = np.repeat(np.geomspace(1e17, 1e21, budgets), sizes)
    size = factor * (flops / 6) ** share * np.tile(np.geomspace(1 / reach, reach, sizes), budgets)
    tokens = flops / 6 / size
    return flops, size, tokens, E + A * size**-alpha + B * tokens**-beta


def made_up() -> Iterator[Check]:
    for alpha, beta, intercept in ((0.34, 0.28, -0.578092), (0.465, 0.155, -1.459957)):
        flops, size, tokens, loss = study(alpha, beta)
        law = fit_isoflop(C=flops, N=size, loss=loss, window=np.inf).tokens_law
        where = f"alpha {alpha}, beta {beta}"
        yield Check(f"{where}: exponent of D*, wide IsoFLOP grid", alpha / (alpha + beta), law.exponent, 1e-6)
        yield Check(f"{where}: its biased intercept", intercept, float(np.log10(law.coefficient)), 1e-6)
        for method in ("huber", "variable-projection"):
            fit = fit_parametric(N=size, D=tokens, loss=loss, method=method)
            truth = {"E": E, "A": A, "B": B, "alpha": alpha, "beta": beta}
            yield from (Check(f"{where}, {method}: {k}", v, getattr(fit, k), 1e-6, relative=True) for k, v in truth.items())


def envelope(ladders: int = 200) -> Iterator[Check]:
    """Approach 1 on random ladders of random laws: the error of the exponent of N*, root mean square.

    Noise is in nats, of a point and of a whole run; the learning rate adds to the loss what decays linearly to the end.
    """
    cases = {
        "exact": (0.0, 0.0, 0.0, 0.005),
        "noise 0.005 a point": (0.005, 0.0, 0.0, 0.02),
        "noise 0.003 a run, learning rate up to 0.1": (0.0, 0.003, 0.1, 0.05),
    }
    for case, (of_point, of_run, of_rate, tolerance) in cases.items():
        rng = np.random.default_rng(0)
        found = [_envelope_error(rng, of_point, of_run, of_rate) for _ in range(ladders)]
        errors = [error for error in found if error is not None]
        target = f"envelope, {case}: error of the exponent of N*, {len(errors)} of {ladders} ladders fitted"
        yield Check(target, 0.0, float(np.sqrt(np.mean(np.square(errors)))), tolerance)


def _envelope_error(rng: np.random.Generator, of_point: float, of_run: float, of_rate: float) -> float | None:
    """None where no size lies between others at any compute."""
    alpha, beta = rng.uniform(0.25, 0.5), rng.uniform(0.2, 0.45)
    exponent, factor = beta / (alpha + beta), (alpha * A / (beta * B)) ** (1 / (alpha + beta))
    sizes, spread, off = rng.integers(4, 10), rng.uniform(1.5, 3), np.exp(rng.uniform(-0.5, 0.5))
    share, columns = np.arange(1, 51) / 50, []
    for budget in 1e18 * np.cumprod([1, *rng.uniform(2, 3, rng.integers(1, 5))]):
        for size in off * factor * (budget / 6) ** exponent * spread ** (np.arange(sizes) - (sizes - 1) / 2):
            tokens = share * budget / 6 / size
            loss = E + A * size**-alpha + B * tokens**-beta + of_rate * (1 - share)
            loss += of_point * rng.normal(size=50) + of_run * rng.normal()
            columns.append([np.full(50, len(columns)), share * budget, np.full(50, size), tokens, loss, np.full(50, budget)])
    run, flops, size, tokens, loss, budget = np.concatenate(columns, axis=1)
    try:
        fit = fit_envelope(curve=run.tolist(), C=flops, N=size, loss=loss, D=tokens, group=budget.tolist())
    except ArchlabError:
        return None
    return fit.size_law.exponent - exponent


def coverage(simulations: int, resamples: int) -> Iterator[Check]:
    """How often bootstrap intervals hold the truth, on 240 runs with noise of 0.5 % on the loss."""
    _, size, tokens, loss = study(0.34, 0.28, budgets=8, sizes=30)
    truth = {"E": E, "alpha": 0.34, "beta": 0.28, "exponent of N*": 0.28 / 0.62}
    held: dict[float, list[np.ndarray]] = {0.8: [], 0.95: []}
    for simulation in range(simulations):
        rng = np.random.default_rng(simulation)
        noisy = loss * np.exp(rng.normal(scale=0.005, size=len(loss)))
        start = fit_parametric(N=size, D=tokens, loss=noisy)

        def numbers(N: np.ndarray, D: np.ndarray, loss: np.ndarray, start=start) -> list[float]:  # noqa: N803
            fit = fit_parametric(N=N, D=D, loss=loss, start=start)
            return [fit.E, fit.alpha, fit.beta, fit.beta / (fit.alpha + fit.beta)]

        for confidence, hits in held.items():
            found = bootstrap(numbers, size, tokens, noisy, resamples=resamples, confidence=confidence, seed=simulation)
            values = np.array(list(truth.values()))
            hits.append((found.low <= values) & (values <= found.high))
    for (confidence, hits), tolerance in zip(held.items(), (0.05, 0.03), strict=True):
        shares = np.mean(hits, axis=0)
        yield from (
            Check(f"{confidence:.0%} intervals hold {name}, {simulations} simulations", confidence, share, tolerance)
            for name, share in zip(truth, shares, strict=True)
        )


def differences(simulations: int) -> Iterator[Check]:
    """How often intervals of the difference between two architectures hold the truth, on ladders as small as the quick one."""
    truth = 0.05
    for sizes, seeds, noise, shared in (
        (5, 1, 0.01, 0.0),
        (5, 1, 0.03, 0.0),
        (5, 1, 0.01, 0.8),
        (5, 3, 0.01, 0.0),
        (7, 1, 0.01, 0.0),
    ):
        flops, size, tokens, loss = (np.repeat(column, seeds) for column in study(0.34, 0.28, budgets=3, sizes=sizes, reach=3))
        size_index, seed = np.tile(np.repeat(np.arange(sizes), seeds), 3), np.tile(np.arange(seeds), 3 * sizes)
        held = []
        for simulation in range(simulations):
            common, *own = noise * np.random.default_rng(simulation).normal(size=(3, len(loss)))
            losses = [loss + np.sqrt(shared) * common + np.sqrt(1 - shared) * error for error in own]
            better, worse = (
                RunTable(label, flops, size_index, seed, flops, size, tokens, observed, size, models=(), censored=())
                for label, observed in (("better", losses[0]), ("worse", losses[1] + truth))
            )
            found = compare_study({"better": better, "worse": worse}, Resampling(), reference="better")
            held += [c.difference.low <= truth <= c.difference.high for c in found.rows]
        where = f"{sizes} sizes, {seeds} seed{'s' * (seeds > 1)}, noise {noise:g} of which {shared:.0%} shared"
        yield Check(f"95% intervals hold a difference: {where}, {len(held)} budgets", 0.95, float(np.mean(held)), 0.03)


def speed() -> Iterator[Check]:
    _, size, tokens, loss = study(0.34, 0.28, budgets=8, sizes=30)
    noisy = loss * np.exp(np.random.default_rng(0).normal(scale=0.005, size=len(loss)))
    started = time.perf_counter()
    start = fit_parametric(N=size, D=tokens, loss=noisy)
    yield Check("seconds for a fit of 240 runs from its grid of starts (at most 2)", 1, time.perf_counter() - started, 1)
    started = time.perf_counter()
    bootstrap(lambda n, d, loss: fit_parametric(N=n, D=d, loss=loss, start=start).E, size, tokens, noisy, resamples=1000)
    yield Check("seconds for 1,000 resamples of it (at most 60)", 30, time.perf_counter() - started, 30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="PATH", help="folder of published data; without it, made-up laws alone")
    parser.add_argument("--simulations", type=int, default=200, help="noisy studies for the coverage (default: 200)")
    parser.add_argument("--resamples", type=int, default=200, help="resamples an interval (default: 200)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to check (default: all)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write; default: benchmarks/results, by date")
    args = parser.parse_args()
    if args.data is None and "published" in args.parts:
        if args.parts is not PARTS:
            parser.error("--parts published: give --data PATH")
        args.parts = PARTS[1:]
    checks = {
        "published": lambda: chain(chinchilla(args.data), porian(args.data), gadre(args.data)),
        "made-up": made_up,
        "envelope": envelope,
        "speed": speed,
        "coverage": lambda: chain(coverage(args.simulations, args.resamples), differences(args.simulations)),
    }
    rows = []
    for part in args.parts:
        for check in checks[part]():
            rows.append(check.row)
            print(_results.table([check.row]).splitlines()[-1], flush=True)
    print(_results.table(rows))
    options = [*(["--data PATH"] if args.data else []), f"--simulations {args.simulations} --resamples {args.resamples}"]
    command = f"python benchmarks/fit_validation.py {' '.join(options)} --parts {' '.join(args.parts)}"
    settings = {"simulations": args.simulations, "resamples": args.resamples}
    print(_results.write("fit-validation", "Do the fits find what is known?", command, settings, rows, args.json))


if __name__ == "__main__":
    main()
