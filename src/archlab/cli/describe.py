"""archlab describe, architectures, protocols: what there is and what it costs."""

from typing import TYPE_CHECKING, Annotated

import typer

from archlab.cli.options import Dim, Json, LayerFiles, Length, SizesOf, TaskFiles

if TYPE_CHECKING:
    from collections.abc import Iterable

    from archlab.architectures import Architecture
    from archlab.errors import ArchlabError


def describe(
    spec: Annotated[
        str,
        typer.Argument(help="Layers in order, as in 'mh-hyena swiglu mh-attention swiglu', or a catalogue name."),
    ],
    protocol: SizesOf = None,
    length: Length = None,
    dim: Dim = None,
    vocab_size: Annotated[int, typer.Option(help="Size of the vocabulary, for embedding and unembedding.")] = 16,
    files: LayerFiles = None,
    task_files: TaskFiles = None,
    picture: Annotated[str | None, typer.Option("--svg", metavar="FILE", help="Draw the stack too, as an SVG file.")] = None,
    as_json: Json = False,
) -> None:
    """Show an architecture layer by layer: parameters, state, forward FLOPs, and the totals.

    State is all that is carried from token to token at inference, in scalars; the matrix state is the part of it that holds
    content: matrix and state-space states, keys and values, without what convolutions look back on and sums that
    normalise. `archlab normalise` makes that part equal.

    FLOPs are those of one forward pass over one sequence, a multiply-add counted as 2; active are those that the
    outputs need, without the experts that a token was not routed to. Arithmetic intensity sets FLOPs against the bytes
    of all weights and of every layer's input and output, each moved once in float32.

    A warning on standard error says if no layer mixes along the sequence, and if a layer from outside archlab is unsound,
    for example because it reads the future.
    """
    from archlab.cli.options import at_size, check_sizes
    from archlab.cli.output import message, print_json, print_table
    from archlab.errors import ArchlabError
    from archlab.layers.external.check import check_accounting, check_third_party
    from archlab.reports.tables import architecture_dict, architecture_table

    value, dim, length = at_size(spec, protocol, dim, length)
    check_sizes(vocab_size=vocab_size)
    value.validate(dim)
    check_accounting(value.layers, dim, length)
    warn_of([value])
    if picture is not None:
        from archlab.reports.stack_drawing import write_stack

        write_stack(value, picture, dim=dim, length=length)
        message(f"wrote {picture}")
    try:
        check_third_party(value.layers, dim, (length,))
    except ArchlabError as error:
        message(f"warning: {error}; `archlab run` refuses it")
    if as_json:
        print_json(architecture_dict(value, vocab_size=vocab_size, length=length, dim=dim))
    else:
        print_table(architecture_table(value, vocab_size=vocab_size, length=length, dim=dim))


def warn_of(architectures: "Iterable[Architecture]") -> None:
    """Name the architectures without a sequence mixer, on standard error."""
    from archlab.cli.output import message

    for value in architectures:
        if warning := value.warning():
            message(f"warning: {warning}")


def architectures(
    name: Annotated[str | None, typer.Argument(help="Show this architecture: its layers, what they compute, and costs.")] = None,
    dim: Dim = None,
    length: Length = None,
    as_json: Json = False,
) -> None:
    """List the catalogue: architectures that have a name, with their specs; or show one.

    For example: `archlab architectures striped-hyena`
    """
    from archlab.architectures.catalogue import CATALOGUE
    from archlab.cli.output import print_json, print_table
    from archlab.reports.tables import plain_table

    if name is not None:
        _show_architecture(name, dim, length, as_json)
        return
    rows = [{"name": name, "spec": entry.spec, "summary": entry.summary} for name, entry in CATALOGUE.items()]
    if as_json:
        print_json(rows)
    else:
        print_table(plain_table(rows))


def _show_architecture(name: str, dim: int | None, length: int | None, as_json: bool) -> None:
    from inspect import getdoc

    from rich.text import Text

    from archlab.architectures.catalogue import CATALOGUE
    from archlab.cli.layers import plain_docstring
    from archlab.cli.options import at_size
    from archlab.cli.output import print_json, print_table
    from archlab.errors import unknown
    from archlab.layers.equations import equation
    from archlab.reports.tables import architecture_dict, architecture_table

    if name not in CATALOGUE:
        raise _elsewhere(name) or unknown("architecture of the catalogue", name, CATALOGUE)
    value, dim, length = at_size(name, None, dim, length)
    layers = list(dict.fromkeys(value.layers))
    if as_json:
        about = [{"layer": str(one), "knobs": one.knobs(), "paper": one.paper} for one in layers]
        found = architecture_dict(value, vocab_size=16, length=length, dim=dim)
        print_json({"name": name, "summary": CATALOGUE[name].summary, "layers": about, "costs": found})
        return
    print_table(Text(f"{name} = {value}: {CATALOGUE[name].summary}\n"))
    print_table(architecture_table(value, vocab_size=16, length=length, dim=dim))
    for one in layers:
        knobs = ", ".join(f"{knob}={setting}" for knob, setting in one.knobs().items()) or "none"
        text = "\n\n".join(filter(None, (equation(one.name), plain_docstring(getdoc(one) or ""))))
        print_table(Text.assemble("\n", (one.name, "bold"), f" ({one.paper}), knobs: {knobs}\n{text}"))


def _elsewhere(name: str) -> "ArchlabError | None":
    """The refusal of a layer or spec in place of a name of the catalogue, with the command that shows it."""
    import shlex

    from archlab.architectures import architecture
    from archlab.errors import ArchlabError
    from archlab.layers import registry

    if name in registry():
        return ArchlabError(f"{name} is a layer: `archlab layers {name}` shows it")
    try:
        architecture(name)
    except ArchlabError:
        return None
    return ArchlabError(f"{name} is not in the catalogue: `archlab describe {shlex.quote(name)}` shows it")


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
                "trials": protocol.num_trials,
                "summary": protocol.summary,
            }
        )
    if as_json:
        print_json(rows)
    else:
        print_table(plain_table(rows))
