"""archlab correlate and check-table: MAD scores beside losses, and published tables of scores."""

from pathlib import Path
from typing import Annotated

import typer

from archlab.cli.options import Json, LayerFiles, TaskFiles
from archlab.cli.scores import RunName


def correlate(
    store: Annotated[
        str | None,
        typer.Option(
            "--store", metavar="PATH|URL", help="MAD scores: the store of `archlab run`. By default the published ones."
        ),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(
            "--study",
            metavar="PATH|URL",
            help="Losses: the store of `archlab scale run` or `import`. By default the published ones.",
        ),
    ] = None,
    published: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Published tables: mad, mesanet, lin-attn-bench, or (losses only) kimi-linear, physics-lm4, "
            "hybrid-linear-attention.",
        ),
    ] = None,
    size: Annotated[str | None, typer.Option(help="Only published models of this size, as in `1B`.")] = None,
    tokens: Annotated[str | None, typer.Option(help="Only published models trained on so many tokens, as in `50B`.")] = None,
    metric: Annotated[str | None, typer.Option(help="Only this published metric, by its name in the table.")] = None,
    match: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LOSSES=SCORES",
            help="An architecture's name beside the losses, and its name beside the scores; repeatable. Names that differ "
            "only in case and punctuation match by themselves.",
        ),
    ] = None,
    run: RunName = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Write a page too: one HTML file, with every point.")
    ] = None,
    files: LayerFiles = None,
    task_files: TaskFiles = None,
    as_json: Json = False,
) -> None:
    """Correlate MAD scores with losses, by architecture.

    For the mean and for each task: Kendall's tau-b (positive where the better score goes with the better outcome) with an
    interval over architectures and noise, Spearman and Pearson of the raw columns, pairs of architectures ordered
    right, p after Holm's correction over the tasks, and tau with the most influential architecture left out.

    For example: `archlab correlate --published mesanet --size 1B --tokens 50B`, or `archlab correlate --store archlab.db --study
    scaling.db -o correlation.html`
    """
    import archlab
    from archlab.cli.output import message, print_json, print_table
    from archlab.files import check_place
    from archlab.reports.correlation_page import correlation_tables, write_correlation
    from archlab.scaling.warnings import grouped

    if output is not None:
        check_place(Path(output))
    found = archlab.correlate(
        store, study, published=published, run=run, size=size, tokens=tokens, metric=metric, names=_names(match or [])
    )
    if as_json:
        print_json(found.to_dict())
    else:
        for table in correlation_tables(found):
            print_table(table)
        for line in (*found.notes, found.headline):
            message(line)
        for group in grouped(("on one side only", name) for name in found.unmatched):
            message(str(group))
    if output is not None:
        write_correlation(found, output)
        message(f"wrote {output}")


def check_table(
    table: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="CSV, TSV or a Markdown table: architectures down, tasks across, perhaps their mean."
        ),
    ],
    as_json: Json = False,
) -> None:
    """Find what cannot be in a table of MAD scores; status 1 if there is something.

    Means that do not match their columns (and what they would match), columns that look exchanged, values below chance or
    beyond 100, rows and columns that are there twice.

    For example: `archlab check-table table9.csv`
    """
    from dataclasses import asdict

    from archlab.cli.output import message, print_json
    from archlab.designs.check_table import check_table

    found = check_table(table)
    if as_json:
        print_json([asdict(one) for one in found])
    for one in [] if as_json else found:
        typer.echo(one.text)
    if found:
        raise typer.Exit(1)
    message(f"{table}: nothing that cannot be")


def _names(pairs: list[str]) -> dict[str, str]:
    from archlab.errors import ArchlabError

    names = {}
    for pair in pairs:
        losses, equals, scores = pair.partition("=")
        if not (losses.strip() and equals and scores.strip()):
            raise ArchlabError(f"--match {pair}: write LOSSES=SCORES, as in --match xLSTM=mlstm")
        names[losses.strip()] = scores.strip()
    return names
