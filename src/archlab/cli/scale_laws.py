"""archlab scale fit, compare, predict and report: the laws of a study."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from archlab.cli.options import DEFAULT_STORE, Json, LayerFiles, Store
from archlab.cli.scale import Tuned, numbers

if TYPE_CHECKING:
    from archlab.scaling.study import Study

IntervalMethod = Annotated[
    Literal["bootstrap", "jackknife"],
    typer.Option("--intervals", help="Intervals of laws: from resampled training runs, or leaving out one at a time."),
]
Resamples = Annotated[int, typer.Option(help="Resamples of the bootstrap; 0 for no intervals.")]
Confidence = Annotated[float, typer.Option(help="Confidence level of the intervals, as in 0.95.")]
NonEmbedding = Annotated[bool, typer.Option("--non-embedding", help="Count parameters without embedding and unembedding.")]
Window = Annotated[
    float,
    typer.Option(metavar="FACTOR", help="Parabolas go through sizes within this factor of the best of a budget; inf for all."),
]

Asymmetric = Annotated[
    bool,
    typer.Option("--asymmetric", help="Also the law by absolute errors, predictions above the loss weighted ten times."),
]


def fit(
    store: Store = DEFAULT_STORE,
    files: LayerFiles = None,
    intervals: IntervalMethod = "bootstrap",
    resamples: Resamples = 300,
    confidence: Confidence = 0.95,
    non_embedding: NonEmbedding = False,
    window: Window = 6.0,
    asymmetric: Asymmetric = False,
    tuned: Tuned = None,
    as_json: Json = False,
) -> None:
    """Fit scaling laws to the language models of a store, and compare their architectures.

    Each architecture by four methods side by side: the minima of its IsoFLOP groups (a group whose best size is its
    smallest or largest is refused), the parametric law by Huber loss, the same by least squares, and the lower envelope of
    the training curves. With intervals, the error on the largest budget held out, and a warning where the methods disagree.

    For example: `archlab scale fit --store scaling.db`
    """
    from archlab import scaling
    from archlab.cli.output import message, print_json, print_table
    from archlab.reports import scaling_tables as tables
    from archlab.scaling.fits import StateFit
    from archlab.scaling.tuning import read_tuning

    with _opened(store, non_embedding, asymmetric) as (study, advance):
        tuning = None if tuned is None else read_tuning(tuned, study.learning_rate)
        result = scaling.fit(
            study,
            intervals=intervals,
            resamples=resamples,
            confidence=confidence,
            window=window,
            asymmetric=asymmetric,
            on_method=advance,
        )
    if as_json:
        print_json(result.to_dict() | ({} if tuning is None else {"tuning": tuning.to_dict()}))
        return
    if result.comparison is not None:
        print_table(tables.comparison_on_terminal(result.comparison))
    for warning in result.warnings:
        message(str(warning))
    for laws in result.laws:
        print_table(tables.laws_on_terminal(laws))
    others = (tables.over_training_table(result), tables.off_optimal_table(result))
    sensitivity = None if tuning is None else tables.tuning_table(tuning)
    for table in (*others, tables.sweep_table(result.sweeps), sensitivity):
        if table is not None:
            print_table(tables.terminal_table(table))
    if isinstance(result.state, StateFit):
        message(tables.state_text(result.state))


def compare(
    reference: Annotated[
        str | None,
        typer.Option(metavar="ARCH", help="Compare with this architecture; by default with the best at the largest budget."),
    ] = None,
    flops: Annotated[
        str | None, typer.Option(metavar="C,C,...", help="Budgets beside those that were trained, as in `1e20,1e21`.")
    ] = None,
    store: Store = DEFAULT_STORE,
    files: LayerFiles = None,
    resamples: Resamples = 300,
    confidence: Confidence = 0.95,
    non_embedding: NonEmbedding = False,
    as_json: Json = False,
) -> None:
    """Compare architectures at equal compute: which is better, by how much, and how surely.

    At every trained budget, and at those of --flops: the loss of each architecture minus that of the reference, and the compute
    that it needs for the reference's loss, over the budget. Both follow from laws with a floor, at the best size of each budget;
    intervals from joint resamples of the laws. If two architectures cross near the budgets, it says where.

    For example: `archlab scale compare --reference transformer++ --flops 1e21 --store scaling.db`
    """
    from archlab import scaling
    from archlab.cli.output import message, print_json, print_table
    from archlab.reports.scaling_tables import comparison_on_terminal

    found = scaling.compare(
        store,
        reference=reference,
        flops=() if flops is None else numbers("--flops", flops),
        resamples=resamples,
        confidence=confidence,
        parameters="non-embedding" if non_embedding else "all",
    )
    if as_json:
        print_json(found.to_dict())
        return
    print_table(comparison_on_terminal(found))
    for note in found.notes:
        message(str(note))


def predict(
    flops: Annotated[float | None, typer.Option(metavar="C", help="The budget to spend, as in 1e21.")] = None,
    loss: Annotated[float | None, typer.Option(metavar="L", help="The loss to reach, in nats a token.")] = None,
    store: Store = DEFAULT_STORE,
    files: LayerFiles = None,
    intervals: IntervalMethod = "bootstrap",
    resamples: Resamples = 300,
    confidence: Confidence = 0.95,
    non_embedding: NonEmbedding = False,
    window: Window = 6.0,
    asymmetric: Asymmetric = False,
    as_json: Json = False,
) -> None:
    """Predict the best model of a budget, or the budget that reaches a loss: size, tokens, loss, and how far beyond the data.

    For example: `archlab scale predict --flops 1e21`
    """
    from archlab import scaling
    from archlab.cli.output import message, print_json, print_table
    from archlab.errors import ArchlabError
    from archlab.reports.scaling_tables import predictions_on_terminal

    if (flops is None) == (loss is None):
        raise ArchlabError("give --flops (as in --flops 1e21) or --loss (as in --loss 2.0), one of them")
    with _opened(store, non_embedding, asymmetric) as (study, advance):
        how: dict[str, Any] = {"intervals": intervals, "resamples": resamples, "confidence": confidence}
        how |= {"window": window, "asymmetric": asymmetric}
        predictions = scaling.predict(study, flops=flops, loss=loss, **how, on_method=advance)
    for warning in predictions.warnings:
        message(str(warning))
    if as_json:
        print_json(predictions.to_dict())
    else:
        print_table(predictions_on_terminal(predictions))


def report(
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="The HTML file to write.")] = "scaling.html",
    store: Store = DEFAULT_STORE,
    files: LayerFiles = None,
    intervals: IntervalMethod = "bootstrap",
    resamples: Resamples = 300,
    confidence: Confidence = 0.95,
    non_embedding: NonEmbedding = False,
    window: Window = 6.0,
    asymmetric: Asymmetric = False,
) -> None:
    """Write the report of a study: one HTML file that works offline, and its training runs as CSV beside it.

    IsoFLOP curves with their minima, the frontier of the loss, optimal sizes and tokens, residuals, the error on the
    largest budget held out, comparisons, and the origin of every number.
    """
    from archlab import scaling
    from archlab.cli.output import message
    from archlab.reports.scaling_page import csv_beside

    csv_beside(output)  # a wrong path is refused before anything is fitted
    with _opened(store, non_embedding, asymmetric) as (study, advance):
        result = scaling.fit(
            study,
            intervals=intervals,
            resamples=resamples,
            confidence=confidence,
            window=window,
            asymmetric=asymmetric,
            on_method=advance,
        )
    table = scaling.report(result, output)
    message(f"wrote {output} and {table}")


@contextmanager
def _opened(store: str, non_embedding: bool, asymmetric: bool) -> "Iterator[tuple[Study, Callable[[], None]]]":
    """The study of a store, and a function to call after each method of each architecture: it moves a bar on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from archlab.scaling.laws import METHODS
    from archlab.scaling.study import open_study

    study = open_study(store, "non-embedding" if non_embedding else "all")
    columns = (TextColumn("fitting"), BarColumn(), MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn())
    console = Console(stderr=True)
    if not console.is_terminal:  # rich 14.0 ends even a bar that is not shown with an empty line
        yield study, lambda: None
        return
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(study.tables) * (len(METHODS) + asymmetric))
        yield study, lambda: progress.advance(task)
