"""Tests findings at laptop size and writes their verdicts into benchmarks/results and docs/findings.md.

    python -m benchmarks.findings negative-eigenvalues striped --store findings.db --workers 1

Verdicts of findings that are not named stay as the latest results have them; without names nothing is trained, and the tables are
written again.
"""

import argparse
import json
from pathlib import Path

from benchmarks._results import RESULTS, Row, table, write

PAGE = Path(__file__).parent.parent / "docs" / "findings.md"
BEGIN, END = "<!-- written by benchmarks/findings.py -->\n", "<!-- end -->\n"
NOT_RUN = "not run"


def not_run(name: str) -> Row:
    return {"finding": name, "verdict": NOT_RUN, "measured": f"`archlab reproduce {name}`", "CPU hours": "–"}


def run(name: str, store: str, workers: int | None) -> Row:
    import archlab
    from archlab.reports.findings_table import claimed, with_interval

    found = archlab.reproduce(name, store=store, workers=workers)
    measured = [
        f"{one.name}: {with_interval(one)}, claimed {claimed(one)}" + (f" ({one.doubt})" if one.doubt else "")
        for one in found.quantities
    ]
    seeds = {len(one.by_seed) for one in found.quantities} - {0}
    work = f"{found.trials} trials, {found.training_runs} language models"
    return {
        "finding": name,
        "verdict": found.verdict,
        "measured": "; ".join(measured) + (f"; {max(seeds)} seeds" if seeds else "") + f"; {work}",
        "CPU hours": f"{found.cpu_seconds / 3600:.2f}",
    }


def latest() -> dict[str, Row]:
    """Rows of the latest results, by finding."""
    paths = sorted(RESULTS.glob("findings-*.json"))
    return {row["finding"]: row for row in json.loads(paths[-1].read_text(encoding="utf-8"))["rows"]} if paths else {}


def page_with(text: str, rows: list[Row]) -> str:
    """The page with these rows in its table."""
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    return f"{head}{BEGIN}{table(rows)}\n{END}{tail}"


def main() -> None:
    from archlab.designs.finding import finding_names

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("findings", nargs="*", help="to test; by default none")
    parser.add_argument("--store", default="findings.db")
    parser.add_argument("--workers", type=int)
    options = parser.parse_args()
    rows = {name: not_run(name) for name in finding_names()}
    rows |= {name: row for name, row in latest().items() if name in rows}
    for name in options.findings:
        rows[name] = run(name, options.store, options.workers)
        command = "python -m benchmarks.findings NAME... --store findings.db"
        write("findings", "Verdicts on findings, at laptop size", command, {"size": "laptop"}, list(rows.values()))
    PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), list(rows.values())), encoding="utf-8")


if __name__ == "__main__":
    main()
