"""The table of verdicts in the docs is that of the latest results."""

import json
from pathlib import Path

import pytest

from archlab.designs.finding import finding_names
from benchmarks import findings


def test_the_page_has_a_row_for_every_finding_as_the_latest_results_have_it():
    rows = {name: findings.not_run(name) for name in finding_names()} | findings.latest()
    assert list(rows) == finding_names()
    text = findings.PAGE.read_text(encoding="utf-8")
    assert findings.page_with(text, list(rows.values())) == text


def test_the_latest_results_are_read_and_a_page_takes_their_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(findings, "RESULTS", tmp_path)
    assert findings.latest() == {}
    row = findings.not_run("striped") | {"verdict": "supported"}
    (tmp_path / "findings-2026-01-02.json").write_text(json.dumps({"rows": [row]}))
    (tmp_path / "findings-2026-01-01.json").write_text(json.dumps({"rows": []}))
    assert findings.latest() == {"striped": row}
    page = findings.page_with(f"before\n{findings.BEGIN}old\n{findings.END}after\n", [row])
    assert "supported" in page
    assert "old" not in page
    assert page.startswith("before\n")
    assert page.endswith("after\n")
