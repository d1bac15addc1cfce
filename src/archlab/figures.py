"""Figures as Altair charts, for notebooks and papers: ``figures.leaderboard(scores).save("scores.svg")``.

They are the charts of the pages, in black on white with a legend.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archlab.errors import ArchlabError, unknown
from archlab.fields import checked
from archlab.mad.scores import Scores
from archlab.reports import charts, scaling_charts
from archlab.reports.panels import Spec
from archlab.scaling.study_fit import StudyFit
from archlab.tasks.registry import find_task

if TYPE_CHECKING:
    import altair as alt

__all__ = ["cost", "differences", "frontier", "isoflop", "leaderboard", "learning_curves", "save"]


def __dir__() -> list[str]:
    return __all__


@checked
def leaderboard(scores: Scores) -> alt.LayerChart:
    """Every score, tasks across and architectures down."""
    return _figure(charts.heat_map(scores))


@checked
def differences(scores: Scores, task: str | None = None) -> alt.LayerChart:
    """Each architecture against the best, on one task or by default in the MAD score; needs two architectures."""
    return _figure(charts.difference_panel(scores, charts.difference_rows(scores), task and find_task(task).name))


@checked
def learning_curves(scores: Scores, task: str) -> alt.LayerChart:
    """Score over training steps at the first setting of a task: the mean over seeds, and every seed."""
    return _figure(charts.learning_panel(scores, find_task(task).name))


@checked
def cost(scores: Scores, cost: charts.Cost = "num_params") -> alt.LayerChart:
    """MAD score over a cost; needs two architectures whose cost is known."""
    return _figure(charts.cost_panel(scores, cost))


@checked
def isoflop(fit: StudyFit, architecture: str) -> alt.LayerChart:
    """Loss over parameters at each budget, with the minima, of the architecture with this label."""
    laws = {one.runs.label: one for one in fit.laws}
    if architecture not in laws:
        raise unknown("architecture of the study:", architecture, laws)
    return _figure(scaling_charts.isoflop_panel(fit, laws[architecture]))


@checked
def frontier(fit: StudyFit) -> alt.LayerChart:
    """The least loss of a budget: minima, and the parametric law."""
    return _figure(scaling_charts.frontier_panel(fit, "loss"))


@checked
def save(scores: Scores, folder: str | os.PathLike[str]) -> list[Path]:
    """Write every figure of scores as SVG and as PDF into a folder; returns the files. Figures that lack data are left out.

    Raises:
        ArchlabError: the folder cannot be written.
    """
    drawn: dict[str, Callable[[], alt.LayerChart]] = {
        "leaderboard": lambda: leaderboard(scores),
        "differences": lambda: differences(scores),
        "cost": lambda: cost(scores),
        **{f"learning-{task}": partial(learning_curves, scores, task) for task in scores.tasks},
    }
    written: list[Path] = []
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, draw in drawn.items():
            with suppress(_NothingToDrawError):
                figure = draw()
                for form in ("svg", "pdf"):
                    written.append(Path(folder) / f"{name}.{form}")
                    figure.save(written[-1])
    except OSError as error:
        raise ArchlabError(f"figures {os.fspath(folder)}: cannot be written: {error.strerror}") from None
    return written


class _NothingToDrawError(ArchlabError):
    """A figure lacks data."""


def _figure(spec: Spec | None) -> alt.LayerChart:
    import altair as alt

    if spec is None:
        raise _NothingToDrawError("nothing to draw: too few architectures have results for this figure")
    whole = json.dumps(spec | {"width": 320, "config": charts.CONFIG | {"background": "white"}}).replace("currentColor", "black")
    return alt.LayerChart.from_dict(json.loads(whole, object_hook=_with_legend))


def _with_legend(part: dict[str, Any]) -> dict[str, Any]:
    """Let a channel of the architectures or budgets have its legend, which the pages draw themselves."""
    return {
        name: value for name, value in part.items() if name != "legend" or part.get("field") not in ("architecture", "budget")
    }
