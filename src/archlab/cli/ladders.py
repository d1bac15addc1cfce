"""archlab scale run, fit, predict: train a plan, and learn from its losses."""

from enum import StrEnum
from typing import Annotated, Literal

import typer

from archlab.cli.layer_files import LayerFiles
from archlab.cli.plans import DEFAULT_STORE, Store
from archlab.cli.run import Device


def run(
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="A file that `archlab scale plan` wrote.")],
    store: Store = DEFAULT_STORE,
    files: LayerFiles = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes; by default one a core, or one a GPU.")] = None,
    device: Annotated[Device, typer.Option(help="Where to train.")] = Device.cpu,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="A field of the recipe: schedule (cosine, wsd), warmup, decay, final_lr, weight_decay, beta1, beta2, grad_clip, "
            "precision (fp32, bf16), micro_batch, recompute, compiled, kernels (torch, fla), embedding_std, evaluations, "
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


class Intervals(StrEnum):
    """How intervals are made."""

    bootstrap = "bootstrap"
    jackknife = "jackknife"


How = Annotated[
    Intervals,
    typer.Option("--intervals", help="Of laws: by drawing the trainings again, or leaving out one after the other."),
]
Resamples = Annotated[int, typer.Option(help="Resamples of the bootstrap; 0 for no intervals.")]
Confidence = Annotated[float, typer.Option(help="How often an interval should hold the truth.")]
NonEmbedding = Annotated[bool, typer.Option("--non-embedding", help="Count parameters without embedding and unembedding.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


def fit(
    store: Store = DEFAULT_STORE,
    files: LayerFiles = None,
    intervals: How = Intervals.bootstrap,
    resamples: Resamples = 300,
    confidence: Confidence = 0.95,
    non_embedding: NonEmbedding = False,
    as_json: AsJson = False,
) -> None:
    """Fit scaling laws to the language models of a store, and compare their architectures.

    Each architecture by four methods side by side: the minima of its IsoFLOP groups (a group whose best size is its
    smallest or largest is refused), the parametric law by Huber loss, the same by least squares, and the lower envelope of
    the training curves. With intervals, the
    error on the largest budget held out, and a warning where the methods disagree.

    For example: `archlab scale fit --store scaling.db`
    """
    from archlab.cli.laws import show_fits
    from archlab.scaling.fits import Resampling

    show_fits(store, Resampling(resamples, confidence, method=intervals.value), _parameters(non_embedding), as_json=as_json)


def predict(
    flops: Annotated[float | None, typer.Option(metavar="C", help="The budget to spend, as in 1e21.")] = None,
    loss: Annotated[float | None, typer.Option(metavar="L", help="The loss to reach, in nats a token.")] = None,
    store: Store = DEFAULT_STORE,
    files: LayerFiles = None,
    intervals: How = Intervals.bootstrap,
    resamples: Resamples = 300,
    confidence: Confidence = 0.95,
    non_embedding: NonEmbedding = False,
    as_json: AsJson = False,
) -> None:
    """Say what a budget is best spent on, or which budget reaches a loss: size, tokens, loss, and how far beyond the data.

    For example: `archlab scale predict --flops 1e21`
    """
    from archlab.cli.laws import show_predictions
    from archlab.scaling.fits import Resampling

    show_predictions(
        store, flops, loss, Resampling(resamples, confidence, method=intervals.value), _parameters(non_embedding), as_json=as_json
    )


def report(
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="The HTML file to write.")] = "scaling.html",
    store: Store = DEFAULT_STORE,
    files: LayerFiles = None,
    intervals: How = Intervals.bootstrap,
    resamples: Resamples = 300,
    confidence: Confidence = 0.95,
    non_embedding: NonEmbedding = False,
) -> None:
    """Write the report of a study: one HTML file that works offline, and its runs as CSV beside it.

    IsoFLOP curves with their minima, the frontier of the loss, optimal sizes and tokens, residuals, the error on the
    largest budget held out, comparisons, and where every number comes from.
    """
    from archlab.cli.laws import write_scaling_page
    from archlab.scaling.fits import Resampling

    write_scaling_page(store, output, Resampling(resamples, confidence, method=intervals.value), _parameters(non_embedding))


def _parameters(non_embedding: bool) -> Literal["all", "non-embedding"]:
    return "non-embedding" if non_embedding else "all"
