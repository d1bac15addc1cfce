"""The options that several commands share: files of layers and tasks, the store, and what narrows a protocol."""

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from archlab.architectures import Architecture
    from archlab.mad.protocol import Protocol


def _import_files(files: list[str] | None, kind: Literal["layers", "tasks"]) -> list[str] | None:
    """Import files of layers or tasks; refuse one that registers none."""
    if files:
        from archlab import layers, tasks
        from archlab.errors import ArchlabError
        from archlab.layers.registry import composites
        from archlab.sources import import_file, imported

        def registered() -> dict[str, list[type]]:
            return {"layers": [*layers.registry().values(), *composites().values()], "tasks": [*tasks.registry().values()]}

        for file in files:
            known = registered()
            import_file(file, kind)
            new = {
                each: any(one not in known[each] or one.__module__ == imported[-1] for one in ones)
                for each, ones in registered().items()
            }
            other, option = ("tasks", "--tasks-file") if kind == "layers" else ("layers", "--layers")
            if not new[kind] and (new[other] or kind == "tasks"):
                fix = f"give it by {option}" if new[other] else "decorate a task by @register"
                raise ArchlabError(f"{kind} file {file}: registers no {kind}: {fix}")
    return files


def _import_layers(files: list[str] | None) -> list[str] | None:
    return _import_files(files, "layers")


def _import_tasks(files: list[str] | None) -> list[str] | None:
    return _import_files(files, "tasks")


DEFAULT_STORE = "archlab.db"
Store = Annotated[
    str, typer.Option(metavar="PATH|URL", envvar="ARCHLAB_STORE", help="Results: an SQLite file, or any SQLAlchemy URL.")
]
Executor = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Where the workers run: local, processes of this machine; ray, on a Ray cluster; workers, wherever `archlab work` "
        "is given the same store: this command submits and watches.",
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", help="With --executor ray: the cluster, as in auto or HOST:6379.", show_default="RAY_ADDRESS"
    ),
]
Priority = Annotated[int, typer.Option(help="With --executor workers: what has the highest is computed first.")]
KeepTrials = Annotated[
    Literal["weights", "none"],
    typer.Option(
        "--keep",
        help="Keep beside the store, of each trial that is computed, the weights that are scored, for `archlab export` and "
        "`archlab.load_model`.",
    ),
]
Workers = Annotated[int | None, typer.Option(min=1, max=1024, help="Number of workers; by default one a core, or one a GPU.")]
TimeLimit = Annotated[
    float | None,
    typer.Option(
        metavar="MINUTES",
        help="End what has not ended after so long, each by itself.",
        show_default="20 times the predicted time, at least 15",
    ),
]
Dim = Annotated[int | None, typer.Option(help="Width of the model.", show_default="128, or the protocol's")]
Length = Annotated[
    int | None,
    typer.Option(
        help="Positions of a sequence, at which costs are counted; longer windows are cut to it.",
        show_default="128, or the longest of the protocol",
    ),
]
SizesOf = Annotated[
    str | None,
    typer.Option(
        "--protocol", help="Take width, length and the knobs that a spec leaves open from this protocol, as `archlab run` does."
    ),
]
Tasks = Annotated[
    str | None, typer.Option(metavar="A,B,...", help="Only these tasks, by name or short name, as in `recall,copy`.")
]
Architectures = Annotated[
    list[str] | None, typer.Option("--architecture", metavar="LABEL", help="Only this architecture; repeatable.")
]
Settings = Annotated[str, typer.Option(metavar="base|all", help="All settings, or each task's base setting only.")]
GridValues = Annotated[
    list[str] | None,
    typer.Option(
        "--grid",
        metavar="lr=A,B|wd=A,B",
        help="Learning rates or weight decays in place of the protocol's; once for each, as in `--grid lr=1e-3 --grid wd=0,0.1`.",
    ),
]
Seeds = Annotated[
    str | None,
    typer.Option(
        metavar="N|A,B,...", help="Number of seeds (`3`: 0, 1 and 2), or a list (`0,7`); a list of one ends with a comma."
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a knob of every task that has it (`length=256`), of one (`compression.length=64`), a field of the recipe "
        "(`recipe.steps=2000`) or the width (`dim=64`); repeatable.",
    ),
]
Log = Annotated[
    list[str] | None,
    typer.Option(
        "--log",
        metavar="WHERE",
        help="Log the run as it goes: a file that ends in `.jsonl`, `tensorboard:FOLDER`, `trackio:PROJECT`, `wandb:PROJECT` or "
        "`mlflow:EXPERIMENT`; repeatable.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
# Their callbacks import the files; commands ignore the values.
LayerFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--layers",
        metavar="FILE",
        callback=_import_layers,
        help="A Python file that registers layers of your own, or whose modules the spec names by their path; repeatable.",
    ),
]
TaskFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--tasks-file",
        metavar="FILE",
        callback=_import_tasks,
        help="A Python file that registers tasks of your own; repeatable.",
    ),
]


def executor_at(executor: str, ray_address: str | None) -> str:
    """The executor by the name that the library takes, with the address of its cluster.

    Raises:
        ArchlabError: an address that the executor does not have.
    """
    from archlab.errors import ArchlabError

    if ray_address is not None and executor != "ray":
        raise ArchlabError(f"--ray-address {ray_address}: --executor {executor} has no address: give --executor ray")
    return executor if ray_address is None else f"{executor}:{ray_address}"


def refuse_options_before_command(context: typer.Context) -> None:
    """Refuse options that stand between a group and its command: the command would not see them.

    Raises:
        ArchlabError: naming the option, and where to write it.
    """
    from archlab.errors import ArchlabError

    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if source is not None and source.name == "COMMANDLINE":
            option, command = parameter.opts[0], context.invoked_subcommand
            example = f"{context.command_path} {command} {option} ..."
            raise ArchlabError(f"{option} before {command} has no effect on it: write {option} behind it, as in `{example}`")


def narrowed(
    protocol: "Protocol",
    tasks: str | None,
    settings: str,
    grid: list[str] | None,
    seeds: str | None,
    changes: list[str] | None,
) -> "Protocol":
    """The protocol as the options narrow it."""
    if (names := task_names(tasks)) is not None:
        protocol = protocol.with_tasks(names)
    protocol = protocol.with_settings(settings)
    if grid:
        protocol = protocol.with_grid(**_grid(grid))
    if seeds is not None:
        protocol = protocol.with_seeds(seed_list(seeds))
    for change in changes or []:
        key, value = key_value("--set", change)
        protocol = protocol.with_value(key, value)
    return protocol


def at_size(spec: str, protocol: str | None, dim: int | None, length: int | None) -> "tuple[Architecture, int, int]":
    """The architecture of a spec, with the width and the length that the options ask for.

    Raises:
        ArchlabError: the spec or the protocol cannot be read, or a number is out of bounds.
    """
    from archlab.architectures import architecture
    from archlab.mad.protocol import load_protocol

    chosen = load_protocol(protocol) if protocol is not None else None
    value = architecture(spec, layer_defaults=chosen.layer_defaults if chosen else None)
    dim = dim if dim is not None else chosen.dim if chosen else 128
    length = length if length is not None else chosen.max_length if chosen else 128
    check_sizes(dim=dim, length=length)
    return value, dim, length


def check_sizes(**options: int) -> None:
    """Check numbers of positions, channels and the like.

    Raises:
        ArchlabError: naming the option, its value and the bound.
    """
    from archlab.errors import ArchlabError
    from archlab.layers.knobs import LARGEST

    for name, value in options.items():
        if not 1 <= value <= LARGEST:
            bound = "at least 1" if value < 1 else f"at most {LARGEST:,}"
            raise ArchlabError(f"--{name.replace('_', '-')} {value}: must be {bound}")


def key_value(option: str, text: str) -> tuple[str, Any]:
    """``"length=256"`` as a key and a YAML scalar; numbers with commas between them, as ``2,4`` or ``[2, 4]``, as a list."""
    from archlab.errors import ArchlabError
    from archlab.fields import read_yaml

    key, equals, value = text.partition("=")
    try:
        parsed = read_yaml(f"[{value}]" if re.fullmatch(r"\s*[\d.eE+-]+(\s*,\s*[\d.eE+-]+)+\s*", value) else value)
    except ArchlabError:
        parsed = None
    if not (key.strip() and equals) or parsed is None or isinstance(parsed, dict):
        raise ArchlabError(f"{option} {text}: write KEY=VALUE, as in {option} length=32")
    return key.strip(), parsed


def task_names(text: str | None) -> list[str] | None:
    """The value of ``--tasks`` as names.

    Raises:
        ArchlabError: it names no task.
    """
    from archlab.errors import ArchlabError

    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ArchlabError(f"--tasks {text!r} names no task: `archlab tasks` lists them")
    return names


def _grid(texts: list[str]) -> dict[str, list[float]]:
    from archlab.errors import ArchlabError

    names = {"lr": "learning_rate", "wd": "weight_decay", "learning_rate": "learning_rate", "weight_decay": "weight_decay"}
    grid: dict[str, list[float]] = {}
    for text in texts:
        name, _, values = text.partition("=")
        try:
            numbers = list(dict.fromkeys(float(value) for value in values.split(",")))
            axis = names[name.strip()]
        except (KeyError, ValueError):
            raise ArchlabError(f"--grid {text}: write lr=1e-3,5e-4 or wd=0,0.1") from None
        if axis in grid:
            raise ArchlabError(f"--grid {text}: {name} is given twice: write --grid {name}=A,B")
        grid[axis] = numbers
    return grid


def seed_list(text: str) -> list[int]:
    """`3` as 0, 1, 2; `0,7` as these."""
    from archlab.errors import ArchlabError
    from archlab.fields import MOST_SEEDS

    try:
        seeds = list(dict.fromkeys(int(seed) for seed in text.split(",") if seed.strip()))
    except ValueError:
        seeds = []
    if "," not in text and seeds and seeds[0] > MOST_SEEDS:
        raise ArchlabError(f"--seeds {text}: give at most {MOST_SEEDS:,}; one seed alone ends with a comma")
    if "," not in text:
        seeds = list(range(seeds[0])) if seeds else []
    if not seeds or min(seeds) < 0:
        raise ArchlabError(f"--seeds {text}: give how many (3), or which (0,4,7; one alone as 7,)")
    return seeds
