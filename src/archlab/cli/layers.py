"""archlab layers: list the layers, or show one."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from archlab.cli.options import Json, LayerFiles

if TYPE_CHECKING:
    from archlab.layers import Composite, LayerConfig


def layers(
    name: Annotated[str | None, typer.Argument(help="Show this layer: what it computes, its knobs, paper and costs.")] = None,
    dim: Annotated[int, typer.Option(help="Width of the model.")] = 128,
    length: Annotated[int, typer.Option(help="Positions of a sequence, at which costs are counted.")] = 128,
    files: LayerFiles = None,
    as_json: Json = False,
) -> None:
    """List the layers with their knobs, parameters, state and forward FLOPs at a width and length; or show one.

    A layer maps a sequence of vectors to one of the same shape. Sequence mixers let a token see those before it; channel
    mixers act on each token by itself. At the end of the list stand layers that are made of other layers, as in
    `parallel(mamba, mh-attention)`; their costs depend on these.

    For example: `archlab layers mamba`
    """
    from archlab.architectures.catalogue import CATALOGUE
    from archlab.cli.options import check_sizes
    from archlab.cli.output import print_json
    from archlab.errors import ArchlabError
    from archlab.layers import layer, registry
    from archlab.layers.registry import composites

    check_sizes(length=length, dim=dim)
    if name is not None:
        if name in CATALOGUE and name not in registry():
            raise ArchlabError(f"{name} is an architecture: `archlab architectures {name}` shows it")
        row = _topology_row(composites()[name]) if name in composites() else _layer_row(layer(name), dim, length)
        if as_json:
            print_json(row)
        else:
            _print_layer(row, dim, length)
        return
    configs = sorted(map(layer, registry()), key=lambda config: (config.kind != "sequence", config.name))
    rows = [_layer_row(config, dim, length) for config in configs]
    topologies = [_topology_row(config) for _, config in sorted(composites().items())]
    if as_json:
        print_json(rows + topologies)
    else:
        _print_layers(rows, topologies, dim, length)


def _layer_row(config: "LayerConfig", dim: int, length: int) -> dict[str, Any]:
    from archlab.architectures import Architecture
    from archlab.errors import ArchlabError
    from archlab.layers.external.check import check_accounting

    row = _row(type(config), config.kind, config.knobs()) | {"attention": config.is_attention}
    try:
        Architecture((config,)).validate(dim)
        check_accounting([config], dim, length)
    except ArchlabError:  # as its knobs are by default; with others it may fit
        return row
    costs = config.num_params(dim, length), config.state_size(dim, length), config.flops(dim, length)
    return row | dict(zip(("parameters", "state", "flops"), costs, strict=True))


def _topology_row(config: "type[Composite]") -> dict[str, Any]:
    from dataclasses import fields

    return _row(config, None, {field.name: field.default for field in fields(config) if field.name != "layers"})


def _row(config: "type[LayerConfig]", kind: str | None, knobs: dict[str, Any]) -> dict[str, Any]:
    from inspect import cleandoc

    from archlab.layers.equations import equation

    return {
        "layer": config.name,
        "mixes": kind,
        "equation": equation(config.name),
        "summary": cleandoc(getattr(config, "factory", config).__doc__ or ""),  # a path names a module with its own
        "knobs": knobs,
        "paper": config.paper,
        "attention": None,
        "parameters": None,
        "state": None,
        "flops": None,
    }


def plain_docstring(docstring: str) -> str:
    """A docstring without its markup, a paragraph a line; configs of layers by the names of their layers."""
    import re

    from archlab.layers import registry

    names = {config.__name__: name for name, config in registry().items()}
    text = re.sub(r":\w+:`~?([^`]*)`", r"\1", docstring).replace("``", "")
    text = re.sub(r"(?:archlab\.[\w.]+\.)?\b(\w+Config)\b", lambda found: names.get(found[1], found[1]), text)
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _print_layer(row: dict[str, Any], dim: int, length: int) -> None:
    from rich.table import Table
    from rich.text import Text

    from archlab.cli.output import print_table

    costs = ", ".join(f"{row[cost]:,} {cost}" for cost in ("parameters", "state") if row[cost] is not None)
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_row("layer", Text(row["layer"]))
    table.add_row("kind", f"{row['mixes']} mixer" if row["mixes"] else "made of other layers, and mixes what they mix")
    if row["attention"] is not None:
        table.add_row("attention", "yes: a token sees the whole past" if row["attention"] else "no")
    table.add_row("paper", Text(row["paper"]))
    table.add_row("knobs", Text(", ".join(f"{knob}={value}" for knob, value in row["knobs"].items()) or "none"))
    if row["mixes"]:
        unknown = "does not fit this width with its knobs at their defaults"
        costs = f"{costs}, {row['flops']:,} FLOPs a sequence" if row["flops"] is not None else unknown
        table.add_row("costs", f"{costs}, at width {dim} and length {length}")
    print_table(table)
    for text in filter(None, (row["equation"], plain_docstring(row["summary"]))):
        print_table(Text(f"\n{text}"))


def _print_layers(rows: list[dict[str, Any]], topologies: list[dict[str, Any]], dim: int, length: int) -> None:
    from rich.table import Table
    from rich.text import Text

    from archlab.cli.output import output_console, print_table
    from archlab.format import human

    wide = output_console().width >= 110
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    unfit = (
        "; – does not fit this width as it is, or cannot say what it costs"
        if any(row["parameters"] is None for row in rows)
        else ""
    )
    notes = f"at width {dim} and length {length}, knobs at their defaults{unfit}; layers of layers cost what they are made of"
    table.caption = Text(notes, style="dim")
    table.add_column("layer", no_wrap=True)
    table.add_column("knobs", overflow="fold")
    for head in ("params", "state", "FLOPs"):
        table.add_column(head, justify="right", no_wrap=True)
    if wide:
        table.add_column("paper", overflow="fold")
    groups = {f"{kind} mixers": [row for row in rows if row["mixes"] == kind] for kind in ("sequence", "channel")}
    for group, members in (groups | {"layers of layers": topologies}).items():
        table.add_row(Text(group, style="dim"))
        for row in members:
            knobs = ", ".join(f"{knob}={value}" for knob, value in row["knobs"].items())
            fits = row["parameters"] is not None
            costs = (human(row[cost]) if fits else "–" for cost in ("parameters", "state", "flops"))
            table.add_row(Text(row["layer"]), Text(knobs), *costs, *([Text(row["paper"])] if wide else []))
    print_table(table)
