import dataclasses
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import altair as alt
import pytest
from tests.synthetic_records import plan, record, result, simulate

from archlab.errors import ArchlabError
from archlab.format import percent
from archlab.mad.protocol import load_protocol
from archlab.mad.scores import TASKS, Scores
from archlab.mad.scoring import score
from archlab.mad.trial import Trial
from archlab.reports import findings
from archlab.reports.charts import difficulty_axes
from archlab.reports.html import render_report, write_report
from archlab.reports.provenance import trial_rows
from archlab.tasks import setting

CATALOGUE = ["transformer++", "hyena", "mamba", "2*[mlp swiglu]"]
SETTINGS = [setting(task) for task in TASKS]
KNOBS = [setting("in-context-recall", vocab_size=32), setting("in-context-recall", vocab_size=64)]


def _truth(trial: Trial) -> float:
    return 0.9 - 0.15 * CATALOGUE.index(trial.architecture.label) - 0.002 * (trial.setting.vocab_size % 100)


@pytest.fixture(scope="module")
def scores() -> Scores:
    trials = plan(CATALOGUE, [*SETTINGS, *KNOBS], learning_rates=(1e-3, 2e-3))
    records = simulate(trials, _truth)
    failed = next(t for t in trials if t.architecture.label == "mamba" and t.setting.name == "compression" and t.seed == 0)
    records[failed.key] = record(failed, None, status="failed", error="RuntimeError: <out of memory> & more")
    diverged = next(t for t in trials if t.architecture.label == "hyena" and t.setting.name == "compression" and t.seed == 0)
    chance = result(diverged, [1] * 15, answers=15, status="diverged", curve=[(100, 0.1)])
    records[diverged.key] = record(diverged, chance)
    return score(trials, records)


@pytest.fixture(scope="module")
def page(scores: Scores) -> str:
    return render_report(scores, load_protocol("paper"))


class _Page(HTMLParser):
    """Tables of the page as text, and every address in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.cells: list[str] = []
        self._open = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action") and value]
        self._open = tag in ("td", "th") or (self._open and tag in ("small", "abbr", "span", "svg", "path", "i", "b"))
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self._open:
            self.cells[-1] += data.strip()


def test_every_number_is_in_a_table(page: str, scores: Scores) -> None:
    cells = _Page(page).cells
    for architecture in scores.architectures:
        for task in architecture.tasks:
            written = percent(task.score) + ("" if task.complete else "*")
            assert any(cell.startswith(written) for cell in cells)
    keys = {key for key in cells if re.fullmatch("[0-9a-f]{12}", key)}
    assert keys == {record.key[:12] for record in scores.records}


def test_it_warns(page: str, scores: Scores) -> None:
    assert "mamba is partial: 7 of 8 settings complete (incomplete: compress)" in page
    assert "hyena: 1 trial diverged" in page
    assert "RuntimeError: &lt;out of memory&gt; &amp; more" in page
    assert "One seed" not in page
    one = plan(CATALOGUE[:2], SETTINGS[:1], seeds=(0,))
    found = findings.warnings(score(one, simulate(one, lambda _: 0.5)))
    assert len(found) == 1
    assert found[0].startswith("One seed: the intervals cover test instances only.")


def test_mixed_versions_are_pointed_out() -> None:
    trials = plan(CATALOGUE[:1], SETTINGS[:1])
    records = simulate(trials, lambda _: 0.5)
    old = records[trials[0].key]
    records[trials[0].key] = dataclasses.replace(old, provenance=old.provenance | {"torch": "2.12.0"})
    assert any("2 different versions" in warning for warning in findings.warnings(score(trials, records)))


def test_it_says_what_was_found(page: str, scores: Scores) -> None:
    leader = scores.architectures[0]
    assert findings.ranking(scores).startswith(f"transformer++ leads with {percent(leader.score)} % (")
    assert findings.ranking(scores) in page
    assert findings.best_of_tasks(scores) == "transformer++ has the best score on 6 of 6 tasks"
    assert findings.separation(scores) == "transformer++ is separated from every other architecture"
    level = plan(CATALOGUE[:2], SETTINGS[:1])
    found = score(level, simulate(level, lambda _: 0.5))
    assert "is not separated from" in findings.ranking(found)
    assert "cannot be told apart from" in findings.separation(found)


def test_it_needs_nothing_but_itself(page: str) -> None:
    assert all(address.startswith("#") for address in _Page(page).addresses)
    assert "default-src 'none'" in page
    assert len(page.encode()) < 3_000_000


def test_specs_are_valid_vega_lite(page: str) -> None:
    specs = json.loads(re.search(r'id="specs">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    assert {name.split("-")[0] for name in specs} == {"heat", "differences", "difficulty", "learning", "cost"}
    assert len(specs) == 1 + 7 + 1 + 6 + 3
    for spec in specs.values():
        alt.LayerChart.from_dict(spec)  # validates


def test_difficulty_axes_start_from_the_base() -> None:
    copying = [setting("selective-copying", num_tokens_to_copy=n) for n in (32, 16, 64)]
    longer = setting("selective-copying", length=512)
    found = dict(difficulty_axes([copying[0], longer, *copying[1:]]))
    assert [x.knobs()["num_tokens_to_copy"] for x in found["num_tokens_to_copy"]] == [16, 32, 64]
    assert [x.knobs()["length"] for x in found["length"]] == [256, 512]
    assert set(found) == {"num_tokens_to_copy", "length"}


def test_long_lists_of_trials_keep_what_counts(scores: Scores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archlab.reports.provenance.MAX_TRIALS", 10)
    rows, left_out = trial_rows(scores)
    assert len(rows) + left_out == len(scores.records)
    assert all(row["chosen"] or row["status"] != "finished" for row in rows)
    assert {"failed", "diverged"} <= {row["status"] for row in rows}


def test_nothing_scored_yet_still_reads() -> None:
    trials = plan(CATALOGUE[:2], SETTINGS[:2])
    page = render_report(score(trials, {}))
    assert "No architecture has a score yet" in page
    assert "transformer++ is partial: 0 of 2 settings complete" in page


def test_one_architecture_is_compared_with_nothing() -> None:
    trials = plan(CATALOGUE[:1], SETTINGS[:2])
    page = render_report(score(trials, simulate(trials, lambda _: 0.5)))
    assert "best score on" not in page
    assert 'id="differences"' not in page
    assert 'id="cost"' not in page


def test_written_whole_or_not_at_all(scores: Scores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archlab.reports.html.render_report", lambda *_: "a page")
    target = tmp_path / "report.html"
    write_report(scores, target)
    assert target.read_text() == "a page"
    with pytest.raises(ArchlabError, match="is a directory"):
        write_report(scores, tmp_path)
    with pytest.raises(ArchlabError, match="there is no directory"):
        write_report(scores, tmp_path / "none" / "report.html")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ArchlabError, match="No space left on device"):
        write_report(scores, target)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert target.read_text() == "a page"


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_charts_are_drawn_in_a_browser(page: str, tmp_path: Path, scheme: str) -> None:
    """Every panel becomes an SVG, without an error and without a request for anything else."""
    probe = """<script>
        addEventListener("error", event => document.body.dataset.error = event.message);
        const names = () => performance.getEntriesByType("resource").map(resource => resource.name).join(" ");
        setInterval(() => document.body.dataset.requests = names(), 50);
    </script></body>"""
    # Without the policy: it would hide a request by refusing it.
    open_page = re.sub(r"<meta http-equiv=.*?>\n", "", page)
    open_page = open_page.removesuffix("\n").removesuffix("</body>\n</html>") + probe
    assert "Content-Security-Policy" not in open_page
    path = tmp_path / "report.html"
    path.write_text(open_page, encoding="utf-8")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--virtual-time-budget=10000",
        "--enable-logging=stderr",
        "--window-size=1280,900",
    ]
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    done = subprocess.run(
        ["chromium", *flags, *dark, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    drawn = re.findall(
        r'<div class="chart vega-embed[^"]*" id="([a-z]+-\d+)"[^>]*>.*?<svg[^>]*class="marks"', done.stdout, re.DOTALL
    )
    assert len(set(drawn)) == 18
    assert "could not be drawn" not in done.stdout.split("<script>")[0]
    assert "CONSOLE" not in done.stderr
    body = re.search(r"<body[^>]*>", done.stdout)
    assert body is not None
    assert 'data-requests=""' in body[0]
    assert "data-error" not in body[0]
