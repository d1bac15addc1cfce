"""The page and the tables of a search."""

from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.reports.browser import Browser
from tests.searching.spaces import made_up

import archlab
from archlab.jobs.executor import EXECUTORS
from archlab.reports.search_page import PANELS, render_search, write_search
from archlab.reports.search_tables import MOST_ON_FRONT, closing_lines, front_so_far, search_tables, size_text
from archlab.searching.result import Search
from archlab.searching.search import Advance
from archlab.searching.space import Size


@pytest.fixture(scope="module")
def advances() -> list[Advance]:
    """What was told of the search on its way."""
    return []


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, advances: list[Advance]) -> Search:
    with pytest.MonkeyPatch.context() as context:
        context.setitem(EXECUTORS, "threads", "tests.jobs.thread_executor:ThreadExecutor")
        context.setattr("archlab.api.train_together", made_up)
        context.setattr("archlab.mad.memory.step_bytes", lambda *_, **__: 1 << 20)
        asked: dict[str, Any] = {"tasks": ["compression"], "evaluations": 14, "executor": "threads", "workers": 1, "seeds": 2}
        store = tmp_path_factory.mktemp("search") / "a.db"
        asked |= {"store": store, "listeners": [], "on_advance": advances.append}
        return archlab.search("stacks6", "smoke", objectives=["mad", "decode-memory"], **asked)


@pytest.fixture(scope="module")
def page(found: Search) -> str:
    return render_search(found)


def test_the_page_shows_every_candidate_and_the_winner_twice(found: Search, page: str):
    for one in found.candidates:
        assert one.spec in page
    assert page.count("<svg xmlns") == 1 + len(found.front), "the winner's stack, and the front as strips"
    assert found.command.replace("'", "&#39;") in page
    for panel in PANELS:
        assert f">{panel.section}</a>" in page


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1400, False)])
def test_the_charts_are_drawn(page: str, browser: Browser, width: int, dark: bool):
    browser.open(page, width=width, dark=dark)
    assert browser.charts() == {"front-0", "progress-0"}


def test_a_search_without_a_second_objective_or_intervals_over_seeds_has_a_page_too(found: Search):
    alone = replace(found, objectives={"mad": True}, seeds=(0,))
    page = render_search(alone)
    assert "The protocol has one seed" in page
    assert "mad against" not in page


def test_the_page_is_written_where_asked(found: Search, tmp_path: Path):
    write_search(found, tmp_path / "search.html")
    assert (tmp_path / "search.html").read_text().lstrip().startswith("<!doctype html>")


def test_tables_name_winner_front_and_choices(found: Search):
    console = Console(width=100, record=True, file=StringIO())
    for table in search_tables(found):
        console.print(table)
    text = console.export_text()
    assert "layer.1" in text
    assert "winner" in text
    for one in found.front:
        assert f"{one.number} " in text
    assert any(line == f"scale it up: {found.command}" for line in closing_lines(found))


def test_the_front_is_told_as_it_grows(found: Search, advances: list[Advance]):
    searched = [one for one in advances if "fresh" not in one.what]
    assert dict(searched[-1].front) == {one.spec: one.values for one in found.front}
    assert [one.evaluated for one in searched] == [4, 8, 12, 14] + [15] * (found.candidates[-1].origin == "consensus")
    console = Console(width=80, record=True, file=StringIO())
    console.print(front_so_far(searched[-1], 80))
    text = console.export_text()
    assert f"{searched[-1].what}: {searched[-1].evaluated} of" in text
    assert all(one.spec[:30] in text for one in found.front[:MOST_ON_FRONT])


def test_sizes_with_hundreds_of_digits_are_rounded():
    assert size_text(Size(64, True)) == "64 architectures"
    assert size_text(Size(5**999, False)) == "at most 1.9e+698 architectures"
