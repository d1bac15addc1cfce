"""archlab scale: plan, train and fit ladders of language models."""

from typing import Annotated

import typer

from archlab.cli import ladders
from archlab.cli.layer_files import LayerFiles
from archlab.cli.plans import Seeds

app = typer.Typer(help="Scaling laws: plan, train and fit ladders of language models.", no_args_is_help=False)
app.command()(ladders.run)
app.command()(ladders.fit)
app.command()(ladders.predict)
app.command()(ladders.report)


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
    files: LayerFiles = None,
    repeat: Annotated[bool, typer.Option("--repeat", help="Read the corpus more than once where a run needs it.")] = False,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Any other field of the ladder: spread, params, batch_size, learning_rate, min_steps, aspect, head_dim, "
            "convention (exact, paper, 6nd), vocab_size, peak_flops, utilisation, gpus; repeatable.",
        ),
    ] = None,
    output: Annotated[str, typer.Option("--output", "-o", metavar="PATH", help="The plan's file.")] = "plan.yaml",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and what it takes; write no file.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> None:
    """Plan an IsoFLOP study: budgets, sizes around each optimum, and the steps that spend the budget.

    The corpus is prepared on first use and kept in the cache folder. The plan is a file to read and to edit; train it by
    `archlab scale run plan.yaml`.

    For example: `archlab scale plan transformer++ striped-hyena --budgets 2e11,4e11,8e11 --sizes 5 --data stdlib`
    """
    from archlab.cli.planning import narrowed_ladder, show_plan

    narrowed = narrowed_ladder(
        ladder,
        {"budgets": budgets, "sizes": sizes, "data": data, "tokenizer": tokenizer, "length": length, "repeat": repeat or None},
        seeds,
        changes or [],
    )
    show_plan(narrowed, specs or [], None if dry_run else output, as_json=as_json)
