"""What a person sees while a run goes on: a live view on a terminal, single lines elsewhere."""

from collections.abc import Sequence
from itertools import islice

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from archlab.format import count, human, percent, short_task
from archlab.mad.runner import Event, TrialFailed, TrialFinished, TrialStarted, Waiting
from archlab.mad.scores import task_order
from archlab.mad.trial import Trial
from archlab.reports.event_view import MAX_RUNNING, MAX_WIDTH, EventView
from archlab.reports.progress import RunProgress


class LiveView(EventView[Event]):
    """Shows the events of a run of trials."""

    def __init__(self, console: Console, trials: Sequence[Trial], num_workers: int) -> None:
        """Show nothing yet.

        Args:
            console: a terminal gets the live view, anything else a line for every trial.
            trials: those of the run, the ones that the store has included.
            num_workers: how many run at once.
        """
        self.progress = RunProgress(trials, num_workers)
        self._labels = list(dict.fromkeys(trial.architecture.label for trial in trials))
        self._tasks = sorted({trial.setting.name for trial in trials}, key=task_order)
        self._varied = _varied_knobs(trials)
        self._note = ""
        self._started = False
        super().__init__(console, refresh_per_second=4)  # draws at once

    def _take(self, event: Event) -> str:
        self.progress.update(event)
        return self._line(event)

    def _draw(self) -> RenderableType:
        """A bar, the counts, the running trials, the best score of each task so far."""
        width = min(self.console.width, MAX_WIDTH)
        bar = ProgressBar(total=max(self.progress.total, 1), completed=self.progress.done, width=width)
        parts: list[RenderableType] = [
            Padding(bar, 0),
            self._counts(),
            Text(),
            self._running(width),
            Text(),
            self._best(width),
        ]
        if self._note:
            parts.append(Text(self._note, style="yellow"))
        return Group(*parts)

    def _counts(self) -> Text:
        progress = self.progress
        parts = [
            (f"{progress.done} of {count(progress.total, 'trial')} done", "bold"),
            (f"{len(progress.running)} running", ""),
            (f"{len(progress.waiting)} to come", ""),
            (f"{progress.reused} from the store" if progress.reused else "", "dim"),
            (f"{progress.skipped} not needed" if progress.skipped else "", "dim"),
            (f"{progress.diverged} diverged" if progress.diverged else "", "yellow"),
            (f"{progress.failed} failed" if progress.failed else "", "red"),
            (f"{human(progress.examples_per_second)} examples/s" if progress.examples_per_second else "", ""),
            (_left(progress.seconds_left()), "bold"),
        ]
        return Text(" · ").join(Text(text, style=style) for text, style in parts if text)

    def _running(self, width: int) -> Table:
        table = Table.grid(padding=(0, 2, 0, 0))
        table.width = width
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        for _ in range(3):
            table.add_column(justify="right", no_wrap=True)
        for running in islice(self.progress.running.values(), MAX_RUNNING):
            trial, progress = running.trial, running.progress
            table.add_row(
                Text(trial.architecture.label),
                Text(self._setting(trial, short_task(trial.setting.name))),
                Text(f"lr {trial.learning_rate:g} wd {trial.weight_decay:g} seed {trial.seed}", style="dim"),
                f"step {progress.step}/{progress.num_steps}" if progress else "starting",
                f"{percent(progress.accuracy)} %" if progress and progress.accuracy is not None else "",
            )
        if len(self.progress.running) > MAX_RUNNING:
            table.add_row(f"and {len(self.progress.running) - MAX_RUNNING} more")
        return table

    def _best(self, width: int) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        heads = [short_task(task) for task in self._tasks]
        label_width = max(width - sum(max(len(head), 5) + 2 for head in heads) - 2, 12)
        table.add_column("best test score so far, %", overflow="ellipsis", no_wrap=True, max_width=label_width)
        for head in heads:
            table.add_column(head, justify="right", no_wrap=True, min_width=5)
        for label in self._labels:
            scores = (self.progress.best.get((label, task)) for task in self._tasks)
            table.add_row(Text(label), *("·" if score is None else percent(score) for score in scores))
        return table

    def _line(self, event: Event) -> str:
        """The event in one line, or nothing; keeps what the live view notes."""
        progress = self.progress
        match event:
            case TrialStarted() if not self._started:
                self._started = True
                stored = f", {progress.reused} of them in the store already" if progress.reused else ""
                return f"{count(progress.total, 'trial')}{stored}; {count(progress.num_workers, 'worker')}"
            case TrialFinished(trial, result):
                self._note = ""
                outcome = f"score {percent(result.score)} % after {result.steps} steps"
                if result.status == "diverged":
                    outcome = f"diverged at step {result.steps}, counts as chance"
                elif result.status == "dropped":
                    outcome = f"dropped at step {result.steps}: its loss is behind other grid points'"
                left = f"; {_left(progress.seconds_left())}" if progress.done < progress.total else ""
                return f"{progress.done}/{progress.total}  {self._title(trial)}: {outcome}{left}"
            case TrialFailed(trial):
                self._note = f"failed: {self._title(trial)}: {event.reason}"
            case Waiting(trials):
                self._note = f"waiting for {count(len(trials), 'trial')} that another run on this store computes"
            case _:
                return ""
        return self._note

    def _title(self, trial: Trial) -> str:
        setting = self._setting(trial, trial.setting.name)
        return (
            f"{trial.architecture.label} · {setting} · lr {trial.learning_rate:g} wd {trial.weight_decay:g} · seed {trial.seed}"
        )

    def _setting(self, trial: Trial, name: str) -> str:
        """The task and what tells its settings in this run apart."""
        varied = self._varied[trial.setting.name]
        return " ".join([name, *(f"{knob}={value}" for knob, value in trial.setting.knobs().items() if knob in varied)])


def _varied_knobs(trials: Sequence[Trial]) -> dict[str, set[str]]:
    """By task, the knobs in which its settings differ."""
    values: dict[str, dict[str, set[object]]] = {}
    for setting in {trial.setting for trial in trials}:
        for knob, value in setting.knobs().items():
            values.setdefault(setting.name, {}).setdefault(knob, set()).add(value)
    return {task: {knob for knob, found in knobs.items() if len(found) > 1} for task, knobs in values.items()}


def _left(seconds: float | None) -> str:
    return "time left not known yet" if seconds is None else f"{duration(seconds)} left"


def duration(seconds: float) -> str:
    """A length of time for people: 42 s, 3 min, 2.5 h, 4 days."""
    if seconds < 1:
        return "under 1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.0f} days"
