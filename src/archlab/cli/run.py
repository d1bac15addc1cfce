"""archlab run: put architectures through a protocol."""

from enum import StrEnum
from typing import Annotated

import typer

from archlab.cli.layer_files import LayerFiles, TaskFiles
from archlab.cli.plans import DEFAULT_STORE, GridValues, Seeds, Set, Settings, Store, Tasks


class Race(StrEnum):
    """Which grid points need not be trained to the end."""

    exact = "exact"
    halving = "halving"
    off = "off"


class Device(StrEnum):
    """Where trials run."""

    cpu = "cpu"
    cuda = "cuda"


def run(
    specs: Annotated[
        list[str],
        typer.Argument(metavar="SPEC", help="Catalogue names, or specs like 'mh-hyena swiglu mh-attention swiglu'."),
    ],
    protocol: Annotated[
        str, typer.Option(help="smoke, quick, paper, mad-lab (see `archlab protocols`), or the path of a YAML file.")
    ] = "quick",
    tasks: Tasks = None,
    settings: Settings = "all",
    grid: GridValues = None,
    seeds: Seeds = None,
    changes: Set = None,
    files: LayerFiles = None,
    task_files: TaskFiles = None,
    store: Store = DEFAULT_STORE,
    race: Annotated[
        Race,
        typer.Option(
            help="Leave out grid points that can no longer change a score, because one before them has solved the setting "
            "(exact); also drop those whose loss falls behind on the way (halving); train all of them (off)."
        ),
    ] = Race.exact,
    workers: Annotated[int | None, typer.Option(help="Worker processes; by default one a core, or one a GPU.")] = None,
    device: Annotated[Device, typer.Option(help="Where to train.")] = Device.cpu,
    population: Annotated[
        str,
        typer.Option(
            metavar="N|auto",
            help="Trainings that a worker runs together, stacked into one program or side by side, whichever is faster: seeds "
            "and grid points of one setting. auto: as many as fit on a GPU, one on a CPU, where more gain nothing.",
        ),
    ] = "auto",
    iso_state: Annotated[
        int | None,
        typer.Option(
            help="First set the knobs of every architecture so that its matrix state has this many scalars in all, as "
            "`archlab normalise` does; what is done and what cannot be reached goes to standard error."
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print how many trainings, how many FLOPs and how long, and stop; nothing is written."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the scores as one JSON document on standard output at the end.")
    ] = False,
) -> None:
    """Train architectures on the synthetic tasks of a protocol and print the leaderboard.

    Every finished training is in the store at once: after Ctrl-C or a crash the same command does the rest, and what is
    there is never computed again. Progress goes to standard error.

    For example: `archlab run transformer++ "mamba swiglu mamba swiglu" --seeds 1`
    """
    from archlab.cli.normalise import tell
    from archlab.cli.plans import narrowed_protocol
    from archlab.cli.running import How, execute, population_of, preview
    from archlab.mad.plan import at_equal_state, make_plan

    plan = make_plan(narrowed_protocol(protocol, tasks, settings, grid, seeds, changes), specs, device.value)
    if iso_state is not None:
        before = plan.architectures
        plan, found = at_equal_state(plan, iso_state)
        for value, normal in zip(before, found, strict=True):
            tell(value.label, normal)
    how = How(store, workers, race.value, population_of(population))
    if dry_run:
        preview(plan, how, as_json=as_json)
    else:
        execute(plan, how, as_json=as_json)
