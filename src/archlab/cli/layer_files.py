"""The option that makes layers of a file known, shared by every command that reads a spec."""

from typing import Annotated

import typer


def _import(files: list[str] | None) -> list[str] | None:
    if files:
        from archlab.layers.external.sources import import_file

        for file in files:
            import_file(file)
    return files


LayerFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--layers",
        metavar="FILE",
        callback=_import,  # takes effect by itself: a command need not know
        help="A Python file that registers layers of your own, or whose modules the spec names by their path; repeatable.",
    ),
]
