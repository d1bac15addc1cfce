"""archlab bench: how fast this machine trains, and how near to what it can do."""

from typing import TYPE_CHECKING, Annotated

import typer

from archlab.cli.options import Executor, Json, LayerFiles, TaskFiles, Workers
from archlab.cli.run import Device

if TYPE_CHECKING:
    from rich.table import Table

    from archlab.mad.bench import Bench
    from archlab.mad.roofline import Model


def bench(
    specs: Annotated[
        list[str] | None, typer.Argument(metavar="[SPEC...]", help="Catalogue names or specs; by default those of the demo.")
    ] = None,
    files: LayerFiles = None,
    task_files: TaskFiles = None,
    workers: Workers = None,
    device: Annotated[Device, typer.Option(help="Device to measure.")] = Device.cpu,
    protocols: Annotated[
        list[str] | None,
        typer.Option("--protocol", help="A protocol, by name or file; repeatable. By default, all that come with archlab."),
    ] = None,
    executor: Executor = "local",
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Show where the processor time goes, such as layers, loss and optimiser."),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="ACCELERATOR",
            help="Measure nothing: count kernels, bytes and FLOPs of the steps, and model the time on one of h100, h200, a100.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure this machine's ceilings and the training steps of architectures, and estimate every protocol's time.

    All workers compute at once, as in a run. `archlab run --dry-run` uses what was measured last.

    For example: `archlab bench transformer++ "mamba swiglu mamba swiglu" --protocol quick --profile`; without a GPU,
    `archlab bench transformer++ --protocol paper --model h100`
    """
    import archlab
    from archlab.cli.output import message, print_json, print_table
    from archlab.errors import ArchlabError
    from archlab.mad.bench import DEMO

    verb = "measured" if model is None else "counted"

    def progress(done: int, total: int) -> None:
        if done == 0:
            message(f"{total} kinds of training step are to be {verb}")
        elif done % 10 == 0 or done == total:
            message(f"{done} of {total} kinds of training step {verb}")

    if model is not None:
        if profile or workers is not None:
            raise ArchlabError(f"--model {model} measures nothing: leave {'--profile' if profile else '--workers'} out")
        from archlab.mad.roofline import model as modelled

        steps = modelled(specs or DEMO, protocols or None, model, progress)
        print_json(steps.to_dict()) if as_json else print_table(_model_table(steps))
        return

    found = archlab.bench(
        specs or DEMO,
        protocols or None,
        device=device.value,
        executor=executor,
        workers=workers,
        profile=profile,
        on_progress=progress,
    )
    if as_json:
        print_json(found.to_dict())
    else:
        print_table(_table(found))
        if profile:
            print_table(_profile_table(found))


def _table(found: "Bench") -> "Table":
    from rich.table import Table
    from rich.text import Text

    from archlab.format import duration

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for head in ("protocol", "architecture", "ms a step", "examples/s", "GFLOP/s", "of peak", "MiB", "one seed takes"):
        table.add_column(head, justify="left" if head in ("protocol", "architecture") else "right", overflow="fold")
    for row in found.steps:
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
        "predicted peak of a worker beside its process; time: all tasks, settings and grid points, if nothing stops early, "
        "all workers together"
    )
    table.caption_justify = "left"
    return table


def _model_table(found: "Model") -> "Table":
    from rich.table import Table
    from rich.text import Text

    from archlab.format import duration

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    heads = ("kernels", "waits", "KB a token", "ms a step", "eager", "fused", "one seed takes", "fused")
    for head in ("protocol", "architecture", *heads):
        table.add_column(head, justify="left" if head in ("protocol", "architecture") else "right", overflow="fold")
    for row in found.steps:
        table.add_row(
            Text(row.protocol),
            Text(row.architecture),
            f"{row.kernels}",
            f"{row.waits}",
            f"{row.bytes_per_token / 1e3:.0f}",
            f"{row.ms:.2f}",
            f"{row.eager_ms:.2f}",
            f"{row.fused_ms:.2f}",
            duration(row.seconds),
            duration(row.fused_seconds),
        )
    table.caption = (
        f"a model of one {found.accelerator}, not a measurement: a kernel takes the longest of its launch, its bytes and its "
        "FLOPs; a training step on recall's base setting, captured as a CUDA graph; eager: launched one by one; fused: with all "
        "but products, transforms, attention and optimiser fused into these; waits: operations that no graph can hold; "
        "time: all trials of one seed, one after the other, if nothing stops early"
    )
    table.caption_justify = "left"
    return table


def _profile_table(found: "Bench") -> "Table":
    from rich.table import Table
    from rich.text import Text

    from archlab.format import duration
    from archlab.mad.profile import PARTS

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for head in ("protocol", "architecture", "CPU time", *PARTS):
        table.add_column(head, justify="left" if head in ("protocol", "architecture") else "right", overflow="fold")
    for row in found.profiles:
        shares = (f"{100 * row.fractions[part]:.0f} %" for part in PARTS)
        table.add_row(Text(row.protocol), Text(row.architecture), duration(row.cpu_seconds), *shares)
    table.caption = (
        "processor time of one trial of each task on one thread, if nothing stops it early; layers (mixers), norms, embeddings "
        "and loss: forward and backward; rest: Python, sums of residuals, building the model"
    )
    table.caption_justify = "left"
    return table
