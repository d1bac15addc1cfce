"""What ``archlab scale run`` does; imports weigh, so it is loaded inside the command."""

import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from archlab.cli.output import message, print_json, store_option
from archlab.cli.plans import key_value
from archlab.cli.signals import terminable
from archlab.errors import ArchlabError
from archlab.format import count, duration
from archlab.layers.ops.kernels import require
from archlab.reports.ladder_view import LadderView
from archlab.scaling.plan import Plan
from archlab.scaling.processes import Processes, launched_together
from archlab.scaling.recipe import LMRecipe
from archlab.scaling.result import Interrupted
from archlab.scaling.runner import Tally, corpus_of, make_executor, run_side_by_side, run_together
from archlab.scaling.store import LanguageModelStore
from archlab.scaling.trial import LMTrial
from archlab.store.database import shown


def train_plan(
    path: str,
    location: str,
    workers: int | None,
    device: Literal["cpu", "cuda"],
    changes: list[str],
    checkpoints: str | None,
    *,
    as_json: bool,
) -> None:
    """Train what the store lacks; status 1 if a training failed, 130 or 143 if a signal ended it."""
    plan = Plan.load(path)
    recipe = LMRecipe.from_dict(dict(key_value("--set", change) for change in changes))
    require(recipe.kernels, device)
    plan.try_layers(device)
    first = plan.runs[0]
    corpus = corpus_of(first.corpus, first.tokenizer)
    trials = [LMTrial(run, recipe, device).on(corpus) for run in plan.runs]
    folder = Path(checkpoints) if checkpoints else _beside(location)
    if checkpoints or folder.parent.is_dir():  # else there is no place for the store, which says so
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArchlabError(f"checkpoints {folder}: {error.strerror}: give another folder by --checkpoints") from None
    try:
        if launched_together():
            with Processes.join(device) as processes:
                tally = _together(trials, location, processes, folder)
                if not processes.is_first:
                    return
        else:
            tally = _side_by_side(trials, location, workers, device, folder)
    except KeyboardInterrupt:
        message(f"stopped: what is done is in {shown(location)}; the same command does the rest")
        sys.exit(130)
    except Interrupted as interrupted:
        message(f"{interrupted}: the same command does the rest")
        sys.exit(interrupted.status)
    finally:
        with suppress(OSError):  # a checkpoint is in it
            folder.rmdir()
    _report(tally, location)
    if as_json:
        print_json(_document(tally))
    if tally.failed:
        sys.exit(1)


def _beside(location: str) -> Path:
    return Path("archlab.checkpoints" if "://" in location else f"{location}.checkpoints")


def _side_by_side(
    trials: list[LMTrial], location: str, workers: int | None, device: Literal["cpu", "cuda"], folder: Path
) -> Tally:
    executor = make_executor(workers, device, folder, trials)
    with LanguageModelStore[LMTrial](location) as store, terminable(), LadderView(Console(stderr=True)) as view:
        try:
            return run_side_by_side(trials, store, executor, folder, view)
        finally:
            executor.shutdown()


def _together(trials: list[LMTrial], location: str, processes: Processes, folder: Path) -> Tally:
    if not processes.is_first:
        return run_together(trials, None, processes, folder, lambda _: None)
    with LanguageModelStore[LMTrial](location) as store, LadderView(Console(stderr=True)) as view:
        return run_together(trials, store, processes, folder, view)


def _report(tally: Tally, location: str) -> None:
    computed = len(tally.results) - tally.reused
    parts = [f"{count(computed, 'training')} computed in {duration(time.monotonic() - tally.started)}"]
    if not computed:
        parts = ["nothing was left to compute"]
    if tally.reused:
        parts.append(f"{count(tally.reused, 'training')} taken from the store")
    diverged = sum(result.status == "diverged" for result in tally.results.values())
    if diverged:
        parts.append(f"{diverged} diverged: fits count them as censored")
    left = len(tally.trials) - len(tally.results) - len(tally.failed)
    if left:
        parts.append(f"{left} left to another run on this store")
    message("; ".join(parts))
    for key, reason in tally.failed.items():
        message(f"failed: {tally.trials[key]}: {reason}")
    if not tally.failed:
        message(f"`archlab scale fit{store_option(location)}` fits the laws")


def _document(tally: Tally) -> dict[str, Any]:
    rows = []
    for key, trial in tally.trials.items():
        result = tally.results.get(key)
        row = {"key": key, **trial.to_dict(), "result": None, "error": tally.failed.get(key)}
        if result is not None:
            row["result"] = {name: value for name, value in result.to_dict().items() if name != "curve"}
        rows.append(row)
    return {"trainings": len(rows), "computed": len(tally.results) - tally.reused, "reused": tally.reused, "runs": rows}
