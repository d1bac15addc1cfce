"""archlab scale: plan, train and fit ladders of language models."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from archlab.cli.options import DEFAULT_STORE, Executor, LayerFiles, Seeds, Store, Workers
from archlab.cli.run import Device

if TYPE_CHECKING:
    from archlab.jobs.events import Event, RunSummary
    from archlab.reports.live import LiveView
    from archlab.scaling.recipe import LMRecipe
    from archlab.scaling.study import Study
    from archlab.scaling.trial import LMTrial

app = typer.Typer(help="Scaling laws: plan, train and fit ladders of language models.", no_args_is_help=False)


IntervalMethod = Annotated[
    Literal["bootstrap", "jackknife"],
    typer.Option("--intervals", help="Intervals of laws: from resampled training runs, or leaving out one at a time."),
]
Resamples = Annotated[int, typer.Option(help="Resamples of the bootstrap; 0 for no intervals.")]
Confidence = Annotated[float, typer.Option(help="Confidence level of the intervals, as in 0.95.")]
NonEmbedding = Annotated[bool, typer.Option("--non-embedding", help="Count parameters without embedding and unembedding.")]
Window = Annotated[
    float,
    typer.Option(metavar="FACTOR", help="Parabolas go through sizes within this factor of the best of a budget; inf for all."),
]
Tuned = Annotated[str | None, typer.Option("--tuned", metavar="STORE", help="A store that `archlab scale tune` filled.")]
RecipeChanges = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="A field of the recipe: schedule (cosine, wsd), warmup, decay, final_lr, weight_decay, beta1, beta2, grad_clip, "
        "precision (fp32, bf16), micro_batch, recompute, compiled, kernels (torch, fla), embedding_std, evaluations, "
        "validation_tokens; repeatable.",
    ),
]
Checkpoints = Annotated[str | None, typer.Option(metavar="FOLDER", help="Unfinished training runs; by default beside the store.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


@app.callback(invoke_without_command=True)
def scale(context: typer.Context) -> None:
    """Scaling laws of architectures: plan ladders of language models, train them, fit their losses.

    Start with `archlab scale plan transformer++ striped-hyena`.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def plan(
    specs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SPEC...]", help="Catalogue names or specs; may be left out where the ladder names its own."),
    ] = None,
    ladder: Annotated[str, typer.Option(help="smoke, quick, standard, paper, or the path of a YAML file.")] = "quick",
    budgets: Annotated[str | None, typer.Option(metavar="C,C,...", help="FLOPs of each group, as in `2e11,4e11,8e11`.")] = None,
    sizes: Annotated[int | None, typer.Option(help="Sizes of each group.")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="stdlib, a file or folder (text, JSONL, Parquet, FASTA), or hf:NAME; options as in `a.jsonl#field=text`.",
        ),
    ] = None,
    tokenizer: Annotated[str | None, typer.Option(metavar="NAME", help="bytes, ascii, dna, bpe:SIZE or hf:NAME.")] = None,
    length: Annotated[int | None, typer.Option(help="Tokens of a sequence.")] = None,
    seeds: Seeds = None,
    tuned: Tuned = None,
    bench: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Output of `archlab bench --device cuda --json`: GPU-hours by measured speeds."),
    ] = None,
    files: LayerFiles = None,
    repeat: Annotated[bool, typer.Option("--repeat", help="Read the corpus more than once where a run needs it.")] = False,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Accept an objection: corpus, tokens-per-param, gpus, sizes, embeddings or memory; repeatable.",
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Any other field of the ladder: spread, params, tokens_per_param, batch_size, learning_rate, min_steps, aspect, "
            "head_dim, convention (exact, paper, 6nd), vocab_size, corpus_tokens, peak_flops, utilisation, memory, gpus; "
            "repeatable.",
        ),
    ] = None,
    output: Annotated[str, typer.Option("--output", "-o", metavar="PATH", help="The plan's file.")] = "plan.yaml",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and what it takes; write no file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Plan an IsoFLOP study: budgets, sizes around each optimum, and the steps that spend the budget.

    The corpus is prepared on first use and kept in the cache folder. The plan is a file to read and to edit; train it by
    `archlab scale run plan.yaml`.

    For example: `archlab scale plan transformer++ striped-hyena --budgets 2e11,4e11,8e11 --sizes 5 --data stdlib`
    """
    from dataclasses import asdict

    from archlab import scaling
    from archlab.cli.options import key_value, seed_list
    from archlab.cli.output import message, print_json, print_table
    from archlab.format import count
    from archlab.reports.scaling_tables import plan_on_terminal
    from archlab.scaling.estimate import plan_costs
    from archlab.scaling.ladder import load_ladder, measured_utilisations
    from archlab.scaling.launch import launch_commands

    values: dict[str, Any] = {
        "budgets": None if budgets is None else _numbers("--budgets", budgets),
        "sizes": sizes,
        "data": data,
        "tokenizer": tokenizer,
        "length": length,
        "repeat": repeat or None,
        "seeds": None if seeds is None else seed_list(seeds),
    }
    for field, value in (key_value("--set", change) for change in changes or []):
        values[field] = _numbers(f"--set {field}=", str(value)) if field in ("params", "tokens_per_param") else value
    loaded = load_ladder(ladder)
    narrowed = loaded.with_values(**values, allow=(*loaded.allow, *(allow or ())))
    if bench is not None:
        narrowed = narrowed.with_values(utilisations=measured_utilisations(bench, narrowed.peak_flops))
    planned = scaling.plan(specs or (), narrowed, tuned=tuned)
    if not dry_run:
        planned.save(output)
    costs = plan_costs(planned.runs, narrowed)
    if as_json:
        runs = [asdict(run) | asdict(cost) for run, cost in zip(planned.runs, costs, strict=True)]
        print_json({"output": None if dry_run else output, "runs": runs, "seconds": sum(cost.seconds for cost in costs)})
        return
    print_table(plan_on_terminal(planned, narrowed, costs))
    if narrowed.peak_flops is not None:
        jobs = list(zip(planned.runs, costs, strict=True))
        for starter, command in launch_commands("plan.yaml" if dry_run else output, narrowed.gpus, jobs, narrowed.memory).items():
            print(f"# {starter}\n{command}")
    if not dry_run:
        message(f"{output} has {count(len(planned.runs), 'training run')}; `archlab scale run {output}` trains them")


@app.command()
def run(
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="A file that `archlab scale plan` wrote.")],
    store: Store = DEFAULT_STORE,
    files: LayerFiles = None,
    executor: Executor = "local",
    workers: Workers = None,
    device: Annotated[Device, typer.Option(help="Where to train.")] = Device.cpu,
    changes: RecipeChanges = None,
    checkpoints: Checkpoints = None,
    keep: Annotated[
        Literal["weights", "checkpoints", "none"],
        typer.Option(help="What stays of a finished model, beside the store: its weights, its last checkpoint too, or nothing."),
    ] = "weights",
    params: Annotated[
        str | None, typer.Option(metavar="LOW,HIGH", help="Only models from LOW to HIGH parameters, as in `0,1e9`.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output at the end.")] = False,
) -> None:
    """Train the language models of a plan that the store lacks.

    On this machine they train side by side, one to a worker. Started by `torchrun --no-python`, they train one after the
    other, each over all processes (FSDP). After Ctrl-C, a crash or kill -9 the same command does the rest: every training
    run goes on from its last checkpoint.

    For example: `archlab scale run plan.yaml --store scaling.db`
    """
    from archlab import scaling
    from archlab.cli.output import print_json

    trials: dict[str, LMTrial] = {}

    def note_trials(event: "Event") -> None:
        trials.update({trial.key: trial for trial in getattr(event, "jobs", ())})

    with _interruptible(store):
        summary = scaling.train(
            plan,
            store=store,
            recipe=_recipe(changes),
            device=device.value,
            executor=executor,
            workers=workers,
            checkpoints=checkpoints,
            keep=keep,
            params=None if params is None else _numbers("--params", params),
            listeners=[note_trials, _live_view()],
        )
    if not summary.total:  # a process that follows the first one
        return
    _report(summary, trials, store)
    if as_json:
        print_json(_document(summary, trials))
    if summary.failed:
        sys.exit(1)


@app.command()
def tune(
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="A file that `archlab scale plan` wrote.")],
    store: Annotated[
        str, typer.Option(metavar="PATH|URL", help="Results: an SQLite file, or any SQLAlchemy URL; not that of a study.")
    ] = "tune.db",
    files: LayerFiles = None,
    executor: Executor = "local",
    workers: Workers = None,
    device: Annotated[Device, typer.Option(help="Where to train.")] = Device.cpu,
    changes: RecipeChanges = None,
    checkpoints: Checkpoints = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output at the end.")] = False,
) -> None:
    """Tune the learning rate of every architecture of a plan.

    At the two smallest budgets, at the size nearest the centre: the plan's rate, its half and its double, and on until the best
    one is bracketed. The best rate over the plan's, a mean of the two budgets, goes for all sizes of the architecture:
    `archlab scale plan ... --tuned tune.db`. After Ctrl-C the same command does the rest.

    For example: `archlab scale tune plan.yaml --store tune.db`
    """
    from archlab import scaling
    from archlab.cli.output import message, print_json, print_table
    from archlab.reports.scaling_tables import terminal_table, tuning_table

    with _interruptible(store):
        found = scaling.tune(
            plan,
            store=store,
            recipe=_recipe(changes),
            device=device.value,
            executor=executor,
            workers=workers,
            checkpoints=checkpoints,
            listeners=[_live_view()],
        )
    if found is None:  # a process that follows the first one
        return
    if as_json:
        print_json(found.to_dict())
        return
    print_table(terminal_table(tuning_table(found)))
    if found.bracketed:
        factors = ", ".join(f"{label} {factor:g}" for label, factor in found.factors.items())
        message(f"factors on the plan's learning rates: {factors}; `archlab scale plan ... --tuned {store}` uses them")


@app.command(name="import")
def import_table(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="A .csv, .jsonl or .parquet file with a row a training run.")],
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=COLUMN,...",
            help="Columns of N (parameters), D (tokens), C (FLOPs), loss, architecture, seed, budget; usual names are found.",
        ),
    ] = None,
    loss_unit: Annotated[
        Literal["nats", "bits", "perplexity"], typer.Option(help="Unit of the losses: nats or bits a token, or perplexity.")
    ] = "nats",
    flops: Annotated[
        Literal["column", "6nd"], typer.Option(help="Where a table has N, D and C: take the column of FLOPs, or 6 N D.")
    ] = "column",
    output: Annotated[str, typer.Option("--output", "-o", metavar="PATH", help="The store to write to.")] = DEFAULT_STORE,
    as_json: AsJson = False,
) -> None:
    """Import training runs of others into a store, for `fit`, `predict` and `report`.

    Of N, D and C two are needed: the third follows from C = 6 N D. FLOPs within 5 % of the next are of one budget.

    For example: `archlab scale import runs.csv --columns N=params,D=tokens,loss=val_loss,architecture=model -o study.db`
    """
    from archlab.cli.options import key_value
    from archlab.cli.output import message, print_json, store_option
    from archlab.format import count
    from archlab.scaling.imports import import_runs

    given = {name: str(column) for name, column in (key_value("--columns", part) for part in (columns or "").split(",") if part)}
    found = import_runs(table, output, given, loss_unit=loss_unit, flops=flops)
    if as_json:
        print_json(found)
        return
    message("columns: " + ", ".join(f"{name}={column}" for name, column in found["columns"].items()))
    message(f"FLOPs: {found['flops']}" + _beside_6nd(found["flops_over_6nd"], found["flops"]))
    message("budgets: " + ", ".join(f"{budget:.3g} ({number})" for budget, number in found["budgets"].items()))
    message(f"{count(found['runs'], 'training run')} in {output}, {found['without_loss']} without a loss")
    message(f"`archlab scale fit{store_option(output)}` fits the laws")


def _beside_6nd(ratio: tuple[float, float, float] | None, taken: str) -> str:
    if ratio is None:
        return ""
    low, middle, high = (f"{number:.3g}" for number in ratio)
    fix = "; `--flops 6nd` takes 6 N D" if taken != "6 N D" and (low, high) != ("1", "1") else ""
    return f"; the column is {low} to {high} times 6 N D, in the middle {middle}{fix}"


@app.command()
def fit(
    store: Store = DEFAULT_STORE,
    files: LayerFiles = None,
    intervals: IntervalMethod = "bootstrap",
    resamples: Resamples = 300,
    confidence: Confidence = 0.95,
    non_embedding: NonEmbedding = False,
    window: Window = 6.0,
    tuned: Tuned = None,
    as_json: AsJson = False,
) -> None:
    """Fit scaling laws to the language models of a store, and compare their architectures.

    Each architecture by four methods side by side: the minima of its IsoFLOP groups (a group whose best size is its
    smallest or largest is refused), the parametric law by Huber loss, the same by least squares, and the lower envelope of
    the training curves. With intervals, the error on the largest budget held out, and a warning where the methods disagree.

    For example: `archlab scale fit --store scaling.db`
    """
    from archlab import scaling
    from archlab.cli.output import message, print_json, print_table
    from archlab.reports import scaling_tables as tables
    from archlab.scaling.fits import StateFit
    from archlab.scaling.tuning import read_tuning

    with _opened(store, non_embedding) as (study, advance):
        tuning = None if tuned is None else read_tuning(tuned, study.learning_rate)
        result = scaling.fit(
            study, intervals=intervals, resamples=resamples, confidence=confidence, window=window, on_method=advance
        )
    if as_json:
        print_json(result.to_dict() | ({} if tuning is None else {"tuning": tuning.to_dict()}))
        return
    if result.comparison is not None:
        print_table(tables.comparison_on_terminal(result.comparison))
    for warning in result.warnings:
        message(warning)
    for laws in result.laws:
        print_table(tables.laws_on_terminal(laws))
    others = (tables.over_training_table(result), tables.off_optimal_table(result))
    sensitivity = None if tuning is None else tables.tuning_table(tuning)
    for table in (*others, tables.sweep_table(result.sweeps), sensitivity):
        if table is not None:
            print_table(tables.terminal_table(table))
    if isinstance(result.state, StateFit):
        message(tables.state_text(result.state))


@app.command()
def compare(
    reference: Annotated[
        str | None,
        typer.Option(metavar="ARCH", help="Compare with this architecture; by default with the best at the largest budget."),
    ] = None,
    flops: Annotated[
        str | None, typer.Option(metavar="C,C,...", help="Budgets beside those that were trained, as in `1e20,1e21`.")
    ] = None,
    store: Store = DEFAULT_STORE,
    files: LayerFiles = None,
    resamples: Annotated[int, typer.Option(help="Resamples of the laws; 0 for no intervals.")] = 1000,
    confidence: Confidence = 0.95,
    non_embedding: NonEmbedding = False,
    as_json: AsJson = False,
) -> None:
    """Compare architectures at equal compute: which is better, by how much, and how surely.

    At every trained budget, and at those of --flops: the loss of each architecture minus that of the reference, and the compute
    that it needs for the reference's loss, over the budget. Both follow from laws with a floor, at the best size of each budget;
    intervals from joint resamples of the laws. If two architectures cross near the budgets, it says where.

    For example: `archlab scale compare --reference transformer++ --flops 1e21 --store scaling.db`
    """
    from archlab import scaling
    from archlab.cli.output import message, print_json, print_table
    from archlab.reports.scaling_tables import comparison_on_terminal

    found = scaling.compare(
        store,
        reference=reference,
        flops=() if flops is None else _numbers("--flops", flops),
        resamples=resamples,
        confidence=confidence,
        parameters="non-embedding" if non_embedding else "all",
    )
    if as_json:
        print_json(found.to_dict())
        return
    print_table(comparison_on_terminal(found))
    for note in found.notes:
        message(note)


@app.command()
def predict(
    flops: Annotated[float | None, typer.Option(metavar="C", help="The budget to spend, as in 1e21.")] = None,
    loss: Annotated[float | None, typer.Option(metavar="L", help="The loss to reach, in nats a token.")] = None,
    store: Store = DEFAULT_STORE,
    files: LayerFiles = None,
    intervals: IntervalMethod = "bootstrap",
    resamples: Resamples = 300,
    confidence: Confidence = 0.95,
    non_embedding: NonEmbedding = False,
    window: Window = 6.0,
    as_json: AsJson = False,
) -> None:
    """Predict the best model of a budget, or the budget that reaches a loss: size, tokens, loss, and how far beyond the data.

    For example: `archlab scale predict --flops 1e21`
    """
    from archlab import scaling
    from archlab.cli.output import message, print_json, print_table
    from archlab.errors import ArchlabError
    from archlab.reports.scaling_tables import predictions_on_terminal

    if (flops is None) == (loss is None):
        raise ArchlabError("give --flops (as in --flops 1e21) or --loss (as in --loss 2.0), one of them")
    with _opened(store, non_embedding) as (study, advance):
        how: dict[str, Any] = {"intervals": intervals, "resamples": resamples, "confidence": confidence, "window": window}
        predictions = scaling.predict(study, flops=flops, loss=loss, **how, on_method=advance)
    for warning in predictions.warnings:
        message(warning)
    if as_json:
        print_json(predictions.to_dict())
    else:
        print_table(predictions_on_terminal(predictions))


@app.command()
def report(
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="The HTML file to write.")] = "scaling.html",
    store: Store = DEFAULT_STORE,
    files: LayerFiles = None,
    intervals: IntervalMethod = "bootstrap",
    resamples: Resamples = 300,
    confidence: Confidence = 0.95,
    non_embedding: NonEmbedding = False,
    window: Window = 6.0,
) -> None:
    """Write the report of a study: one HTML file that works offline, and its training runs as CSV beside it.

    IsoFLOP curves with their minima, the frontier of the loss, optimal sizes and tokens, residuals, the error on the
    largest budget held out, comparisons, and the origin of every number.
    """
    from archlab import scaling
    from archlab.cli.output import message
    from archlab.reports.scaling_page import csv_beside

    csv_beside(output)  # a wrong path is refused before anything is fitted
    with _opened(store, non_embedding) as (study, advance):
        result = scaling.fit(
            study, intervals=intervals, resamples=resamples, confidence=confidence, window=window, on_method=advance
        )
    table = scaling.report(result, output)
    message(f"wrote {output} and {table}")


Run = Annotated[
    str, typer.Argument(metavar="RUN", help="The beginning of a kept model's key, or its architecture and size: `mamba@13.2k`.")
]


@app.command()
def sample(
    run: Run,
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="The text to continue; by default a document begins.")] = "",
    tokens: Annotated[int, typer.Option(min=1, help="The most tokens to draw; ends earlier where the document does.")] = 200,
    temperature: Annotated[float, typer.Option(min=0, help="Divides the logits; 0 takes the likeliest token.")] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, metavar="K", help="Draw among the K likeliest tokens; 0 for all.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws: the same seed gives the same text.")] = 0,
    store: Store = DEFAULT_STORE,
    files: LayerFiles = None,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.cpu,
    as_json: AsJson = False,
) -> None:
    """Continue a text by a model that `archlab scale run` has kept.

    Layers carry their state from token to token, so memory does not grow with the text.

    For example: `archlab scale sample mamba@13.2k --prompt "def " --temperature 0.8 --store scaling.db`
    """
    from archlab import scaling
    from archlab.cli.output import message, print_json

    model = scaling.load_model(run, store, device=device.value)
    how: dict[str, Any] = {"tokens": tokens, "temperature": temperature, "top_k": top_k, "seed": seed}
    text = scaling.sample(model, prompt, **how)
    if as_json:
        print_json({"model": model.key, "prompt": prompt, "text": text, **how})
        return
    message(str(model))
    print(prompt + text)


@app.command()
def evaluate(
    run: Run,
    data: Annotated[
        str | None,
        typer.Option(metavar="SOURCE,...", help="Corpora whose held-out documents are read; by default the one of the training."),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(min=1, help="The most tokens to predict in each.", show_default="as many as after training"),
    ] = None,
    store: Store = DEFAULT_STORE,
    files: LayerFiles = None,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.cpu,
    as_json: AsJson = False,
) -> None:
    """Evaluate a model that `archlab scale run` has kept: nats a token, bits a byte, and the loss by position in the sequence.

    Bits a byte compare across tokenizers. The loss of the first positions shows what a model knows without context, and how it
    falls from there on shows what the architecture makes of context.

    For example: `archlab scale evaluate mamba@13.2k --data books/,other.jsonl#field=text --store scaling.db`
    """
    from archlab import scaling
    from archlab.cli.output import message, print_json, print_table
    from archlab.corpora.documents import split_sources
    from archlab.reports.scaling_tables import evaluations_on_terminal

    found = scaling.evaluate(run, None if data is None else split_sources(data), tokens=tokens, store=store, device=device.value)
    if as_json:
        print_json(found.to_dict())
        return
    message(found.rows[0].model)
    print_table(evaluations_on_terminal(found))


@contextmanager
def _interruptible(store: str) -> "Iterator[None]":
    """End with the exit status of the signal that ended training, and a line that says how to go on."""
    from archlab.cli.output import message
    from archlab.cli.signals import terminable
    from archlab.scaling.result import Interrupted
    from archlab.store.database import shown

    try:
        with terminable():
            yield
    except KeyboardInterrupt:
        message(f"stopped: what is done is in {shown(store)}; the same command does the rest")
        sys.exit(130)
    except Interrupted as interrupted:
        message(f"{interrupted}: the same command does the rest")
        sys.exit(interrupted.status)


def _recipe(changes: list[str] | None) -> "LMRecipe":
    from archlab.cli.options import key_value
    from archlab.fields import read_fields
    from archlab.scaling.recipe import LMRecipe

    return read_fields(LMRecipe, dict(key_value("--set", change) for change in changes or []), "recipe")


def _live_view() -> "LiveView":
    from rich.console import Console

    from archlab.reports.live import LiveView

    return LiveView(Console(stderr=True))


@contextmanager
def _opened(store: str, non_embedding: bool) -> "Iterator[tuple[Study, Callable[[], None]]]":
    """The study of a store, and a function to call after each method of each architecture: it moves a bar on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from archlab.scaling.laws import METHODS
    from archlab.scaling.study import open_study

    study = open_study(store, "non-embedding" if non_embedding else "all")
    columns = (TextColumn("fitting"), BarColumn(), MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn())
    console = Console(stderr=True)
    if not console.is_terminal:  # rich 14.0 ends even a bar that is not shown with an empty line
        yield study, lambda: None
        return
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(study.tables) * len(METHODS))
        yield study, lambda: progress.advance(task)


def _numbers(option: str, text: str) -> tuple[float, ...]:
    from archlab.errors import ArchlabError

    try:
        return tuple(float(number) for number in text.split(",") if number.strip())
    except ValueError:
        raise ArchlabError(f"{option} {text}: give numbers, as in {option} 2e11,4e11") from None


def _report(summary: "RunSummary", trials: "dict[str, LMTrial]", store: str) -> None:
    from archlab.cli.output import message, store_option
    from archlab.format import count, duration

    parts = [f"{count(summary.computed, 'training run')} computed in {duration(summary.wall_seconds)}"]
    if not summary.computed:
        parts = ["nothing was left to compute"]
    if summary.reused:
        parts.append(f"{count(summary.reused, 'training run')} taken from the store")
    if diverged := summary.count("diverged"):
        parts.append(f"{diverged} diverged: fits count them as censored")
    message("; ".join(parts))
    for key, reason in summary.failed.items():
        message(f"failed: {trials[key]}: {reason}")
    for key, result in summary.results.items():
        if result.not_kept:
            message(f"warning: the weights of {trials[key]} were not kept: {result.not_kept}")
    if not summary.failed:
        message(f"`archlab scale fit{store_option(store)}` fits the laws")


def _document(summary: "RunSummary", trials: "dict[str, LMTrial]") -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for key, trial in trials.items():
        result = summary.results.get(key)
        values = None if result is None else {name: value for name, value in result.to_dict().items() if name != "curve"}
        rows.append({"key": key, **trial.to_dict(), "result": values, "error": summary.failed.get(key)})
    return {"training_runs": len(rows), "computed": summary.computed, "reused": summary.reused, "runs": rows}
