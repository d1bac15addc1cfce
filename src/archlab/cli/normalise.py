"""archlab normalise: an architecture at a given state and number of parameters."""

from typing import TYPE_CHECKING, Annotated

import typer

from archlab.cli.describe import Dim, Json
from archlab.cli.options import LayerFiles

if TYPE_CHECKING:
    from archlab.architectures.normalise import Normalised


def normalise(
    spec: Annotated[str, typer.Argument(help="Layers in order, as in '2*[mamba swiglu]', or a catalogue name.")],
    state: Annotated[int, typer.Option(help="Matrix state of all layers together, in scalars; the MAD paper takes 4096.")],
    params: Annotated[
        int | None, typer.Option(help="Parameters of all layers together, without embedding, unembedding and norms.")
    ] = None,
    dim: Dim = 128,
    length: Annotated[int, typer.Option(help="Positions of a sequence; a window is no longer.")] = 128,
    files: LayerFiles = None,
    as_json: Json = False,
) -> None:
    """Set the knobs of an architecture so that it has a given state, and a given number of parameters.

    What is made equal is the matrix state of `archlab describe`: matrix and state-space states and windows of keys and
    values, without what convolutions look back on and sums that normalise. Every sequence mixer has an equal share, set by
    its own knob: `d_state` of mamba, `window` of sliding attention, `heads` of most others. A state that grows with the
    length (attention, Hyena) stays, and its share is not given to others. `--params` then sets the inner widths of the
    channel mixers, all by one factor.

    The spec goes to standard output, and what was done or could not be reached to standard error:

    `archlab run "$(archlab normalise '2*[mamba swiglu]' --state 4096)" --dry-run`

    `archlab run --iso-state 4096` does it for all architectures of a run.
    """
    from archlab.architectures import architecture
    from archlab.architectures.normalise import normalise
    from archlab.cli.output import print_json

    found = normalise(architecture(spec), state=state, params=params, dim=dim, length=length)
    if as_json:
        print_json(
            {
                "spec": str(found.architecture),
                "state": found.state,
                "params": found.params,
                "changes": [{"before": before, "after": after} for before, after in found.changes],
                "unreached": list(found.unreached),
                "dim": dim,
                "length": length,
            }
        )
    else:
        tell(spec, found)
        typer.echo(str(found.architecture))


def tell(label: str, found: "Normalised") -> None:
    """What was done to an architecture and what could not be reached, on standard error."""
    from archlab.cli.output import message

    changes = ", ".join(f"{before} becomes {after}" for before, after in found.changes) or "stays as it is"
    message(f"{label}: {changes}; matrix state {found.state:,}, {found.params:,} parameters in its layers")
    for reason in found.unreached:
        message(f"{label}: not reached: {reason}")
