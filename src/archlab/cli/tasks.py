"""archlab tasks: list the synthetic tasks, look at what they draw."""

from enum import StrEnum
from typing import Annotated

import typer

from archlab.cli.options import Json, TaskFiles

app = typer.Typer()


class SplitName(StrEnum):
    """Splits; training sequences are drawn in the task's training variant."""

    train = "train"
    validation = "validation"
    test = "test"


@app.callback(invoke_without_command=True)
def tasks(context: typer.Context) -> None:
    """List the synthetic tasks and look at what they draw."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("list")
def list_tasks(task_files: TaskFiles = None, as_json: Json = False) -> None:
    """List the tasks with the knobs of their base settings, what guessing reaches, and what they ask."""
    from archlab.cli.output import print_json, print_table
    from archlab.reports.instance import task_table
    from archlab.tasks import registry, setting

    tasks = [setting(name) for name in registry()]
    if as_json:
        print_json(
            [
                {"task": t.name, "short": t.short, "summary": t.summary, "backbone": t.backbone, "chance": t.chance}
                | {"knobs": t.knobs()}
                for t in tasks
            ]
        )
    else:
        print_table(task_table(tasks))


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A task, by its name or short name: `archlab tasks list` has both.")],
    split: Annotated[
        SplitName,
        typer.Option(help="In the recall tasks, every next token of the training split is a target, of the others only answers."),
    ] = SplitName.test,
    seed: Annotated[int, typer.Option(help="Seed of the draw: another seed, another sequence.")] = 0,
    protocol: Annotated[
        str | None,
        typer.Option(help="Draw what this protocol (a name, or the path of a YAML file) trains, and say what else it varies."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KNOB=VALUE", help="Change a knob, as in `--set length=32`; repeatable."),
    ] = None,
    task_files: TaskFiles = None,
    as_json: Json = False,
) -> None:
    """Draw one sequence of a task and print it for a person: tokens by role, the answers beneath.

    Without `--protocol` it is the base setting of the paper.

    For example: `archlab tasks show copy --protocol quick --set num_tokens_to_copy=6`
    """
    from rich.console import Group

    from archlab.cli.options import key_value
    from archlab.cli.output import print_json, print_table
    from archlab.mad.protocol import load_protocol
    from archlab.reports.instance import render_instance, render_setting
    from archlab.tasks import sample, setting
    from archlab.tasks.registry import find_task

    name = find_task(name).name
    settings = load_protocol(protocol).with_tasks([name]).tasks[name].settings if protocol else (setting(name),)
    task = setting(name, **settings[0].knobs() | dict(key_value("--set", change) for change in changes or []))
    inputs, targets = sample(task, split.value, n=1, seed=seed)
    if as_json:
        document = {"task": task.name, "knobs": task.knobs(), "chance": task.chance, "split": split.value, "seed": seed}
        roles = {role: [ids.start, ids.stop] for role, ids in task.describe_tokens().items()}
        print_json(document | {"roles": roles, "inputs": inputs[0].tolist(), "targets": targets[0].tolist()})
    else:
        print_table(Group(render_setting(task, settings), render_instance(task, inputs[0], targets[0])))
