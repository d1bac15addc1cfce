"""archlab search and spaces: from a space to the architectures of its front."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archlab.cli.options import (
    DEFAULT_STORE,
    Executor,
    Json,
    LayerFiles,
    Seeds,
    Store,
    TaskFiles,
    Tasks,
    Workers,
)
from archlab.cli.run import Device, Race

if TYPE_CHECKING:
    from archlab.searching.search import Advance

SpaceName = Annotated[
    str, typer.Option(metavar="NAME|FILE", help="hybrids, mixers, stacks6 (see `archlab spaces`), or a YAML file.")
]
ProtocolName = Annotated[
    str | None, typer.Option(help="smoke, quick, standard, paper, mad-lab, or the path of a YAML file.", show_default="quick")
]


def search(
    space: SpaceName,
    proposer: Annotated[
        str,
        typer.Option(
            help="Way in which the next are chosen: guided (of many children of the best the most promising, by a regression), "
            "nsga2 (children of the best by mutation and crossover), tpe (a model of good choices; needs archlab[search]), "
            "random, or exhaustive (all)."
        ),
    ] = "guided",
    objectives: Annotated[
        str,
        typer.Option(
            metavar="A,B,...",
            help="Scores to be made high: mad (the mean), or tasks. Costs to be kept low: params, state, flops, decode-memory "
            "(bytes at 64k tokens). Several give a front; the first score decides on the winner.",
        ),
    ] = "mad,state",
    evaluations: Annotated[
        int | None, typer.Option(min=1, help="Number of architectures.", show_default="24, or all with exhaustive")
    ] = None,
    protocol: ProtocolName = None,
    rungs: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Cheaper protocols that all go through first, such as smoke.")
    ] = None,
    promote: Annotated[
        float, typer.Option(min=0.001, max=1.0, help="Fraction that goes on to the next rung, the best by non-dominated rank.")
    ] = 0.5,
    suite: Annotated[str | None, typer.Option(help="Which tasks of the protocol.", show_default="mad")] = None,
    tasks: Tasks = None,
    seeds: Seeds = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the proposer: the same seed proposes the same again.")] = 0,
    batch: Annotated[
        int, typer.Option(min=1, help="Architectures that are proposed at once, before results of them are known.")
    ] = 4,
    files: LayerFiles = None,
    task_files: TaskFiles = None,
    store: Store = DEFAULT_STORE,
    race: Annotated[Race, typer.Option(help="Which grid points may be left out, see `archlab run`.")] = Race.exact,
    workers: Workers = None,
    device: Annotated[Device, typer.Option(help="Where to train.")] = Device.cpu,
    executor: Executor = "local",
    label: Annotated[str, typer.Option("--as", metavar="LABEL", help="A name for the run of all that was evaluated.")] = "",
    output: Annotated[str | None, typer.Option("--output", "-o", metavar="FILE", help="Write a page too: one HTML file.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the space and how long it takes; nothing is written.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Search a space for architectures with high scores and low costs.

    Prints the front: the architectures that no other beats in every objective. The winner is trained again from fresh seeds,
    for the best of many scores is partly luck; so is the majority of the best, layer by layer.

    Every finished trial is in the store at once: after Ctrl-C or a crash the same command continues, to the same result.

    For example: `archlab search --space stacks6 --objectives mad,state --seeds 1 -o search.html`
    """
    from rich.console import Console

    import archlab
    from archlab.cli.options import seed_list, task_names
    from archlab.cli.output import message, print_json, print_table, store_option, thinking
    from archlab.cli.signals import terminable
    from archlab.files import check_place
    from archlab.reports.live import LiveView
    from archlab.reports.search_tables import closing_lines, front_so_far, search_tables
    from archlab.store.database import shown

    if output is not None:
        check_place(Path(output))  # before anything is trained
    options: dict[str, Any] = {
        "proposer": proposer,
        "objectives": [name.strip() for name in objectives.split(",") if name.strip()],
        "evaluations": evaluations,
        "rungs": [name.strip() for name in (rungs or "").split(",") if name.strip()],
        "promote": promote,
        "suite": suite,
        "tasks": task_names(tasks),
        "seeds": None if seeds is None else seed_list(seeds),
        "seed": seed,
        "batch": batch,
        "device": device.value,
    }
    if dry_run:
        _foresee(space, protocol, options, executor, workers, as_json)
        return
    view = LiveView(Console(stderr=True))

    def tell(advance: "Advance") -> None:
        view.above = front_so_far(advance, view.console.width)
        message(_how_far(advance))

    try:
        with terminable(), thinking("looking up what is left to compute") as think:
            found = archlab.search(
                space,
                protocol,
                **options,
                store=store,
                label=label,
                race=race.value,
                executor=executor,
                workers=workers,
                listeners=[lambda _: think(""), view],
                on_advance=tell,
            )
    except KeyboardInterrupt:
        message(f"what is done is in {shown(store)}; the same command continues")
        sys.exit(130)
    if output is not None:
        from archlab.reports.search_page import write_search

        write_search(found, output)
        message(f"wrote {output}")
    if as_json:
        print_json(found.to_dict())
        return
    for number, table in enumerate(search_tables(found)):
        if number:
            typer.echo()
        print_table(table)
    for line in closing_lines(found):
        message(line)
    message(f"`archlab scores{store_option(store)}` and `archlab report{store_option(store)}` show the scores by task")


def _how_far(advance: "Advance") -> str:
    """How far a search is, in one line."""
    from archlab.format import duration, percent

    left = ""
    if advance.evaluated < advance.evaluations and advance.seconds_left is not None:
        left = f"; about {duration(advance.seconds_left)} left"
    best = f"; best {percent(advance.best.score)} %, {advance.best.label}" if advance.best and advance.best.score else ""
    return f"{advance.what}: {advance.evaluated} of {advance.evaluations} architectures{best}{left}"


def _foresee(
    space: str, protocol: str | None, options: dict[str, Any], executor: str, workers: int | None, as_json: bool
) -> None:
    from archlab.cli.output import message, print_json, print_table, thinking
    from archlab.format import count, duration
    from archlab.jobs.executor import make_executor
    from archlab.mad.train import train_together
    from archlab.reports.search_tables import size_text, space_table
    from archlab.searching.preview import preview_search
    from archlab.searching.search import make_search_plan

    with thinking("counting the space and estimating time"):
        plan = make_search_plan(space, protocol, **options)
        with make_executor(train_together, workers, device=plan.device, name=executor) as workplace:
            found = preview_search(plan, workplace.num_workers)
    if as_json:
        print_json(found.to_dict())
        return
    note = f"costs at width {plan.space.dim}, length {plan.space.length}"
    print_table(space_table(found.examples, f"space {plan.space.name}: {plan.space.summary}; {size_text(found.size)}; {note}"))
    for rung in found.rungs:
        trials = f"{count(rung.architectures, 'architecture')}, {rung.trials:,} trials, {rung.flops:.3g} FLOPs"
        message(f"{rung.protocol}: {trials}, at most about {duration(rung.seconds)} with {count(found.num_workers, 'worker')}")
    message("without what is in the store already, and what solves its task early")


def spaces(
    name: Annotated[str | None, typer.Argument(help="Show this space's file: a start for one of your own.")] = None,
    protocol: ProtocolName = None,
    files: LayerFiles = None,
    task_files: TaskFiles = None,
    as_json: Json = False,
) -> None:
    """List the spaces that `archlab search` knows, or show the file of one.

    Sizes count different architectures, at the width of the protocol. `archlab search --space my.yaml` takes a file of your own.
    """
    from archlab.cli.output import print_json, print_table, thinking
    from archlab.mad.protocol import load_protocol
    from archlab.reports.search_tables import size_text
    from archlab.reports.tables import plain_table
    from archlab.searching.space import load_space, space_names, space_text

    if name is not None:
        if as_json:
            from archlab.fields import read_yaml

            print_json(read_yaml(space_text(name)))
        else:
            typer.echo(space_text(name), nl=False)
        return
    chosen = load_protocol(protocol or "quick")
    with thinking("counting architectures"):
        found = [(load_space(known, chosen)) for known in space_names()]
        sizes = [one.size for one in found]
    if as_json:
        print_json(
            [
                {"space": s.name, "size": n.number, "exact": n.exact, "summary": s.summary}
                for s, n in zip(found, sizes, strict=True)
            ]
        )
    else:
        print_table(
            plain_table(
                [{"space": s.name, "size": size_text(n), "summary": s.summary} for s, n in zip(found, sizes, strict=True)]
            )
        )
