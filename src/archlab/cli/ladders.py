"""archlab scale run, fit, predict: train a plan, and learn from its losses."""

from typing import Annotated

import typer

from archlab.cli.plans import DEFAULT_STORE, Store
from archlab.cli.run import Device


def run(
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="A file that `archlab scale plan` wrote.")],
    store: Store = DEFAULT_STORE,
    workers: Annotated[int | None, typer.Option(help="Worker processes; by default one a core, or one a GPU.")] = None,
    device: Annotated[Device, typer.Option(help="Where to train.")] = Device.cpu,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="A field of the recipe: schedule (cosine, wsd), warmup, decay, final_lr, weight_decay, beta1, beta2, grad_clip, "
            "precision (fp32, bf16), micro_batch, recompute, compiled, embedding_std, evaluations, "
            "validation_tokens; repeatable.",
        ),
    ] = None,
    checkpoints: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Unfinished trainings; by default beside the store.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output at the end.")] = False,
) -> None:
    """Train the language models of a plan that the store lacks.

    On this machine they train side by side, one to a worker. Started by `torchrun --no-python`, they train one after the
    other, each over all processes (FSDP). After Ctrl-C, a crash or kill -9 the same command does the rest: every training
    goes on from its last checkpoint.

    For example: `archlab scale run plan.yaml --store scaling.db`
    """
    from archlab.cli.training import train_plan

    train_plan(plan, store, workers, device.value, changes or [], checkpoints, as_json=as_json)
