"""What ``archlab scale plan`` does; imports weigh, so it is loaded inside the command."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from rich.table import Table
from rich.text import Text

from archlab.cli.output import message, print_json, print_table
from archlab.cli.plans import key_value, seed_list
from archlab.corpora import prepare
from archlab.errors import ArchlabError
from archlab.format import count, duration, human
from archlab.scaling.estimate import Cost, measured_costs, stated_costs
from archlab.scaling.ladder import Ladder, load_ladder
from archlab.scaling.launch import launch_commands
from archlab.scaling.plan import LMRun, Plan
from archlab.scaling.planner import make_plan, named_specs


def narrowed_ladder(name: str, options: Mapping[str, Any], seeds: str | None, changes: Sequence[str]) -> Ladder:
    """The ladder as the options change it."""
    ladder = load_ladder(name)
    values = dict(options)
    if values["budgets"] is not None:
        values["budgets"] = _numbers("--budgets", values["budgets"])
    if values["data"] is not None or values["tokenizer"] is not None:  # the ladder's fit its own data only
        ladder = replace(ladder, vocab_size=None, tokenizer=values["tokenizer"])
    for change in changes:
        field, value = key_value("--set", change)
        values[field] = _numbers(f"--set {field}=", str(value)) if field == "params" else value
    if seeds is not None:
        values["seeds"] = seed_list(seeds)
    return ladder.with_values(**values)


def show_plan(ladder: Ladder, specs: Sequence[str], output: str | None, *, as_json: bool) -> None:
    """Plan, print, and write the file if one is named."""
    named = named_specs(specs or ladder.architectures)  # a wrong name is told before a corpus is read
    corpus = prepare(ladder.data, ladder.tokenizer) if ladder.vocab_size is None else None
    plan = make_plan(ladder, named, corpus)
    plan.try_layers()
    if output is not None:
        plan.save(output)
    if ladder.peak_flops is None:
        costs = measured_costs(plan.runs)
    else:
        costs = stated_costs(plan.runs, ladder.peak_flops * ladder.utilisation)
    if as_json:
        runs = [asdict(run) | asdict(cost) for run, cost in zip(plan.runs, costs, strict=True)]
        print_json({"output": output, "runs": runs, "seconds": sum(cost.seconds for cost in costs)})
        return
    table = _table(plan, costs)
    table.caption = _notes(ladder, plan, costs)
    table.caption_justify = "left"
    print_table(table)
    if ladder.peak_flops is not None:
        for starter, command in launch_commands(output or "plan.yaml", ladder.gpus).items():
            print(f"# {starter}\n{command}")
    if output is not None:
        message(f"{output} has {count(len(plan.runs), 'run')}; `archlab scale run {output}` trains them")


def _table(plan: Plan, costs: Sequence[Cost]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("architecture", overflow="fold", min_width=12)
    for head in ("FLOPs", "params", "body", "shape", "state", "tokens", "batch", "steps", "lr", "takes", "memory"):
        table.add_column(head, justify="right", no_wrap=True)
    before: LMRun | None = None
    first = plan.runs[0].seed
    for run, cost in zip(plan.runs, costs, strict=True):
        if run.seed != first:
            continue
        table.add_row(
            Text("" if before and run.label == before.label else run.label),
            "" if before and (run.label, run.budget) == (before.label, before.budget) else f"{run.budget:.3g}".replace("e+", "e"),
            human(run.params),
            human(run.params_non_embedding),
            f"{run.dim}x{len(run.architecture.layers)}",
            human(run.state),
            human(run.tokens),
            str(run.batch_size),
            f"{run.steps}",
            f"{run.learning_rate:g}",
            duration(cost.seconds),
            _bytes(cost.bytes),
        )
        before = run
    return table


def _notes(ladder: Ladder, plan: Plan, costs: Sequence[Cost]) -> str:
    runs, seconds = plan.runs, sum(cost.seconds for cost in costs)
    seeds = f" ({len(ladder.seeds)} seeds of each)" if len(ladder.seeds) > 1 else ""
    notes = [
        f"{count(len(runs), 'run')}{seeds}, {sum(run.flops for run in runs):.3g} FLOPs by the convention {ladder.convention}"
    ]
    if ladder.peak_flops is None:
        notes.append(f"{duration(seconds)} in all on one thread of this machine, by timed steps")
    else:
        rate = f"{ladder.peak_flops * ladder.utilisation:.3g} FLOP/s ({ladder.utilisation:.0%} of {ladder.peak_flops:.3g})"
        notes.append(f"{seconds / 3600:,.0f} GPU-hours at {rate} a GPU; on {ladder.gpus} GPUs {duration(seconds / ladder.gpus)}")
    epochs = max((run.epochs or 0 for run in runs), default=0)
    notes.append(
        f"{ladder.data} is not prepared, a vocabulary of {ladder.vocab_size:,} is assumed"
        if runs[0].epochs is None
        else f"{ladder.data} by {runs[0].tokenizer}, vocabulary {runs[0].vocab_size:,}, read {epochs:.2g} times at most"
    )
    memory = "a step's peak with the whole batch"
    if ladder.peak_flops is not None:
        memory = "weights, gradients, AdamW's moments, shared out over the GPUs of a run; takes: on one GPU, all experts computed"
    notes.append(f"length {ladder.length}; body: parameters without embedding and unembedding; shape: width x layers")
    notes.append(f"memory: {memory}")
    return "; ".join(notes)


def _bytes(number: float) -> str:
    return f"{number / 2**20:.0f} MiB" if number < 2**30 else f"{number / 2**30:.1f} GiB"


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in text.split(",") if number.strip())
    except ValueError:
        raise ArchlabError(f"{option} {text}: give numbers, as in {option} 2e11,4e11") from None
