import dataclasses
import os
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import altair as alt
import pytest
import vl_convert
from tests.reports.browser import Browser
from tests.reports.charts_of_pages import specs_of
from tests.synthetic_records import plan, record, result, score, simulate

from archlab.architectures import Architecture
from archlab.architectures import architecture as read_architecture
from archlab.architectures.stored import UnavailableLayers
from archlab.errors import ArchlabError
from archlab.format import percent
from archlab.mad.protocol import load_protocol
from archlab.mad.scores import Scores
from archlab.mad.store import Record
from archlab.mad.trial import Costs, Trial
from archlab.reading import report
from archlab.reports import findings, html
from archlab.reports.charts import difficulty_axes, spec
from archlab.reports.html import PANELS, above_chance, render_report, repeated, unbroken
from archlab.reports.panels import Panel, Spec, Table, draw_sections
from archlab.reports.provenance import trial_rows
from archlab.reports.score_tables import settings_and_grid
from archlab.tasks import setting

CATALOGUE = ["transformer++", "hyena", "mamba", "2*[mlp swiglu]"]
TASKS = tuple(load_protocol("paper").tasks)
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
    assert "Partial, 7 of 8 settings complete (incomplete: compression); scores, marked *, are means" in page
    assert "1 trial diverged (the loss became NaN or infinite) and count as chance: hyena" in page
    assert "RuntimeError: &lt;out of memory&gt; &amp; more" in page
    assert "One seed" not in page
    one = plan(CATALOGUE[:2], SETTINGS[:1], seeds=(0,))
    found = findings.warnings(score(one, simulate(one, lambda _: 0.5)))
    assert len(found) == 1
    assert str(found[0]).startswith("One seed: the intervals cover test instances only.")


def test_what_many_architectures_lack_is_said_once() -> None:
    trials = plan(CATALOGUE[:4], SETTINGS[:2], seeds=(0, 1))
    found = findings.warnings(score(trials, simulate(trials[: len(trials) // 2], lambda _: 0.5)))
    assert len(found) == 1
    assert "complete ones (4): " in str(found[0])
    assert str(found[0]).endswith("; 1 more")


def test_mixed_versions_are_pointed_out() -> None:
    trials = plan(CATALOGUE[:1], SETTINGS[:1])
    records = simulate(trials, lambda _: 0.5)
    old = records[trials[0].key]
    records[trials[0].key] = dataclasses.replace(old, provenance=old.provenance | {"torch": "2.12.0"})
    assert any("2 different versions" in warning for warning in findings.warnings(score(trials, records)))


def test_it_says_what_was_found(page: str, scores: Scores) -> None:
    leader = scores.architectures[0]
    assert findings.ranking(scores).startswith(f"transformer++ leads with {percent(leader.score)}\N{NO-BREAK SPACE}% (")
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


def test_every_panel_is_on_the_page_with_valid_charts(page: str, scores: Scores) -> None:
    specs = specs_of(page)
    shown = [panel for panel in PANELS if panel.section not in ("Other tasks", "Levels")]  # the six tasks at one length and level
    for panel, section in zip(shown, draw_sections(PANELS, scores), strict=True):
        (drawn,) = section.panels
        assert section.name == panel.section
        assert f'<a href="#{section.id}">{section.name}</a>' in page
        assert f"<h2>{drawn.title}</h2>" in page
        assert f'<p class="note">{drawn.note}</p>' in page
        assert {chart.caption for chart in drawn.charts} == {name for name, spec in panel.draw(scores).items() if spec}
        for chart in drawn.charts:
            assert f'<div class="chart" id="{chart.id}"></div>' in page
            alt.LayerChart.from_dict(specs.pop(chart.id))  # validates
    assert specs == {}


def test_every_task_has_its_charts(scores: Scores) -> None:
    captions = {panel.section: list(panel.draw(scores)) for panel in PANELS}
    assert captions["Differences"] == ["MAD score (mean over tasks)", *scores.tasks]
    assert captions["Learning curves"] == [str(task.settings[0].setting) for task in scores.architectures[0].tasks]
    assert captions["Difficulty"] == ["in-context-recall: vocab_size"]
    assert len(captions["Cost"]) == 4


def seed_chart(scores: Scores) -> Spec:
    """Every seed's score on the first setting of the first task."""
    rows = [
        {"architecture": architecture.label, "seed": seed.seed, "score": seed.score}
        for architecture in scores.architectures
        for seed in architecture.tasks[0].settings[0].seeds
    ]
    points = alt.Chart(alt.InlineData(values=rows)).mark_point().encode(x="seed:O", y="score:Q", color="architecture:N")
    return spec(alt.layer(points), height=120)


SEEDS = Panel("Seeds", "Scores of single seeds", "Seeds across.", lambda scores: {scores.tasks[0]: seed_chart(scores)})
"""The worked example: a new panel is one entry in a list."""


def test_a_new_panel_is_one_entry(scores: Scores) -> None:
    page = render_report(scores, panels=[*PANELS, SEEDS])
    assert '<a href="#seeds">Seeds</a>' in page
    assert "<h2>Scores of single seeds</h2>" in page
    assert "<figcaption>in-context-recall</figcaption>" in page
    alt.LayerChart.from_dict(specs_of(page)["seeds-0"])


def test_panels_with_nothing_to_show_are_left_out_and_others_share_a_section(scores: Scores) -> None:
    empty = Panel[Scores]("Empty", "Nothing", "", lambda _: {"none": None})
    table = Panel[Scores](
        "Seeds", "A table", "", table=lambda _: Table(["architecture", "n"], [["mamba", ("1", "of 2")]], "Read it.")
    )
    (section,) = draw_sections([empty, SEEDS, table], scores)
    assert [panel.title for panel in section.panels] == ["Scores of single seeds", "A table"]
    page = render_report(scores, panels=[SEEDS, table])
    assert "<h3>A table</h3>" in page
    assert '<td class="n">1<small>of 2</small></td>' in page
    assert '<p class="note below">Read it.</p>' in page


def test_one_seed_has_no_probability_and_no_verdict() -> None:
    trials = plan(CATALOGUE[:2], SETTINGS[:2], seeds=(0,))
    one = render_report(score(trials, simulate(trials, _truth)))
    trials = plan(CATALOGUE[:2], SETTINGS[:2])
    three = render_report(score(trials, simulate(trials, _truth)))
    assert "probability of being better" in three
    for words in ("probability of being better", "separated"):
        assert words not in one.split("<script>")[0]
    (headline,) = re.findall("<h1>(.*?)</h1>", one)
    assert headline.endswith("one seed: order not established")


def test_chance_is_the_last_row_of_the_leaderboard(page: str, scores: Scores) -> None:
    (row,) = re.findall('<tr class="chance">(.*?)</tr>', page)
    assert re.findall('<td class="n">(.*?)</td>', row) == [percent(task.chance) for task in scores.architectures[0].tasks]


def without_layers(records: dict[str, Record], spec: str) -> dict[str, Record]:
    """The records as a store gives them when the layers of an architecture are gone, by the keys of their trials."""
    found = {}
    for stored in records.values():
        if stored.job.architecture.label == spec:
            trial = dataclasses.replace(stored.job, architecture=Architecture((UnavailableLayers("gone swiglu", "unknown"),)))
            stored = dataclasses.replace(stored, job=trial)
        found[stored.job.key] = stored
    return found


def test_scores_outlive_the_layers_that_gave_them() -> None:
    trials = plan(CATALOGUE[:3], [*SETTINGS, *KNOBS])
    with_layers = score(trials, simulate(trials, _truth))
    records = without_layers(simulate(trials, _truth), "hyena")
    scores = score([stored.job for stored in records.values()], records)
    assert [a.available for a in scores.architectures] == [True, False, True]
    assert [a.score for a in scores.architectures] == [a.score for a in with_layers.architectures]
    assert [a.interval for a in scores.architectures] == [a.interval for a in with_layers.architectures]
    assert scores.architectures[1].costs == Costs(num_params=None, state_size=None, flops=None)
    assert scores.spending.trials == with_layers.spending.trials
    assert 0 < scores.spending.flops < with_layers.spending.flops
    page = render_report(scores)
    assert "gone swiglu</span></span><small" in page
    assert page.count("layer not available") == 2
    assert '<td class="n">?</td>' in page


def test_costs_that_were_stored_outlive_the_layers_too() -> None:
    trials = plan(CATALOGUE[:2], SETTINGS[:1])
    records = {
        key: dataclasses.replace(stored, provenance=stored.provenance | {"costs": dataclasses.asdict(stored.job.costs)})
        for key, stored in simulate(trials, _truth).items()
    }
    before = score(trials, records)
    gone = without_layers(records, "hyena")
    after = score([stored.job for stored in gone.values()], gone)
    assert [a.costs for a in after.architectures] == [a.costs for a in before.architectures]


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
    assert "Partial, 0 of 2 settings complete (incomplete: recall and noisy)" in page


def test_one_architecture_is_compared_with_nothing() -> None:
    trials = plan(CATALOGUE[:1], SETTINGS[:2])
    page = render_report(score(trials, simulate(trials, lambda _: 0.5)))
    assert "best score on" not in page
    assert 'id="differences"' not in page
    assert 'id="cost"' not in page


def test_written_whole_or_not_at_all(scores: Scores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archlab.reports.html.render_report", lambda *_: "a page")
    target = tmp_path / "report.html"
    report(scores, target)
    assert target.read_text() == "a page"
    with pytest.raises(ArchlabError, match="is a directory"):
        report(scores, tmp_path)
    with pytest.raises(ArchlabError, match="there is no directory"):
        report(scores, tmp_path / "none" / "report.html")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ArchlabError, match="No space left on device"):
        report(scores, target)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert target.read_text() == "a page"


def test_cells_are_as_strong_as_they_are_above_chance(scores: Scores) -> None:
    best, worst = scores.architectures[0].tasks[0], scores.architectures[-1].tasks[0]
    assert 0 < above_chance(worst) < above_chance(best) < best.score
    trials = plan(CATALOGUE[:2], [setting("compression")])
    guessing = score(trials, simulate(trials, lambda trial: trial.setting.chance))
    assert above_chance(guessing.architectures[0].tasks[0]) == 0
    assert "heat guess" in render_report(guessing)
    assert "heat guess" not in render_report(score(trials, simulate(trials, lambda _: 0.9)))


def test_words_with_hyphens_stay_on_a_line_in_headings() -> None:
    assert unbroken("a mh-hyena & b") == 'a <span class="unbroken">mh-hyena</span> &amp; b'
    assert unbroken("mh-attention(heads=2,window=128)") == "mh-attention(heads=2,window=128)"


def test_the_page_names_the_command_that_asks_for_its_trials(scores: Scores) -> None:
    protocol = load_protocol("smoke").with_seeds([0, 1]).with_tasks(["compression", "recall"])
    trials = protocol.trials([read_architecture(spec) for spec in ("transformer++", "2*[mlp swiglu]")])
    found = score(trials, simulate(trials, lambda _: 0.5))
    command = "archlab run transformer++ '2*[mlp swiglu]' --protocol smoke --seeds 2 --tasks in-context-recall,compression"
    assert sorted(shlex.split(repeated(found, protocol))) == sorted(shlex.split(command))
    assert repeated(found, protocol.with_value("recipe.steps", 3)) == ""
    page = render_report(found, protocol.with_value("recipe.steps", 3))
    assert "are not those of the package" in page


def test_results_by_setting_and_grid_point_have_every_seed(scores: Scores) -> None:
    table = settings_and_grid(scores)
    assert table is not None
    assert len(table.rows) == len(CATALOGUE) * 8
    best = scores.architectures[0].tasks[0].settings[0]
    row = next(row for row in table.rows if row[:2] == [str(best.setting), scores.architectures[0].label])
    assert row[2][0] == percent(best.score)
    assert row[3] == " ".join(percent(seed.score) for seed in best.seeds)
    chosen = [cell[1] for cell in row[4:] if not isinstance(cell, str)]
    assert sum(int(text.split()[1].rstrip("×")) for text in chosen) == len(best.seeds)
    trials = plan(CATALOGUE[:2], SETTINGS[:1], seeds=(0,))
    assert settings_and_grid(score(trials, simulate(trials, _truth))) is None


@pytest.mark.parametrize(("width", "dark"), [(1400, False), (390, True)])
def test_charts_are_drawn_in_a_browser(page: str, browser: Browser, width: int, dark: bool) -> None:
    browser.open(page, width=width, dark=dark)
    assert browser.charts() == specs_of(page).keys()
    assert (browser.troubles(), browser.beside()) == ([], [])


def test_a_symbol_stays_beside_the_name_on_a_phone(page: str, browser: Browser) -> None:
    browser.open(page, width=390)
    tops = "[...document.querySelectorAll('.labelled')].map(x => [...x.children].map(y => y.getBoundingClientRect().top))"
    found = browser.evaluate(tops)
    assert len(found) > 4
    assert all(abs(symbol - name) < 12 for symbol, name in found)


def test_a_click_on_a_heading_sorts(page: str, browser: Browser, scores: Scores) -> None:
    browser.open(page)
    first_cells = "[...document.querySelectorAll('#leaderboard tbody th')].map(cell => cell.firstChild.textContent.trim())"
    button = "[...document.querySelectorAll('#leaderboard thead button')].find(one => one.textContent === 'compression')"
    orders = [browser.evaluate(first_cells)]
    for _ in range(3):
        browser.evaluate(f"{button}.click()")
        orders.append(browser.evaluate(first_cells))
    found = {a.label: next(task.score for task in a.tasks if task.task == "compression") for a in scores.architectures}
    best_first = sorted(found, key=lambda label: -(found[label] or 0))
    assert orders == [[*found, "chance"], [*best_first, "chance"], [*best_first[::-1], "chance"], [*found, "chance"]]


def test_a_click_on_an_architecture_highlights_it_until_escape(page: str, browser: Browser) -> None:
    browser.open(page)
    browser.evaluate("document.querySelector('#leaderboard [data-architecture=mamba]').click()")
    lit = browser.evaluate("[...document.querySelectorAll('.lit')].map(one => one.tagName)")
    assert {"TR", "LI"} <= set(lit)
    faded = "document.querySelectorAll('#cost-0 svg path[opacity=\"0.1\"]').length"
    assert browser.evaluate(f"new Promise(done => setTimeout(() => done({faded}), 100))") > 0
    browser.evaluate("dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}))")
    assert browser.evaluate(f"new Promise(done => setTimeout(() => done({faded}), 100))") == 0
    assert browser.evaluate("document.querySelectorAll('.lit').length") == 0
    assert browser.troubles() == []


def test_without_scripts_every_number_is_there(page: str, browser: Browser) -> None:
    browser.open(page, width=390, scripts=False)
    text = browser.call("Runtime.evaluate", expression="document.body.innerText")  # the protocol's own, not the page's
    assert "every number is in the tables" in text["result"]["value"]


def test_scripts_are_bundled_once_and_again_where_the_kept_bundle_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    bundled: list[str] = []
    made = vl_convert.javascript_bundle
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda *args, **kwargs: bundled.append("") or made(*args, **kwargs))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = html._javascript.__wrapped__()
    assert html._javascript.__wrapped__() == first
    assert len(bundled) == 1
    (kept,) = (tmp_path / "archlab").iterdir()
    kept.write_text(kept.read_text(encoding="utf-8").replace("vega", "vego", 1), encoding="utf-8")
    assert html._javascript.__wrapped__() == first
    assert len(bundled) == 2
    assert "</script" not in first
