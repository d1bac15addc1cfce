"""archlab describe, architectures, layers, protocols: what there is and what it costs."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from archlab.cli.options import LayerFiles

if TYPE_CHECKING:
    from archlab.layers import Composite, LayerConfig

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output instead of a table.")]
Dim = Annotated[int, typer.Option(help="Width of the model.")]
Length = Annotated[int, typer.Option(help="Positions of a sequence, at which state and FLOPs are counted.")]


def describe(
    spec: Annotated[
        str,
        typer.Argument(help="Layers in order, as in 'mh-hyena swiglu mh-attention swiglu', or a catalogue name."),
    ],
    length: Length = 128,
    dim: Dim = 128,
    vocab_size: Annotated[int, typer.Option(help="Size of the vocabulary, for embedding and unembedding.")] = 16,
    files: LayerFiles = None,
    as_json: Json = False,
) -> None:
    """Show an architecture layer by layer: parameters, state, forward FLOPs, and the totals.

    State is all that is carried from token to token at inference, in scalars; matrices are the part of it that holds
    content: matrix and state-space states, keys and values, without what convolutions look back on and sums that
    normalise. `archlab normalise` makes that part equal.

    FLOPs are those of one forward pass over one sequence, a multiply-add counted as 2; active are those that the
    outputs need, without the experts that a token was not routed to. Arithmetic intensity sets FLOPs against the bytes
    of all weights and of every layer's input and output, each moved once in float32.
    """
    from archlab.architectures import architecture
    from archlab.cli.output import print_json, print_table
    from archlab.layers.external.check import check_accounting
    from archlab.reports.tables import architecture_dict, architecture_table

    _check(length=length, dim=dim, vocab_size=vocab_size)
    value = architecture(spec)
    value.validate(dim)
    check_accounting(value.layers, dim, length)
    if as_json:
        print_json(architecture_dict(value, vocab_size=vocab_size, length=length, dim=dim))
    else:
        print_table(architecture_table(value, vocab_size=vocab_size, length=length, dim=dim))


def architectures(as_json: Json = False) -> None:
    """List the catalogue: architectures that have a name, with their specs."""
    from archlab.architectures.catalogue import CATALOGUE
    from archlab.cli.output import print_json, print_table
    from archlab.reports.tables import plain_table

    rows = [{"name": name, "spec": entry.spec, "summary": entry.summary} for name, entry in CATALOGUE.items()]
    if as_json:
        print_json(rows)
    else:
        print_table(plain_table(rows))


def layers(dim: Dim = 128, length: Length = 128, files: LayerFiles = None, as_json: Json = False) -> None:
    """List the layers with their knobs, parameters, state and forward FLOPs at a width and length.

    At the end stand those that are made of other layers, as in `parallel(mamba, mh-attention)`; their costs depend on these.
    """
    from archlab.cli.output import print_json
    from archlab.layers import composites, layer, registry

    _check(length=length, dim=dim)
    configs = sorted(map(layer, registry()), key=lambda config: (config.kind != "sequence", config.name))
    rows = [_layer_row(config, dim, length) for config in configs]
    topologies = [_topology_row(config) for _, config in sorted(composites().items())]
    if as_json:
        print_json(rows + topologies)
    else:
        _print_layers(rows, topologies, dim, length)


def protocols(
    name: Annotated[str | None, typer.Argument(help="Show this protocol's file: a start for one of your own.")] = None,
    as_json: Json = False,
) -> None:
    """List the protocols, or show one.

    Copy a protocol's file, change it, and give its path to `archlab run --protocol my.yaml`.
    """
    from archlab.cli.output import print_json, print_table
    from archlab.mad.protocol import load_protocol, protocol_names, protocol_text
    from archlab.reports.tables import plain_table

    if name is not None:
        text = protocol_text(name)
        if as_json:
            import yaml

            print_json(yaml.safe_load(text))
        else:
            typer.echo(text, nl=False)
        return
    rows = []
    for known in protocol_names():
        protocol = load_protocol(known)
        rows.append(
            {
                "protocol": known,
                "tasks": len(protocol.tasks),
                "settings": sum(len(plan.settings) for plan in protocol.tasks.values()),
                "trainings": protocol.num_trials,
                "summary": protocol.summary,
            }
        )
    if as_json:
        print_json(rows)
    else:
        print_table(plain_table(rows))


def _layer_row(config: "LayerConfig", dim: int, length: int) -> dict[str, Any]:
    from archlab.architectures import Architecture
    from archlab.errors import ArchlabError
    from archlab.layers.external.check import check_accounting

    row: dict[str, Any] = {"layer": config.name, "mixes": config.kind, "knobs": config.knobs(), "paper": config.paper}
    try:
        Architecture((config,)).validate(dim)
        check_accounting([config], dim, length)
    except ArchlabError:  # as its knobs are by default; with others it may fit
        return row | {"parameters": None, "state": None, "flops": None}
    costs = config.num_params(dim, length), config.state_size(dim, length), config.flops(dim, length)
    return row | dict(zip(("parameters", "state", "flops"), costs, strict=True))


def _topology_row(config: "type[Composite]") -> dict[str, Any]:
    from dataclasses import fields

    knobs = {field.name: field.default for field in fields(config) if field.name != "layers"}
    costs = dict.fromkeys(("parameters", "state", "flops"))
    return {"layer": config.name, "mixes": None, "knobs": knobs, "paper": config.paper} | costs


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


def _check(**options: int) -> None:
    from archlab.errors import ArchlabError
    from archlab.layers.knobs import LARGEST

    for name, value in options.items():
        if not 1 <= value <= LARGEST:
            bound = "at least 1" if value < 1 else f"at most {LARGEST:,}"
            raise ArchlabError(f"--{name.replace('_', '-')} {value}: must be {bound}")
