"""archlab eval: kept models on the tasks of lm-evaluation-harness."""

from typing import Annotated

import typer

from archlab.cli.options import DEFAULT_STORE, Json, LayerFiles, Store
from archlab.cli.run import Device
from archlab.cli.scale_models import Run


def evaluate(
    run: Run,
    tasks: Annotated[str, typer.Option(metavar="A,B,...", help="Tasks of lm-evaluation-harness, as in `lambada_openai,piqa`.")],
    include: Annotated[
        str | None, typer.Option(metavar="DIR", help="A folder with tasks of your own: YAML files of the harness.")
    ] = None,
    shots: Annotated[
        int | None, typer.Option(min=0, help="Examples before the question.", show_default="as many as the task says")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Instances of each task, for a try.", show_default="all")] = None,
    store: Store = DEFAULT_STORE,
    files: LayerFiles = None,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.cpu,
    as_json: Json = False,
) -> None:
    """Evaluate a model that `archlab scale run` has kept on tasks of lm-evaluation-harness; no export is needed.

    It scores answers by their likelihood and generates greedily, with the model's own tokenizer, at most at the length that the
    model was trained at. The harness downloads the data of its tasks. Models as small as those of a study guess at most tasks.

    For example: `archlab eval mamba@13.2k --tasks lambada_openai --limit 100 --store scaling.db`
    """
    from contextlib import redirect_stdout
    from sys import stderr

    from archlab.cli.options import task_names
    from archlab.cli.output import message, print_json, print_table
    from archlab.errors import ArchlabError
    from archlab.reports.tables import plain_table
    from archlab.scaling.models import load_model

    names = task_names(tasks)
    try:
        from archlab.exports.harness import run_harness
    except ImportError as error:
        raise ArchlabError(f"eval: lm-evaluation-harness cannot be imported: {error}: pip install 'archlab[eval]'") from None
    kept = load_model(run, store, device=device.value)
    with redirect_stdout(stderr):
        found = run_harness(kept, names or [], include=include, shots=shots, limit=limit)
    if as_json:
        print_json({"model": kept.key, **found})
        return
    message(str(kept))
    rows = []
    for task, metrics in found["results"].items():
        for name, value in metrics.items():
            metric, _, how = name.partition(",")
            if isinstance(value, float) and not metric.endswith("_stderr"):
                spread = metrics.get(f"{metric}_stderr,{how}")
                shown = f"{spread:.4f}" if isinstance(spread, float) else "–"
                rows.append({"task": task, "metric": metric, "value": f"{value:.4f}", "standard error": shown})
    print_table(plain_table(rows))
