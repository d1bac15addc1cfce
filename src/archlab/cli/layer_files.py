"""The options that make the layers and tasks of files known, shared by every command that reads specs or tasks."""

from typing import Annotated

import typer


def _import_layers(files: list[str] | None) -> list[str] | None:
    from archlab.sources import import_file

    for file in files or []:
        import_file(file, "layers")
    return files


def _import_tasks(files: list[str] | None) -> list[str] | None:
    from archlab.sources import import_file

    for file in files or []:
        import_file(file, "tasks")
    return files


# The callbacks do all there is to do: a command need not know.
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
