"""A page as a list of panels: one entry is one panel, from the navigation to the charts and the table below them."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Generic, NamedTuple, TypeVar

Found = TypeVar("Found")
"""The values that a page shows, for example :class:`archlab.mad.scores.Scores`."""
Spec = dict[str, Any]
"""A chart, as a Vega-Lite specification."""


MAX_OPEN = 16
"""Rows up to which a table is open."""


class Table(NamedTuple):
    """A table under the charts of a panel. An architecture's label in the first two columns gets the architecture's symbol."""

    heads: Sequence[str | tuple[str, str]]
    """Texts, or a text and a small one beneath it; so are cells."""
    rows: Sequence[Sequence[str | tuple[str, str]]]
    note: str = ""
    columns: str = ""
    """A letter for each column, ``l`` for text, ``t`` for text that wraps, ``r`` for numbers; by default ``lrr...``."""
    fold: str = ""
    """Text to click on for a table that is folded; a long one is folded anyway."""

    @property
    def folded(self) -> str:
        """The text to click on; empty for a table that is open."""
        return self.fold or (f"Table of {len(self.rows)} rows" if len(self.rows) > MAX_OPEN else "")

    def aligned(self, column: int) -> str:
        """The CSS class of a column."""
        return {"l": "short", "t": "text", "r": "n"}[(self.columns or "l" + "r" * len(self.heads))[column]]


@dataclass(frozen=True)
class Panel(Generic[Found]):
    """A heading, a note, charts and a table; left out where there is neither a chart nor a table."""

    section: str
    """Name in the page's navigation. Panels in a row with the same name share one section."""
    title: Callable[[Found], str] | str
    note: Callable[[Found], str] | str
    draw: Callable[[Found], Mapping[str, Spec | None]] = lambda _: {}
    """Charts by caption; those that are None are left out."""
    table: Callable[[Found], Table | None] = lambda _: None
    legend: bool = False
    """Whether the charts need the legend of the architectures."""
    colours: Callable[[Found], Mapping[str, str]] = lambda _: {}
    """Colours of the charts beside those of the architectures, by what they stand for."""


class Chart(NamedTuple):
    """A chart at its position on the page."""

    id: str
    caption: str
    spec: Spec

    @property
    def heading(self) -> tuple[str, str]:
        """The caption, and its end that may be grey: knobs in parentheses, or what follows a colon."""
        found = re.fullmatch(r"([\w+-]+)\((.*)\)|(.*?): (.*)", self.caption)
        return (found[1] or found[3], found[2] or found[4]) if found else (self.caption, "")


class DrawnPanel(NamedTuple):
    """A panel as the template writes it."""

    title: str
    note: str
    charts: list[Chart]
    table: Table | None
    legend: bool
    colours: Mapping[str, str]


class Section(NamedTuple):
    """Panels under one name of the navigation."""

    id: str
    name: str
    panels: list[DrawnPanel]

    @property
    def specs(self) -> dict[str, Spec]:
        """The charts by their ids, described for screen readers by title, caption and what the chart says of itself."""
        charts = [(panel.title, chart) for panel in self.panels for chart in panel.charts]
        named = [(f"{title}: {chart.caption}" if chart.caption else title, chart) for title, chart in charts]
        return {
            chart.id: chart.spec | {"description": ". ".join(filter(None, (name, chart.spec.get("description"))))}
            for name, chart in named
        }


def draw_sections(panels: Sequence[Panel[Found]], found: Found) -> list[Section]:
    """The panels that have something to show, by section and in their order."""
    sections = []
    for name, group in groupby(panels, key=lambda panel: panel.section):
        section = Section(name.lower().replace(" ", "-"), name, [])
        for panel in group:
            specs = {caption: spec for caption, spec in panel.draw(found).items() if spec is not None}
            table = panel.table(found)
            if specs or table:
                number = sum(len(drawn.charts) for drawn in section.panels)
                charts = [Chart(f"{section.id}-{number + i}", caption, spec) for i, (caption, spec) in enumerate(specs.items())]
                title, note = (text if isinstance(text, str) else text(found) for text in (panel.title, panel.note))
                section.panels.append(DrawnPanel(title, note, charts, table, panel.legend, panel.colours(found)))
        if section.panels:
            sections.append(section)
    return sections
