"""archlab work: compute what runs have submitted to a store."""

import sys
from typing import Annotated, Literal

import typer

from archlab.cli.options import DEFAULT_STORE, LayerFiles, Store, TaskFiles, TimeLimit
from archlab.cli.run import Device
from archlab.cli.scale import Checkpoints


def work(
    store: Store = DEFAULT_STORE,
    slots: Annotated[int | None, typer.Option(min=1, help="Jobs at once; by default one a core, or one a GPU.")] = None,
    device: Annotated[Device, typer.Option(help="Where to train.")] = Device.cpu,
    files: LayerFiles = None,
    task_files: TaskFiles = None,
    time_limit: TimeLimit = None,
    max_hours: Annotated[
        float | None, typer.Option(metavar="H", min=0, help="Take nothing new after H hours, and end with what runs then.")
    ] = None,
    max_idle: Annotated[
        float | None, typer.Option(metavar="MINUTES", min=0, help="End after so long without work; by default wait for more.")
    ] = None,
    checkpoints: Checkpoints = None,
    keep: Annotated[
        Literal["weights", "checkpoints", "none"],
        typer.Option(
            help="Files of a finished language model to keep on this machine: weights, its last checkpoint too, or none."
        ),
    ] = "weights",
) -> None:
    """Compute trials and training runs that others have submitted to a store, on this machine.

    `archlab run SPEC --executor workers --store URL` submits, any number of `archlab work --store URL` on any machines compute,
    those of the highest --priority first. Machines share a PostgreSQL server. Only code that this command line names is
    imported: what needs other layers is left to others. Ctrl-C and SIGTERM give back what is unfinished.

    For example: `archlab work --store postgresql+psycopg://lab@host/archlab --layers my_layer.py --max-hours 23`
    """
    from rich.console import Console

    from archlab import workers
    from archlab.cli.output import message
    from archlab.cli.signals import status_of, terminable
    from archlab.format import count
    from archlab.reports.live import LiveView

    try:
        with terminable():
            computed = workers.work(
                store,
                slots=slots,
                device=device.value,
                time_limit=time_limit,
                max_hours=max_hours,
                max_idle=max_idle,
                checkpoints=checkpoints,
                keep=keep,
                listener=lambda: LiveView(Console(stderr=True, force_terminal=False)),  # several runs, a line for each event
                tell=message,
            )
    except KeyboardInterrupt as stopped:
        message("what was unfinished is given back to other workers")
        sys.exit(status_of(stopped))
    message(f"{count(computed, 'job')} computed")
