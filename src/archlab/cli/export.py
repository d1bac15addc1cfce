"""archlab export: a kept model for other programs."""

from typing import Annotated

import typer

from archlab.cli.options import DEFAULT_STORE, LayerFiles, Store


def export(
    run: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="The beginning of a kept model's key; a language model's architecture and size, `mamba@13.2k`; or a trial's "
            "architecture and task, `mamba@in-context-recall`.",
        ),
    ],
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A new folder.")],
    to: Annotated[
        str,
        typer.Option(
            metavar="FORM",
            help="hf: a model of Hugging Face, with the code of its layers, its tokenizer and a card; state-dict: the weights "
            "alone, by their names in archlab's model.",
        ),
    ] = "hf",
    store: Store = DEFAULT_STORE,
    files: LayerFiles = None,
) -> None:
    """Write a model that `archlab scale run` or `archlab run --keep weights` has kept into a folder for other programs.

    Where torch and transformers are installed, `AutoModelForCausalLM.from_pretrained(DIR, trust_remote_code=True)` loads it.

    For example: `archlab export mamba@13.2k my-mamba --store scaling.db`
    """
    from archlab.cli.output import message, thinking
    from archlab.exports.export import export as write

    with thinking("writing the model"):
        place = write(run, folder, to, store=store)  # type: ignore[arg-type]  # it is checked there
    message(f"{place} holds the model")
