"""Do training runs of others and runs of known laws give what is known, through import, fit, compare, predict and report?

    python benchmarks/imported_runs.py --data PATH

PATH holds, each optional, the folders that `fit_validation.py` takes: ``kyo-takano``, ``porian`` and ``gadre``. What is expected
stands beside what was found. Without published data only a table of two known laws is imported, with noise that falls as C^-1.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import _results
from archlab import scaling
from archlab.scaling.imports import import_runs
from archlab.scaling.study_fit import StudyFit
from coverage import LAWS, study
from fit_validation import Check


def imported(table: Path, folder: Path, columns: dict[str, str], **options: Any) -> StudyFit:
    """The fits of a table that went through a store, whose report was written and read back."""
    store = folder / f"{table.stem}.db"
    import_runs(table, store, columns)
    fitted = scaling.fit(store, **{"resamples": 0} | options)
    back = scaling.read_runs(scaling.report(fitted, folder / f"{table.stem}.html"))
    assert len(back.to_frame()) == len(fitted.study.to_frame())
    return fitted


def kyo_takano(path: Path, folder: Path) -> Iterator[Check]:
    fitted = imported(path / "df.csv", folder, {})
    law = fitted.laws[0].by_method["huber"].fit
    for name, value in {"E": 1.78389, "A": 442.16, "B": 1271.81, "alpha": 0.342626, "beta": 0.342002}.items():
        yield Check(f"Chinchilla points, fit, huber: {name}", value, getattr(law, name), 1e-3, relative=True)
    yield Check("Chinchilla points, fit: lines of warnings (at most 6)", 3, len(fitted.warnings), 3)


def porian(path: Path, folder: Path) -> Iterator[Check]:
    names = ["file", "row"]
    fitted = imported(path / "porian_isoflop_points.csv", folder, {"architecture": "+".join(names)})
    published = pd.read_csv(path / "our_vs_published_exponents.csv")
    found = {laws.runs.label: laws.by_method["isoflop"].fit.size_law.exponent for laws in fitted.laws}
    for row in published.itertuples():
        label = f"{row.file} {row.row}"
        yield Check(f"Porian, fit, isoflop: {label}", row.published_a, found[label], 0.03)


def gadre(path: Path, folder: Path) -> Iterator[Check]:
    runs = pd.read_csv(path / "gadre_runs.csv")
    runs = runs[runs.ds == "rpj"]
    small = runs[((runs.M == 20) & (runs.N < 5e8)) | ((runs.M == 320) & (runs.N < 2e7))]
    small.to_csv(folder / "gadre_small.csv", index=False)
    law = imported(folder / "gadre_small.csv", folder, {"loss": "loss_c4_val", "architecture": "ds"}).over_training["rpj"].fit
    for name, error in (("rpj-open_lm_1b-32.0", 0.7103), ("rpj-open_lm_7b-1.0", 0.7320)):
        run = runs[runs.name == name].iloc[0]
        found = 100 * abs(float(law(C=run.C, M=run.M)) / run.loss_c4_val - 1)
        yield Check(f"Gadre, fit, over-training: error on {name} from five small runs, %", error, found, 0.005)


def known(folder: Path) -> Iterator[Check]:
    """Two architectures by laws of `coverage.py`: losses, difference and multiplier at ten times the largest budget."""
    tables, _ = study("C^-1", 0)
    frames = [
        pd.DataFrame({"arch": label, "params": table.N, "tokens": table.D, "loss": table.loss}) for label, table in tables.items()
    ]
    table = folder / "known.csv"
    pd.concat(frames[:2]).to_csv(table, index=False)
    imported(table, folder, {})
    flops = np.array([8e20])
    first, second = LAWS[:2]
    truth = float((second.least(flops) - first.least(flops))[0])
    (row,) = (row for row in scaling.compare(folder / "known.db", reference="a", flops=[8e20]).rows if row.budget == 8e20)
    yield within("known laws, compare at 10 x: loss difference", truth, row.difference)
    yield within(
        "known laws, compare at 10 x: multiplier", float((second.reaching(first.least(flops)) / flops)[0]), row.multiplier
    )
    predicted = scaling.predict(folder / "known.db", flops=8e20, resamples=200)
    for one in predicted.rows:
        if one.method == "huber":
            law = LAWS["ab".index(one.architecture)]
            yield within(f"known laws, predict {one.architecture} at 10 x: loss", float(law.least(flops)[0]), one.optimum.loss)
            yield within(f"known laws, predict {one.architecture} at 10 x: size", float(law.size(flops)[0]), one.optimum.size)


def within(target: str, truth: float, found: Any) -> Check:
    """A number whose interval should hold the truth: its tolerance is the distance of the bound on that side."""
    bound = found.low if truth < found.value else found.high
    return Check(target, truth, found.value, math.inf if bound is None else abs(bound - found.value))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="PATH", help="folder of published data; without it, known laws alone")
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write; default: benchmarks/results, by date")
    args = parser.parse_args()
    rows, seconds = [], {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        parts: dict[str, Iterator[Check]] = {"known": known(folder)}
        for name, part in (("kyo-takano", kyo_takano), ("gadre", gadre), ("porian", porian)):
            if args.data is not None and (args.data / name).is_dir():
                parts[name] = part(args.data / name, folder)
        for name, checks in parts.items():
            started = time.process_time()
            rows += [check.row for check in checks]
            seconds[f"processor seconds, {name}"] = round(time.process_time() - started, 1)
            print(_results.table(rows), flush=True)
    command = f"python benchmarks/imported_runs.py{' --data PATH' if args.data else ''}"
    print(_results.write("imported-runs", "Do imported runs give what is known?", command, seconds, rows, args.json))


if __name__ == "__main__":
    main()
