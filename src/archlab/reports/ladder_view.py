"""What a person sees while the language models of a plan train: a live view on a terminal, single lines elsewhere."""

from itertools import islice

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from archlab.format import count, duration, human
from archlab.reports.event_view import MAX_RUNNING, MAX_WIDTH, EventView
from archlab.scaling.runner import Event, Tally


class LadderView(EventView[Event]):
    """Shows the events of a run of language models."""

    def __init__(self, console: Console) -> None:
        """Show nothing yet; a terminal gets the live view, anything else a line for every trial."""
        self.tally: Tally | None = None
        self._started = False
        super().__init__(console, refresh_per_second=2)  # draws at once

    def _take(self, event: Event) -> str:
        self.tally = event.tally
        return self._line(event)

    def _draw(self) -> RenderableType:
        """A bar, the counts with the time left, the running trials."""
        tally = self.tally
        if tally is None:
            return Text("starting")
        done = len(tally.results) + len(tally.failed)
        bar = ProgressBar(total=len(tally.trials), completed=done, width=min(self.console.width, MAX_WIDTH))
        return Group(bar, Text(self._counts(tally), style="bold"), self._running(tally))

    def _counts(self, tally: Tally) -> str:
        parts = [f"{len(tally.results)} of {count(len(tally.trials), 'training')} done", f"{len(tally.running)} running"]
        if tally.reused:
            parts.append(f"{tally.reused} from the store")
        if tally.failed:
            parts.append(f"{len(tally.failed)} failed")
        return " · ".join([*parts, _left(tally)])

    def _running(self, tally: Tally) -> Table:
        table = Table.grid(padding=(0, 2, 0, 0))
        for key, progress in islice(tally.running.items(), MAX_RUNNING):
            speed = f"{human(progress.tokens_per_second)} tokens/s" if progress else ""
            step = f"step {progress.step}/{progress.num_steps}" if progress else "starting"
            table.add_row(Text(str(tally.trials[key])), step, f"loss {progress.loss:.3f}" if progress else "", speed)
        return table

    def _line(self, event: Event) -> str:
        tally, trial = event.tally, event.trial
        match event.what:
            case "started" if not self._started:
                self._started = True
                stored = f", {tally.reused} of them in the store already" if tally.reused else ""
                return f"{count(len(tally.trials), 'training')}{stored}"
            case "finished":
                result = tally.results[trial.key]
                outcome = f"diverged: {result.reason}" if result.loss is None else f"loss {result.loss:.4f}"
                speed = f"{human(result.tokens_per_second)} tokens/s, {100 * result.utilisation:.0f} % of GEMM"
                return f"{len(tally.results)}/{len(tally.trials)}  {trial}: {outcome} ({speed}); {_left(tally)}"
            case "failed":
                return f"failed: {trial}: {tally.failed[trial.key]}"
            case "waiting":
                return f"waiting: another run on this store computes {trial}"
        return ""


def _left(tally: Tally) -> str:
    seconds = tally.seconds_left()
    return "time left not known yet" if seconds is None else f"{duration(seconds)} left" if seconds else "nothing left"
