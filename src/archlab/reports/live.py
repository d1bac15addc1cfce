"""What a person sees while a run goes on: a live view on a terminal, single lines elsewhere."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from archlab.benchmark.runner import Event, RunInterrupted, TrialFailed, TrialFinished, Waiting
from archlab.benchmark.scores import task_order
from archlab.reports.format import human, percent, short_task
from archlab.reports.progress import RunProgress
from archlab.training.trial import Trial


class LiveView:
    """Shows the events of a run on a console; a context manager, and the runner's ``on_event``."""

    def __init__(self, console: Console, trials: Sequence[Trial], num_workers: int) -> None:
        self.console = console
        self.progress = RunProgress(trials, num_workers)
        self._labels = list(dict.fromkeys(trial.architecture.label for trial in trials))
        self._tasks = sorted({trial.setting.name for trial in trials}, key=task_order)
        self._live = Live(console=console, refresh_per_second=4, get_renderable=self.render) if console.is_terminal else None
        self._note = ""

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        """Take in an event; without a terminal, print a line for those that matter."""
        self.progress.update(event)
        match event:
            case Waiting(trials):
                self._note = f"waiting for {len(trials)} trials that another run on this store computes"
            case TrialFailed(trial):
                self._note = f"failed: {_title(trial)}: {event.reason}"
            case RunInterrupted():
                self._note = "stopping; what is finished is stored"
            case _:
                if not isinstance(event, TrialFinished):
                    return
                self._note = ""
        if self._live is None:
            self.console.print(self._note or self._line(event), markup=False, highlight=False, soft_wrap=True)

    def render(self) -> RenderableType:
        """The live view: a bar, the counts, the running trials, the best score of each task so far."""
        progress = self.progress
        counts = Text(f"{progress.done}/{progress.total} trials")
        counts.append(f"   {len(progress.running)} running   {len(progress.waiting)} to come", style="dim")
        if progress.reused:
            counts.append(f"   {progress.reused} from the store", style="dim")
        if progress.diverged:
            counts.append(f"   {progress.diverged} diverged", style="yellow")
        if progress.failed:
            counts.append(f"   {progress.failed} failed", style="red")
        counts.append(f"   {human(progress.examples_per_second)} examples/s   {_left(progress.seconds_left())}")
        bar = ProgressBar(total=max(progress.total, 1), completed=progress.done, width=min(self.console.width, 100))
        parts: list[RenderableType] = [bar, counts, self._running(), self._best()]
        if self._note:
            parts.append(Text(self._note, style="yellow"))
        return Group(*parts)

    def _running(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for trial, (_, progress) in self.progress.running.items():
            step = f"step {progress.step}/{progress.num_steps}" if progress else "starting"
            accuracy = f"{percent(progress.accuracy)} %" if progress and progress.accuracy is not None else ""
            table.add_row(Text(_title(trial), style="dim", overflow="ellipsis", no_wrap=True), step, accuracy)
        return table

    def _best(self) -> Table:
        table = Table(box=None, pad_edge=False, title="best test score so far, %", title_justify="left", title_style="dim")
        table.add_column("", overflow="ellipsis", no_wrap=True)
        for task in self._tasks:
            table.add_column(short_task(task), justify="right")
        for label in self._labels:
            scores = (self.progress.best.get((label, task)) for task in self._tasks)
            table.add_row(Text(label), *("·" if score is None else percent(score) for score in scores))
        return table

    def _line(self, event: Event) -> str:
        progress = self.progress
        left = _left(progress.seconds_left())
        if isinstance(event, TrialFinished):
            outcome = f"score {percent(event.result.score)} % after {event.result.steps} steps"
            if event.result.status == "diverged":
                outcome = f"diverged at step {event.result.steps}, counts as chance"
            return f"{progress.done}/{progress.total}  {_title(event.trial)}: {outcome}; {left}"
        return f"{progress.done}/{progress.total}; {left}"


def _title(trial: Trial) -> str:
    grid = f"lr {trial.learning_rate:g} wd {trial.weight_decay:g}"
    return f"{trial.architecture.label} · {trial.setting} · {grid} · seed {trial.seed}"


def _left(seconds: float | None) -> str:
    return "time left unknown yet" if seconds is None else f"{duration(seconds)} left"


def duration(seconds: float) -> str:
    """A length of time for people: 42 s, 3 min, 2.5 h, 4 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.0f} days"
