"""Compares two results of one benchmark, row by row.

    python benchmarks/compare.py benchmarks/results/training-speed-2-threads-2026-11-23.json NEW.json

Prints the ratio of every number that both have, new over old. Metrics are numbers whose name tells which direction is better:
times (ms, s, seconds) and FLOPs spent are better when lower; speeds and ratios (/s, times faster, times less) when higher. Other
numbers are left out. The exit status is 1 if a metric is worse by more than the threshold, 2 if the files cannot be compared.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _results

HIGHER = re.compile(r"/s$|times (faster|less|fewer)|GFLOP/s|fraction|of peak")
LOWER = re.compile(r"(^|[ ,])(ms|s|seconds)$|^FLOPs$|^MiB$")


class IncomparableError(Exception):
    """The two results are not of one benchmark, or cannot be read."""


def read(path: Path) -> dict[str, Any]:
    """A result as :func:`_results.write` left it."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if {"name", "machine", "rows"} <= document.keys():
            return dict(document)
    except (OSError, ValueError, AttributeError) as error:
        raise IncomparableError(f"{path}: cannot be read: {error}") from None
    raise IncomparableError(f"{path}: is not a benchmark's result: name, machine or rows are missing")


def direction(metric: str) -> int:
    """1 if higher is better, -1 if lower is, 0 if the name does not tell."""
    return 1 if HIGHER.search(metric) else -1 if LOWER.search(metric) else 0


def identity(row: dict[str, Any]) -> tuple[str, ...]:
    """What tells a row from the others: its texts."""
    return tuple(value for value in row.values() if isinstance(value, str) and not re.search(r"\d[.e]\d|\d to \d", value))


def compare(old: dict[str, Any], new: dict[str, Any]) -> Iterator[tuple[str, str, float, float, float]]:
    """Row, metric, old value, new value, and by which factor it is worse (below 1: better).

    Raises:
        IncomparableError: the benchmarks differ, or share no number.
    """
    if old["name"] != new["name"]:
        raise IncomparableError(f"{old['name']} and {new['name']} are different benchmarks")
    before = {identity(row): row for row in old["rows"]}
    found = [
        (" ".join(identity(row)), metric, float(before[identity(row)][metric]), float(value))
        for row in new["rows"]
        if identity(row) in before
        for metric, value in row.items()
        if direction(metric) and isinstance(value, int | float) and isinstance(before[identity(row)].get(metric), int | float)
    ]
    if not found:
        raise IncomparableError(f"the two results of {old['name']} share no row with a number in it")
    for row, metric, was, now in found:
        worse = (was / now if direction(metric) > 0 else now / was) if was and now else float("nan")
        yield row, metric, was, now, worse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--threshold", type=float, default=0.2, help="regressions beyond this are marked (default: 0.2)")
    args = parser.parse_args()
    try:
        old, new = read(args.old), read(args.new)
        rows = [
            {
                "row": row,
                "metric": metric,
                "old": was,
                "new": now,
                "new / old": f"{now / was:.2f}" if was else "-",
                "": "WORSE" if worse > 1 + args.threshold else "better" if worse < 1 / (1 + args.threshold) else "",
            }
            for row, metric, was, now, worse in compare(old, new)
        ]
    except IncomparableError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    for fact in ("processor", "cores", "torch"):
        if old["machine"].get(fact) != new["machine"].get(fact):
            print(f"note: {fact} differs: {old['machine'].get(fact)} and {new['machine'].get(fact)}", file=sys.stderr)
    print(_results.table(rows))
    sys.exit(any(row[""] == "WORSE" for row in rows))


if __name__ == "__main__":
    main()
