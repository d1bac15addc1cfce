"""archlab scale sample and evaluate: models that a study has kept."""

from typing import Annotated, Any

import typer

from archlab.cli.options import DEFAULT_STORE, Json, LayerFiles, Store
from archlab.cli.run import Device

Run = Annotated[
    str, typer.Argument(metavar="MODEL", help="The beginning of a kept model's key, or its architecture and size: `mamba@13.2k`.")
]


def sample(
    run: Run,
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="The text to continue; by default a document begins.")] = "",
    tokens: Annotated[int, typer.Option(min=1, help="The most tokens to draw; ends earlier where the document does.")] = 200,
    temperature: Annotated[float, typer.Option(min=0, help="Divides the logits; 0 takes the likeliest token.")] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, metavar="K", help="Draw among the K likeliest tokens; 0 for all.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws: the same seed gives the same text.")] = 0,
    store: Store = DEFAULT_STORE,
    files: LayerFiles = None,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.cpu,
    as_json: Json = False,
) -> None:
    """Continue a text by a model that `archlab scale run` has kept.

    Layers carry their state from token to token, so memory does not grow with the text.

    For example: `archlab scale sample mamba@13.2k --prompt "def " --temperature 0.8 --store scaling.db`
    """
    from archlab import scaling
    from archlab.cli.output import message, print_json
    from archlab.scaling.models import load_model

    model = load_model(run, store, device=device.value)
    how: dict[str, Any] = {"tokens": tokens, "temperature": temperature, "top_k": top_k, "seed": seed}
    text = scaling.sample(model, prompt, **how)
    if as_json:
        print_json({"model": model.key, "prompt": prompt, "text": text, **how})
        return
    message(str(model))
    print(prompt + text)


def evaluate(
    run: Run,
    data: Annotated[
        str | None,
        typer.Option(metavar="SOURCE,...", help="Corpora whose held-out documents are read; by default the one of the training."),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(min=1, help="The most tokens to predict in each.", show_default="as many as after training"),
    ] = None,
    store: Store = DEFAULT_STORE,
    files: LayerFiles = None,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.cpu,
    as_json: Json = False,
) -> None:
    """Evaluate a model that `archlab scale run` has kept: nats a token, bits a byte, and the loss by position in the sequence.

    Bits a byte compare across tokenizers. The loss of the first positions shows what a model knows without context, and how it
    falls from there on shows what the architecture makes of context.

    For example: `archlab scale evaluate mamba@13.2k --data books/,other.jsonl#field=text --store scaling.db`
    """
    from archlab import scaling
    from archlab.cli.output import message, print_json, print_table
    from archlab.corpora.documents import split_sources
    from archlab.reports.scaling_tables import evaluations_on_terminal

    found = scaling.evaluate(run, None if data is None else split_sources(data), tokens=tokens, store=store, device=device.value)
    if as_json:
        print_json(found.to_dict())
        return
    message(found.rows[0].model)
    print_table(evaluations_on_terminal(found))
