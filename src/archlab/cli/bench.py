"""archlab bench: the speed of training on this machine, beside its ceilings."""

from typing import TYPE_CHECKING, Annotated

import typer

from archlab.cli.options import LayerFiles
from archlab.cli.run import Device

if TYPE_CHECKING:
    from archlab.mad.bench import Bench


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
    from archlab.cli.output import message, print_json
    from archlab.mad.bench import bench as measure

    found = measure(specs or ["transformer++", "hyena", "mamba", "striped-mh-hyena"], workers, device.value, message)
    if as_json:
        steps = [vars(row) for row in found.rows]
        print_json({"workers": found.num_workers, "device": device.value, "ceilings": vars(found.ceilings), "steps": steps})
    else:
        _print(found)


def _print(found: "Bench") -> None:
    from rich.table import Table
    from rich.text import Text

    from archlab.cli.output import print_table
    from archlab.format import duration

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for head in ("protocol", "architecture", "ms a step", "examples/s", "GFLOP/s", "of peak", "MiB", "one seed takes"):
        table.add_column(head, justify="left" if head in ("protocol", "architecture") else "right", overflow="fold")
    for row in found.rows:
        table.add_row(
            Text(row.protocol),
            Text(row.architecture),
            f"{row.ms:.1f}",
            f"{row.examples_per_second:.0f}",
            f"{row.flops_per_second / 1e9:.1f}",
            f"{100 * row.fraction_of_gemm:.0f} %",
            f"{row.peak_bytes / 2**20:.0f}",
            duration(row.seconds),
        )
    table.caption = (
        f"a worker's step on recall's base setting, {found.num_workers} workers at once; peak: a product of large matrices, "
        f"{found.ceilings.gemm / 1e9:.0f} GFLOP/s a worker; copying: {found.ceilings.copy / 1e9:.1f} GB/s a worker; MiB: "
        "predicted peak of a worker beside its process; time: all tasks, settings and grid points, if nothing stops early, all "
        "workers together"
    )
    table.caption_justify = "left"
    print_table(table)
