"""archlab describe, architectures, layers, protocols: what there is and what it costs."""

from typing import Annotated

import typer

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
    as_json: Json = False,
) -> None:
    """Show an architecture layer by layer: parameters, state, forward FLOPs, and the totals.

    State is what is carried from token to token at inference; FLOPs are those of one forward pass over one
    sequence, a multiply-add counted as 2.
    """
    from archlab.architectures import architecture
    from archlab.cli.output import print_json, print_table
    from archlab.reports.tables import architecture_dict, architecture_table

    value = architecture(spec)
    value.validate(dim)
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


def layers(dim: Dim = 128, length: Length = 128, as_json: Json = False) -> None:
    """List the layers with their knobs, parameters, state and forward FLOPs at a width and length."""
    from archlab.cli.output import print_json, print_table
    from archlab.layers import registry
    from archlab.reports.tables import plain_table

    rows = []
    for name, config in sorted(registry().items(), key=lambda item: (item[1].kind != "sequence", item[0])):
        default = config()
        default.validate(dim)
        rows.append(
            {
                "layer": name,
                "mixes": config.kind,
                "knobs": ", ".join(f"{knob}={value}" for knob, value in default.knobs().items()),
                "parameters": default.num_params(dim, length),
                "state": default.state_size(dim, length),
                "FLOPs": default.flops(dim, length),
                "paper": config.paper,
            }
        )
    if as_json:
        print_json(rows)
    else:
        print_table(plain_table(rows))


def protocols(
    name: Annotated[str | None, typer.Argument(help="Show this protocol's file: a start for one of your own.")] = None,
    as_json: Json = False,
) -> None:
    """List the protocols, or show one.

    Copy a protocol's file, change it, and give its path to `archlab run --protocol my.yaml`.
    """
    from archlab.benchmark.protocol import load_protocol, protocol_names, protocol_text
    from archlab.cli.output import print_json, print_table
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
