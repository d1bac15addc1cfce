"""The report of a scaling study: one HTML file that needs nothing but itself, and its training runs as CSV beside it."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from archlab.errors import ArchlabError
from archlab.fields import checked
from archlab.files import check_place, is_stream, write_whole
from archlab.format import count, csv_text
from archlab.reports import scaling_charts as charts
from archlab.reports import scaling_tables as tables
from archlab.reports.html import render_page, write_page
from archlab.reports.panels import Panel, Spec, draw_sections
from archlab.reports.provenance import environments, mixed_versions
from archlab.scaling.fits import StateFit
from archlab.scaling.laws import Laws
from archlab.scaling.study import StudyRun, TrainedModel
from archlab.scaling.study_fit import StudyFit

_HEAD = b"key,architecture,"
"""The beginning of every table of training runs that a report writes."""


@checked
def report(result: StudyFit, path: str | os.PathLike[str]) -> Path:
    """Write the page to ``path``, and the training runs to a CSV file of the same name; each whole or not at all.

    Returns:
        The path of the CSV file.

    Raises:
        ArchlabError: nothing can be written there, the page has the name of the table, or a table of somebody else has.
    """
    page = Path(path)
    table = csv_beside(page)
    write_page(page, lambda: render(result))
    write_whole(table, csv_text(result.study.to_frame()), "table")
    return table


def csv_beside(path: str | os.PathLike[str]) -> Path:
    """Return the CSV file of a page; refuses a path where no page can be written, and a file there that no report has written,
    before there is anything to write."""
    page = Path(path)
    check_place(page)
    if is_stream(page):
        raise ArchlabError(f"report {page}: the runs go to the .csv file of the page's name: give a name such as scaling.html")
    table = page.with_suffix(".csv")
    check_place(table, "table")
    if table.is_file():
        with table.open("rb") as present:
            if present.read(len(_HEAD)) not in (_HEAD, b""):
                raise ArchlabError(
                    f"report {page}: the runs go to {table}, which is a file of another kind and is left as it is: give another "
                    "name"
                )
    return table


def _state_note(fit: StudyFit) -> str:
    law = f"{tables.state_text(fit.state)}. " if isinstance(fit.state, StateFit) else ""
    own = _trained(_models(fit))
    return (
        f"{law}State: scalars carried from token to token at length {own[0].run.length}."
        if own
        else "Imported runs have no state."
    )


def _each(draw: Callable[[StudyFit, Laws], Spec | None]) -> Callable[[StudyFit], dict[str, Spec | None]]:
    """A chart for each architecture."""
    return lambda fit: {laws.runs.label: draw(fit, laws) for laws in fit.laws}


PANELS: list[Panel[StudyFit]] = [
    Panel(
        "Comparison",
        "Comparison at equal compute",
        lambda fit: (
            "Each architecture beside the reference, by laws with a floor at the best size of each budget: points at trained "
            "budgets, lines dashed beyond the runs. Bands and bars are intervals by joint resamples; what runs of equal budget, "
            "size index and seed share of their errors cancels. A band that reaches the edge of its chart may go on. "
            + "".join(f"{line}. " for line in (() if fit.comparison is None else tables.crossing_lines(fit.comparison)))
        ),
        charts.comparison_panels,
        table=lambda fit: tables.comparison_table(fit.comparison),
        legend=True,
    ),
    Panel(
        "IsoFLOP curves",
        "Loss over parameters at equal compute",
        "Loss of every training run over its parameters. Curves are parabolas in log N around the best size, diamonds their "
        "minima; a group without one is not bracketed by its sizes.",
        _each(charts.isoflop_panel),
        colours=charts.budget_colours,
    ),
    Panel(
        "Frontiers",
        "Compute-optimal loss, size and tokens",
        "Points: minima of the IsoFLOP curves. Lines: for the loss the parametric law (Huber), for size and tokens the power law "
        "through the minima, or with fewer than two the next law of the table below; dashed beyond the largest budget.",
        lambda fit: {
            "least loss": charts.frontier_panel(fit, "loss"),
            "optimal size": charts.frontier_panel(fit, "size"),
            "optimal tokens": charts.frontier_panel(fit, "tokens"),
        },
        legend=True,
    ),
    Panel(
        "Laws", "The laws, by four methods", "Compute-optimal parameters N* and tokens D* over FLOPs C.", table=tables.laws_table
    ),
    Panel(
        "Laws",
        "The parametric law over parameters and tokens",
        "Thin lines: sizes and tokens of equal loss, in nats a token. Points: the training runs. Thick line: the compute-optimal "
        "size and tokens, dashed beyond the largest budget.",
        _each(charts.contour_panel),
        colours=charts.budget_colours,
    ),
    Panel(
        "Attention",
        "The best fraction of attention",
        "Architectures of the same layers that differ in their fraction of attention.",
        table=lambda fit: tables.sweep_table(fit.sweeps),
    ),
    Panel(
        "Other sizes",
        "Other sizes than the best",
        "Loss above the minimum of a budget over the size relative to the best one N*, by the parabolas of all budgets; thick at "
        "the largest one, with its training runs, and the intervals at a half and a quarter of N*.",
        lambda fit: {"": charts.off_optimal_panel(fit)},
        table=tables.off_optimal_table,
        legend=True,
    ),
    Panel(
        "Other sizes",
        "Over-training laws",
        "Loss over compute and tokens a parameter (arXiv 2403.08540).",
        table=tables.over_training_table,
    ),
    Panel(
        "Loss curves",
        "Loss during training",
        "Training loss of every run over the FLOPs that it has spent.",
        _each(charts.curve_panel),
        colours=charts.budget_colours,
    ),
    Panel(
        "Residuals",
        "Residuals of the parametric law",
        "Observed over predicted loss, in percent off. A pattern over size or budget means that the law does not fit.",
        _each(charts.residual_panel),
        colours=charts.budget_colours,
    ),
    Panel(
        "State",
        "Perplexity over state at the optimum",
        _state_note,
        lambda fit: {"": charts.state_panel(fit)},
        legend=True,
    ),
]
"""The panels of the page, in order: a new panel is one entry."""


def render(fit: StudyFit, panels: Sequence[Panel[StudyFit]] = PANELS) -> str:
    """Return the text of the page."""
    models = _models(fit)
    own, rows = _trained(models), [model.row() for model in models]
    labels = [laws.runs.label for laws in fit.laws]
    budgets, seeds = ({row[name] for row in rows} for name in ("budget", "seed"))
    first, resampling = own[0].trial if own else None, fit.resampling
    bootstrap = f"Bootstrap: {resampling.resamples:,} resamples, seed {resampling.seed}."
    parts = (
        "Scaling laws",
        count(len(labels), "architecture"),
        count(len(budgets), "budget"),
        count(len(models), "training run"),
        f"corpus {first.run.corpus}" if first else "imported runs",
    )
    return render_page(
        "scaling.html.jinja",
        draw_sections(panels, fit),
        labels,
        title=f"Scaling laws · {', '.join(labels)}",
        summary=" · ".join(parts),
        headline=fit.headline,
        lead=_lead(fit, max(budgets)),
        warnings=[
            *fit.warnings,
            *(["one seed: differences between architectures may be those of the seed"] if len(seeds) == 1 else []),
            *mixed_versions(model.provenance for model in own),
        ],
        bootstrap=bootstrap if resampling.method == "bootstrap" else "",
        environments=environments(model.provenance for model in own),
        first=first,
        recipe=vars(first.recipe) if first else {},
        devices=sorted({model.trial.device for model in own}),
        seeds=sorted(seeds),
        runs=rows,
        statuses=Counter(row["status"] for row in rows),
    )


def _lead(fit: StudyFit, largest: float) -> str:
    counted = "count embeddings" if fit.study.parameters == "all" else "do not count embedding and unembedding"
    seeds = len({model.row()["seed"] for model in _models(fit)})
    drawn = "seeds of each size" if seeds > 1 else "training runs of each budget"
    method = "a jackknife over the training runs" if fit.resampling.method == "jackknife" else f"a bootstrap over the {drawn}"
    sentences = [
        "Losses are nats a token on the validation split.",
        f"Parameters {counted}.",
        f"Intervals are {100 * fit.resampling.confidence:.0f}\N{NO-BREAK SPACE}% intervals: of laws by {method}, of comparisons "
        "by joint resamples of their errors, of other numbers at single budgets by the scatter about their parabolas.",
        "They tell how far these runs determine a law, not whether it holds beyond them.",
    ]
    if largest < 1e15:
        sentences.append("Budgets as small as these show the method; nothing follows for models of practical size.")
    return " ".join(sentences)


def _models(fit: StudyFit) -> list[StudyRun]:
    """List all training runs with a result, diverged ones included."""
    return [model for laws in fit.laws for model in (*laws.runs.models, *laws.runs.censored)]


def _trained(models: Sequence[StudyRun]) -> list[TrainedModel]:
    return [model for model in models if isinstance(model, TrainedModel)]
