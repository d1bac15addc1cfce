"""Tables of a search for the terminal and the page: spaces, front, the winner once more, importance."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from archlab.format import count, duration, human, percent, percent_interval, points, short_task
from archlab.mad.bootstrap import CONFIDENCE
from archlab.reports.tables import fitted_table, noted_table
from archlab.searching.costs import COSTS
from archlab.searching.result import Again, Candidate, Search
from archlab.searching.search import Advance
from archlab.searching.space import Size

MOST_IMPORTANT = 8
"""Choices that are listed with their importance."""
MOST_ON_FRONT = 6
"""Architectures of the front that the live view draws."""

_IN_FULL = 10**15
"""Sizes of spaces above it are rounded; some have hundreds of digits."""


def size_text(size: Size) -> str:
    """``64 architectures``, ``at most 10,000 architectures``, or ``at most 1.9e+698 architectures``."""
    if size.number > _IN_FULL:
        return f"at most {Decimal(size.number):.1e} architectures"
    return ("" if size.exact else "at most ") + count(size.number, "architecture")


def space_table(rows: Sequence[Mapping[str, Any]], note: str) -> Table:
    """Examples of a space with their costs."""
    table = noted_table(note)
    table.add_column("example", overflow="fold")
    for cost in COSTS:
        table.add_column(cost, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(Text(row["architecture"]), *(cost_text(cost, row[cost]) for cost in COSTS))
    return table


def cost_text(name: str, value: float | None) -> str:
    """A cost in a cell."""
    return "?" if value is None else f"{100 * value:.0f} %" if name == "attention" else f"{human(value)}"


def front_so_far(advance: Advance, width: int) -> RenderableType:
    """How much of a search is done, and its front of now: what stands above the run in the live view."""
    heads = _heads(dict(advance.front[0][1])) if advance.front else []
    table = fitted_table("front so far", heads, width)
    for spec, values in advance.front[:MOST_ON_FRONT]:
        cells = (cost_text(name, value) if name in COSTS else percent(value) for name, value in values.items())
        table.add_row(Text(spec), *cells)
    if len(advance.front) > MOST_ON_FRONT:
        table.add_row(f"and {len(advance.front) - MOST_ON_FRONT} more")
    bar = Padding(ProgressBar(total=advance.evaluations, completed=advance.evaluated, width=width), 0)
    left = "" if advance.seconds_left is None else f" · {duration(advance.seconds_left)} left"
    done = f"{advance.what}: {advance.evaluated} of {count(advance.evaluations, 'architecture')}{left}"
    return Group(bar, Text(done, style="bold"), table)


def objective_cells(one: Candidate, objectives: Mapping[str, bool]) -> list[str]:
    """The values of a candidate: scores in percent with their intervals, costs with a decimal prefix."""
    cells = []
    for name in objectives:
        value = one.values[name]
        if name in COSTS:
            cells.append(cost_text(name, value))
        else:
            interval = one.intervals[name]
            cells.append(percent(value) + (f" ({percent_interval(interval)})" if interval and value is not None else ""))
    return cells


def heads(found: Search) -> list[str]:
    """The heads of the objectives' columns."""
    return _heads(found.objectives)


def _heads(objectives: Iterable[str]) -> list[str]:
    return [name if name in COSTS or name == "mad" else short_task(name) for name in objectives]


def search_tables(found: Search) -> Iterator[Table]:
    """The front, the winner once more, and the importance of choices."""
    seeds = "test instances only, one seed" if len(found.seeds) == 1 else f"{len(found.seeds)} seeds and test instances"
    table = noted_table(
        f"front: none of {_counted(found)} is better in one column and no worse in the others. Scores in % under "
        f"{found.rungs[-1]}, with intervals of {CONFIDENCE:.0%} over {seeds}; costs at width {found.dim}, length {found.length}"
    )
    table.add_column("no.", justify="right")
    table.add_column("architecture", overflow="fold", min_width=12)
    for head in heads(found):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("from", overflow="fold")
    for one in found.front:
        style = "bold" if one.number == found.winner else ""
        table.add_row(str(one.number), Text(one.spec), *objective_cells(one, found.objectives), origin(one), style=style)
    yield table
    table = noted_table(
        f"{found.main} once more, from fresh seeds: the first score is too high on average, for being the best of "
        f"{_counted(found)} is how the winner was chosen"
    )
    for head in ("", "no.", "architecture", "first", "fresh seeds", "difference"):
        table.add_column(head, justify="left" if head in ("", "architecture") else "right", overflow="fold")
    for row in again_rows(found):
        table.add_row(*map(Text, row))
    yield table
    if found.importance:
        table = noted_table(
            f"part of the variance of {found.main} that each choice explains by itself, corrected for its number of alternatives"
        )
        for head in ("choice", "explained", "of", "best"):
            table.add_column(head, justify="left" if head in ("choice", "best") else "right", overflow="fold")
        for one_choice in found.importance[:MOST_IMPORTANT]:
            cells = (one_choice.choice, f"{100 * one_choice.explained:.0f} %", str(one_choice.evaluated), one_choice.best)
            table.add_row(*map(Text, cells))
        yield table


def again_rows(found: Search) -> list[list[str]]:
    """Rows of the winner and the consensus: role, number, architecture, first score, fresh score, difference."""
    return [[one.role, str(one.number), found.candidates[one.number].spec, *_first_and_fresh(one)] for one in found.again]


def _first_and_fresh(one: Again) -> list[str]:
    first = f"{percent(one.first)} ({percent_interval(one.first_interval)})"
    fresh = f"{percent(one.fresh)} ({percent_interval(one.fresh_interval)})"
    return [first, fresh, "–" if one.first is None or one.fresh is None else points(one.fresh - one.first)]


def origin(one: Candidate) -> str:
    """How a candidate came about: ``mutation of 3``."""
    return one.origin + (f" of {' and '.join(map(str, one.parents))}" if one.parents else "")


def closing_lines(found: Search) -> list[str]:
    """Sentences after the tables: consensus, lineage, the pattern at other depths, the command that scales it up."""
    lines = [f"space {found.space}: {size_text(found.size)}, {len(found.candidates)} of them evaluated, by {found.proposer}"]
    if found.consensus is not None:
        same = " and the winner" if found.consensus == found.winner else ""
        lines.append(
            f"consensus of the best, layer by layer: no. {found.consensus}{same}, {found.candidates[found.consensus].spec}"
        )
    if ancestors := found.lineage(found.winner):
        lines.append(f"the winner descends from no. {', '.join(map(str, ancestors))}")
    lines += [f"{how} to {len(value.layers)} layers: {value}" for how, value in found.deeper.items()]
    lines.append(f"scale it up: {found.command}")
    return lines


def _counted(found: Search) -> str:
    last = sum(one.rung == found.rungs[-1] for one in found.candidates)
    return count(last, "architecture")
