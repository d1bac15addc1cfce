"""archlab scale: plan and train ladders of language models, tune their rates, import runs of others."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from archlab.cli.options import (
    DEFAULT_STORE,
    Executor,
    Json,
    LayerFiles,
    Log,
    Priority,
    RayAddress,
    Seeds,
    Store,
    TimeLimit,
    Workers,
)
from archlab.cli.run import Device

if TYPE_CHECKING:
    from archlab.jobs.events import Event, RunSummary
    from archlab.reports.live import LiveView
    from archlab.scaling.recipe import LMRecipe
    from archlab.scaling.trial import LMTrial

app = typer.Typer(help="Scaling laws: plan, train and fit ladders of language models.", no_args_is_help=False)


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
            help="Any other field of the ladder: spread, least_params, params, tokens_per_param, horizon_decay, batch_size, "
            "learning_rate, min_steps, aspect, head_dim, convention (exact, paper, 6nd), vocab_size, corpus_tokens, peak_flops, "
            "utilisation, memory, gpus; repeatable.",
        ),
    ] = None,
    output: Annotated[str, typer.Option("--output", "-o", metavar="PATH", help="The plan's file.")] = "plan.yaml",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and what it takes; write no file.")] = False,
    as_json: Json = False,
) -> None:
    """Plan an IsoFLOP study: budgets, sizes around each optimum, and the steps that spend the budget.

    The corpus is prepared on first use and kept in the cache folder. The plan is a file to read and to edit; train it by
    `archlab scale run plan.yaml`.

    For example: `archlab scale plan transformer++ striped-hyena --budgets 2e11,4e11,8e11 --sizes 5 --data stdlib`
    """
    from dataclasses import asdict

    from archlab import scaling
    from archlab.cli.options import key_value, seed_list
    from archlab.cli.output import message, print_json, print_table, thinking
    from archlab.format import count
    from archlab.reports.scaling_tables import plan_on_terminal
    from archlab.scaling.estimate import plan_costs
    from archlab.scaling.ladder import load_ladder, measured_utilisations
    from archlab.scaling.launch import launch_commands

    values: dict[str, Any] = {
        "budgets": None if budgets is None else numbers("--budgets", budgets),
        "sizes": sizes,
        "data": data,
        "tokenizer": tokenizer,
        "length": length,
        "repeat": repeat or None,
        "seeds": None if seeds is None else seed_list(seeds),
    }
    for field, value in (key_value("--set", change) for change in changes or []):
        lists = field in ("params", "tokens_per_param") and not isinstance(value, list)
        values[field] = numbers(f"--set {field}=", str(value)) if lists else value
    loaded = load_ladder(ladder)
    narrowed = loaded.with_values(**values, allow=(*loaded.allow, *(allow or ())))
    if bench is not None:
        narrowed = narrowed.with_values(utilisations=measured_utilisations(bench, narrowed.peak_flops))
    with thinking("preparing corpus and plan") as think:
        planned = scaling.plan(specs or (), narrowed, tuned=tuned)
        if not dry_run:
            planned.save(output)
        think("timing training steps")
        costs = plan_costs(planned.runs, narrowed)
    labels = dict.fromkeys(run.label for run in planned.runs)
    if bench is not None and (unknown := [label for label in labels if label not in narrowed.utilisations]):
        message(f"warning: {bench} has no speed of {', '.join(unknown)}: {narrowed.utilisation:.0%} of peak_flops is assumed")
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
def tune(
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="A file that `archlab scale plan` wrote.")],
    store: Annotated[
        str, typer.Option(metavar="PATH|URL", help="Results: an SQLite file, or any SQLAlchemy URL; not that of a study.")
    ] = "tune.db",
    files: LayerFiles = None,
    executor: Executor = "local",
    ray_address: RayAddress = None,
    workers: Workers = None,
    device: Annotated[Device, typer.Option(help="Where to train.")] = Device.cpu,
    changes: RecipeChanges = None,
    checkpoints: Checkpoints = None,
    as_json: Json = False,
) -> None:
    """Tune the learning rate of every architecture of a plan.

    At the two smallest budgets, at the size nearest the centre: the plan's rate, its half and its double, and on until the best
    one is bracketed. The best rate over the plan's, a mean of the two budgets, goes for all sizes of the architecture:
    `archlab scale plan ... --tuned tune.db`. After Ctrl-C the same command does the rest.

    For example: `archlab scale tune plan.yaml --store tune.db`
    """
    from archlab import scaling
    from archlab.cli.options import executor_at
    from archlab.cli.output import message, print_json, print_table
    from archlab.reports.scaling_tables import terminal_table, tuning_table

    with _interruptible(store):
        found = scaling.tune(
            plan,
            store=store,
            recipe=_recipe(changes),
            device=device.value,
            executor=executor_at(executor, ray_address),
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


@app.command()
def run(
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="A file that `archlab scale plan` wrote.")],
    store: Store = DEFAULT_STORE,
    files: LayerFiles = None,
    executor: Executor = "local",
    ray_address: RayAddress = None,
    priority: Priority = 0,
    workers: Workers = None,
    time_limit: TimeLimit = None,
    device: Annotated[Device, typer.Option(help="Where to train.")] = Device.cpu,
    changes: RecipeChanges = None,
    checkpoints: Checkpoints = None,
    keep: Annotated[
        Literal["weights", "checkpoints", "none"],
        typer.Option(help="Files of a finished model to keep beside the store: weights, its last checkpoint too, or none."),
    ] = "weights",
    params: Annotated[
        str | None, typer.Option(metavar="LOW,HIGH", help="Only models from LOW to HIGH parameters, as in `0,1e9`.")
    ] = None,
    replicas: Annotated[
        int,
        typer.Option(min=1, help="Under torchrun: groups of processes that hold a whole model each, such as one a node (HSDP)."),
    ] = 1,
    log: Log = None,
    as_json: Json = False,
) -> None:
    """Train the language models of a plan that the store lacks.

    On this machine they train side by side, one to a worker. Started by `torchrun --no-python`, they train one after the
    other, each over all processes (FSDP). After Ctrl-C, a crash or kill -9 the same command does the rest: every training
    run goes on from its last checkpoint.

    For example: `archlab scale run plan.yaml --store scaling.db`
    """
    from archlab import logger, scaling
    from archlab.cli.options import executor_at
    from archlab.cli.output import message, print_json, store_option

    if executor == "workers":
        message(f"`archlab work{store_option(store)}` on any machine computes what is submitted")
    trials: dict[str, LMTrial] = {}

    def note_trials(event: "Event") -> None:
        trials.update({trial.key: trial for trial in getattr(event, "jobs", ())})

    loggers = [logger(where) for where in log or ()]
    with _interruptible(store, executor):
        summary = scaling.train(
            plan,
            store=store,
            recipe=_recipe(changes),
            device=device.value,
            executor=executor_at(executor, ray_address),
            workers=workers,
            time_limit=time_limit,
            checkpoints=checkpoints,
            keep=keep,
            params=None if params is None else numbers("--params", params),
            replicas=replicas,
            priority=priority,
            listeners=[note_trials, _live_view(), *loggers],
        )
    if not summary.total:  # a process that follows the first one
        return
    _report(summary, trials, store)
    if as_json:
        print_json(_document(summary, trials))
    if summary.failed:
        sys.exit(1)


@app.command(name="import")
def import_table(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="A .csv, .tsv, .json, .jsonl or .parquet file.")],
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=COLUMN,...",
            help="Columns of N (parameters), D (tokens), C (FLOPs), loss, architecture (several joined by +), seed, budget; "
            "a factor as in D=tokens*1e9; usual names are found.",
        ),
    ] = None,
    loss_unit: Annotated[
        Literal["nats", "bits", "perplexity"] | None,
        typer.Option(
            help="Unit of the losses: nats or bits a token, or perplexity; by default what the column's name says, or nats."
        ),
    ] = None,
    flops: Annotated[
        Literal["column", "6nd"], typer.Option(help="Where a table has N, D and C: take the column of FLOPs, or 6 N D.")
    ] = "column",
    output: Annotated[str, typer.Option("--output", "-o", metavar="PATH", help="The store to write to.")] = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Import training runs of others, a row each, into a store, for `fit`, `compare`, `predict` and `report`.

    Two of N, D and C are enough: the third follows from C = 6 N D. Training runs whose FLOPs lie within 5 % share a budget.

    For example: `archlab scale import runs.csv --columns N=params,D=tokens,loss=val_loss,architecture=model -o study.db`
    """
    from archlab.cli.output import message, print_json, store_option
    from archlab.format import count
    from archlab.scaling.imports import import_runs

    found = import_runs(table, output, _columns(columns or ""), loss_unit=loss_unit, flops=flops)
    if as_json:
        print_json(found)
        return
    message("columns: " + ", ".join(f"{name}={column}" for name, column in found["columns"].items()))
    if found["loss_unit"] != "nats":
        message(f"losses: from {found['loss_unit']} to nats")
    message(f"FLOPs: {found['flops']}" + _beside_6nd(found["flops_over_6nd"], found["flops"]))
    if len(found["architectures"]) > 1:
        message(f"architectures: {_counted(found['architectures'])}")
    message(f"budgets: {_counted({f'{budget:.3g}': number for budget, number in found['budgets'].items()})}")
    for note in found["notes"]:
        message(f"warning: {note}")
    message(f"{count(found['runs'], 'training run')} in {output}, {found['without_loss']} without a loss")
    message(f"`archlab scale fit{store_option(output)}` fits the laws")


def _columns(text: str) -> dict[str, str]:
    """``N=params,loss=loss, val`` as columns by name: a comma without a name and = behind it is part of a column's name."""
    from archlab.errors import ArchlabError

    given: dict[str, str] = {}
    for part in re.split(r",(?=[^,=]*=)", text) if text.strip() else ():
        name, _, column = (piece.strip() for piece in part.partition("="))
        if not name or not column:
            raise ArchlabError(f"--columns {part}: write NAME=COLUMN, as in N=params")
        if name in given:
            raise ArchlabError(f"--columns {name}={column}: {name} is given twice")
        given[name] = column
    return given


def _counted(numbers: dict[str, int]) -> str:
    """Names with numbers of runs; of many the first ten and the last."""
    shown = [f"{name} ({number})" for name, number in numbers.items()]
    return ", ".join(shown if len(shown) <= 12 else [*shown[:10], f"{len(shown) - 11} more", shown[-1]])


def _beside_6nd(ratio: tuple[float, float, float] | None, taken: str) -> str:
    if ratio is None:
        return ""
    low, middle, high = (f"{number:.3g}" for number in ratio)
    fix = "; `--flops 6nd` takes 6 N D" if taken != "6 N D" and (low, high) != ("1", "1") else ""
    return f"; the column is {low} to {high} times 6 N D, in the middle {middle}{fix}"


@contextmanager
def _interruptible(store: str, executor: str = "local") -> "Iterator[None]":
    """End with the exit status of the signal that ended training, and a line that says how to go on."""
    from archlab.cli.output import how_to_go_on, message
    from archlab.cli.signals import status_of, terminable
    from archlab.scaling.result import Interrupted

    try:
        with terminable():
            yield
    except KeyboardInterrupt as stopped:
        message(how_to_go_on(store, executor))
        sys.exit(status_of(stopped))
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


def numbers(option: str, text: str) -> tuple[float, ...]:
    """Numbers between commas; refuses anything else and names the option."""
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
