"""archlab design: from candidates to a decision."""

from typing import Annotated

import typer

from archlab.cli.options import Executor, Json, LayerFiles, TaskFiles, Workers


def design(
    specs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SPEC...]", help="Candidates: catalogue names or specs, those to be tried first in front."),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE", help="Further candidates: hybrids, mixers, stacks6 (`archlab spaces`), or a YAML file."
        ),
    ] = None,
    reference: Annotated[
        str, typer.Option(metavar="SPEC", help="The architecture that a candidate has to beat.")
    ] = "transformer++",
    protocol: Annotated[
        str, typer.Option(help="Protocol of the MAD scores: a name (`archlab protocols`), or a YAML file.")
    ] = "quick",
    ladder: Annotated[
        str, typer.Option(help="Ladder of the language models: smoke, quick, standard, paper, or a YAML file.")
    ] = "quick",
    hours: Annotated[float | None, typer.Option(help="Wall time of this call.", show_default="2")] = None,
    minutes: Annotated[float | None, typer.Option(help="The same in minutes.", show_default=False)] = None,
    folder: Annotated[str, typer.Option(metavar="FOLDER", help="Where study, plan, store and page are kept.")] = "design",
    files: LayerFiles = None,
    task_files: TaskFiles = None,
    executor: Executor = "local",
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Decide on an architecture: MAD scores, language models of the best, scaling laws, a comparison with a reference.

    All candidates are scored on the tasks of a protocol with one seed; the best, the reference and, of every three, one with
    a lower score are scored again with fresh seeds, and trained as language models on a ladder of budgets. The page
    `design/design.html` says which is better, by how much, how surely, what it costs, and what was not tried.

    The time is kept: what does not fit is left out and named. After Ctrl-C, or with more time, the same command goes on.

    For example: `archlab design --space hybrids --hours 2`, or `archlab design mamba "2*[gated-deltanet swiglu]" --hours 1`
    """
    import sys
    from pathlib import Path

    from rich.console import Console

    import archlab
    from archlab.cli.output import message, print_json, print_table
    from archlab.cli.signals import terminable
    from archlab.errors import ArchlabError
    from archlab.reports.decision_page import shortlist_table, write_decision
    from archlab.reports.live import LiveView
    from archlab.reports.scaling_tables import terminal_table

    if hours is not None and minutes is not None:
        raise ArchlabError("--hours and --minutes: give one of them")
    try:
        with terminable():
            found = archlab.design(
                specs or (),
                space=space,
                reference=reference,
                protocol=protocol,
                ladder=ladder,
                hours=minutes / 60 if minutes is not None else 2.0 if hours is None else hours,
                folder=folder,
                executor=executor,
                workers=workers,
                listeners=[LiveView(Console(stderr=True))],
            )
    except KeyboardInterrupt:
        message(f"what is done is in {folder}; the same command goes on")
        sys.exit(130)
    page = Path(folder) / "design.html"
    write_decision(found, page, store=str(Path(folder) / "archlab.db"))
    if as_json:
        print_json(found.to_dict())
    else:
        print_table(terminal_table(shortlist_table(found)))
        for line in (*found.not_tried, found.headline):
            message(line)
    message(f"wrote {page}")
