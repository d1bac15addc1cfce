"""archlab bench: how fast this machine trains, and how near to what it can do."""

from typing import Annotated

import typer

from archlab.cli.options import LayerFiles
from archlab.cli.run import Device


def bench(
    specs: Annotated[
        list[str] | None, typer.Argument(metavar="[SPEC...]", help="Catalogue names or specs; by default those of the demo.")
    ] = None,
    files: LayerFiles = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes; by default one a core, or one a GPU.")] = None,
    device: Annotated[Device, typer.Option(help="What to measure.")] = Device.cpu,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> None:
    """Measure this machine's ceilings and the training steps of architectures, and estimate every protocol's time.

    All workers compute at once, as in a run. `archlab run --dry-run` uses what was measured last.

    For example: `archlab bench transformer++ "mamba swiglu mamba swiglu"`
    """
    from archlab.cli.benching import show_speed

    show_speed(specs or ["transformer++", "hyena", "mamba", "striped-mh-hyena"], workers, device.value, as_json=as_json)
