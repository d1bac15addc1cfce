"""archlab normalise: an architecture at a given state and number of parameters."""

from typing import TYPE_CHECKING, Annotated

import typer

from archlab.cli.options import Dim, Json, LayerFiles, Length, SizesOf, TaskFiles

if TYPE_CHECKING:
    from archlab.architectures.normalise import Normalised


def normalise(
    spec: Annotated[str, typer.Argument(help="Layers in order, as in '2*[mamba swiglu]', or a catalogue name.")],
    state: Annotated[
        int | None, typer.Option(help="Matrix state of all layers together, in scalars; the MAD paper takes 4096.")
    ] = None,
    params: Annotated[
        int | None, typer.Option(help="Parameters of all layers together, without embedding, unembedding and norms.")
    ] = None,
    protocol: SizesOf = None,
    dim: Dim = None,
    length: Length = None,
    files: LayerFiles = None,
    task_files: TaskFiles = None,
    as_json: Json = False,
) -> None:
    """Set the knobs of an architecture so that it has a given state, a given number of parameters, or both.

    What is made equal is the matrix state of `archlab describe`: matrix and state-space states and windows of keys and
    values, without what convolutions look back on and sums that normalise. Every sequence mixer gets an equal part, set by
    its own knob: `d_state` of mamba, `window` of sliding attention, `heads` of most others. A state that grows with the
    length (attention, Hyena) stays, and its part is not given to others. `--params` then sets the inner widths of the
    channel mixers, all by one factor.

    The spec goes to standard output, and what was done or could not be reached to standard error; status 1 says
    that the parameters could not be reached:

    `archlab run "$(archlab normalise '2*[mamba swiglu]' --state 4096 --protocol quick)" --dry-run`

    The state depends on the width: give the protocol that you run. `archlab run --iso-state 4096` does all this for every
    architecture of a run.
    """
    from archlab.architectures.normalise import normalise
    from archlab.cli.options import at_size
    from archlab.cli.output import print_json
    from archlab.errors import ArchlabError

    if state is None and params is None:
        raise ArchlabError("give --state, --params, or both")
    value, dim, length = at_size(spec, protocol, dim, length)
    found = normalise(value, state=state, params=params, dim=dim, length=length)
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
    if params is not None and abs(found.params - params) > params / 100:
        raise typer.Exit(1)


def tell(label: str, found: "Normalised") -> None:
    """Print on standard error how an architecture was changed and what could not be reached."""
    from archlab.cli.output import message

    changes = ", ".join(f"{before} becomes {after}" for before, after in found.changes) or "stays as it is"
    message(f"{label}: {changes}; matrix state {found.state:,}, {found.params:,} parameters in its layers")
    for reason in found.unreached:
        message(f"{label}: not reached: {reason}")
