"""The live view of a run of trials or language models: a listener that draws on a terminal or in a notebook, and prints lines
elsewhere."""

import io
import threading
import time
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from archlab.format import count, duration, human, percent, short_task
from archlab.jobs.events import Event, JobFailed, JobFinished, JobStarted, ResultsDamaged, RunEnded, RunStarted, Waiting
from archlab.mad.trial import Progress, Trial, TrialResult
from archlab.reports.progress import AnyJob, AnyProgress, AnyResult, RunProgress, speed
from archlab.reports.tables import fitted_table
from archlab.scaling.trial import LMTrial
from archlab.tasks.registry import task_order

_NARROW = 70
"""Columns below which running jobs are shown without grid point and seed."""
MAX_RUNNING = 8
"""Largest number of running jobs that are drawn."""
_NOTEBOOK_SECONDS, _NOTEBOOK_WIDTH = 0.5, 110
"""How often the view of a notebook is drawn again at most, and its columns."""
_CELL = '<pre style="line-height: normal; font-family: monospace">{code}</pre>'


class LiveView:
    """Shows the events of a run on a console: drawn on a terminal and in a notebook's cell, which it replaces as it goes;
    elsewhere a line for every event that matters."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.above: RenderableType | None = None
        """Drawn above the run, such as the search that it belongs to."""
        self.progress = RunProgress((), 1)
        self._names = _Names(())
        self._note = ""
        self._any_started = False
        self._lock = threading.Lock()  # events come in one thread, the view is drawn in another
        self._live: Live | None = None
        self._cell: Any = None
        self._drawn = 0.0

    def __call__(self, event: Event) -> None:
        """Take in an event."""
        with self._lock:
            if isinstance(event, RunStarted):
                self.progress, self._names = RunProgress(event.jobs, event.num_workers), _Names(event.jobs)
            self.progress.update(event)
            line = self._line(event)
        if self.console.is_jupyter:
            self._draw_cell(event)
            return
        if isinstance(event, RunStarted) and self.console.is_terminal and not self.console.is_dumb_terminal:
            self._live = Live(console=self.console, refresh_per_second=4, transient=True, get_renderable=self.render)
            self._live.start()
        if isinstance(event, RunEnded) and self._live:
            self._live.stop()
            self._live = None
        if line and self._live is None:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _draw_cell(self, event: Event) -> None:
        """Draw the view in the output of a notebook's cell, over what it drew before."""
        from IPython.display import HTML, display

        if isinstance(event, RunStarted):
            self._cell, self._drawn = display(HTML(""), display_id=True), 0.0
        if self._cell is None or (time.monotonic() - self._drawn < _NOTEBOOK_SECONDS and not isinstance(event, RunEnded)):
            return
        self._drawn = time.monotonic()
        drawing = Console(record=True, file=io.StringIO(), width=_NOTEBOOK_WIDTH, force_jupyter=False)
        drawing.print(self.render(drawing.width))
        self._cell.update(HTML(drawing.export_html(inline_styles=True, code_format=_CELL)))

    def render(self, width: int = 0) -> RenderableType:
        """The view as of now: a bar, the counts, the running jobs, the best score of each task so far; by default as wide as the
        console."""
        with self._lock:
            progress, width = self.progress, width or self.console.width
            bar = ProgressBar(total=max(progress.total, 1), completed=progress.done, width=width)
            above: list[RenderableType] = [] if self.above is None else [self.above, Text()]
            parts = [*above, Padding(bar, 0), self._counts(), Text(), self._running(width)]
            if self._names.tasks:
                parts += [Text(), self._best(width)]
            if self._note:
                parts.append(Text(self._note, style="yellow"))
            return Group(*parts)

    def _counts(self) -> Text:
        progress = self.progress
        parts = [
            (f"{progress.done} of {count(progress.total, self._names.noun)} done", "bold"),
            (f"{len(progress.running)} running", ""),
            (f"{len(progress.waiting)} to come", ""),
            (f"{progress.reused} from the store" if progress.reused else "", "dim"),
            (f"{progress.skipped} not needed" if progress.skipped else "", "dim"),
            (f"{progress.diverged} diverged" if progress.diverged else "", "yellow"),
            (f"{progress.failed} failed" if progress.failed else "", "red"),
            (f"{human(progress.speed)} {self._names.unit}/s" if progress.speed else "", ""),
            (_left(progress.seconds_left()), "bold"),
        ]
        return Text(" · ").join(Text(text, style=style) for text, style in parts if text)

    def _running(self, width: int) -> Table:
        named = 3 if width >= _NARROW else 2  # without the grid point
        table = Table.grid(padding=(0, 2, 0, 0))
        for style in ("", "", "dim")[:named]:
            table.add_column(style=style, no_wrap=bool(style))
        for _ in range(2):
            table.add_column(justify="right", no_wrap=True)
        for running in islice(self.progress.running.values(), MAX_RUNNING):
            names = (Text(name, no_wrap=True, overflow="ellipsis") for name in self._names.short(running.job)[:named])
            at = running.progress
            table.add_row(*names, *((f"step {at.step}/{at.num_steps}", _reading(at)) if at else ("starting", "")))
        if len(self.progress.running) > MAX_RUNNING:
            table.add_row(f"and {len(self.progress.running) - MAX_RUNNING} more")
        return table

    def _best(self, width: int) -> Table:
        heads = [short_task(task, narrow=width < 100) for task in self._names.tasks]
        table = fitted_table("best test score so far, %", heads, width)
        for label in self._names.architectures:
            scores = (self.progress.best.get((label, task)) for task in self._names.tasks)
            table.add_row(Text(label), *("·" if score is None else percent(score) for score in scores))
        return table

    def _line(self, event: Event) -> str:
        """The event in one line, or nothing; keeps the note of the drawn view."""
        progress, names = self.progress, self._names
        match event:
            case JobStarted() if not self._any_started:
                self._any_started = True
                stored = f", {progress.reused} of them in the store already" if progress.reused else ""
                workers = count(progress.num_workers, "worker") if progress.num_workers else "workers have begun"
                return f"{count(progress.total, names.noun)}{stored}; {workers}"
            case JobFinished(job, result):
                self._note = ""
                left = f"; {_left(progress.seconds_left())}" if progress.done < progress.total else ""
                return f"{progress.done}/{progress.total}  {names.full(job)}: {_outcome(result)}{left}"
            case JobFailed(job):
                self._note = f"failed: {names.full(job)}: {event.reason}"
            case ResultsDamaged(reasons):
                return "\n".join(f"{reason}; it is computed again" for reason in reasons.values())
            case Waiting(jobs):
                self._note = f"waiting for {count(len(jobs), names.noun)} that another run on this store computes"
            case RunEnded(interrupted=True):
                have = f"{progress.reused + progress.computed} of {count(progress.total, names.noun)}"
                self._note = f"stopped: {have} are done"
            case _:
                return ""
        return self._note


class _Names:
    """The names of the jobs of a run: short ones for a row, full ones for a line."""

    def __init__(self, jobs: Sequence[AnyJob]) -> None:
        trials = [job for job in jobs if isinstance(job, Trial)]
        self.noun, self.unit = ("trial", "examples") if trials or not jobs else ("training run", "tokens")
        self.architectures = list(dict.fromkeys(trial.architecture.label for trial in trials))
        self.tasks = sorted({trial.setting.name for trial in trials}, key=task_order)
        knobs = {(x.name, knob, value) for x in {trial.setting for trial in trials} for knob, value in x.knobs().items()}
        runs = [job.run for job in jobs if not isinstance(job, Trial)]
        self._tuned = len({str(run) for run in runs}) < len(runs)  # they differ in their learning rates
        values = Counter((task, knob) for task, knob, _ in knobs)
        self._varied = {key for key, number in values.items() if number > 1}

    def short(self, job: AnyJob) -> tuple[str, str, str]:
        """The architecture; the setting or the width; the grid point or the budget, with the seed."""
        if not isinstance(job, Trial):
            return job.run.label, f"width {job.run.dim}", f"{job.run.budget:.3g} FLOPs seed {job.run.seed}{self._rate(job)}"
        setting = self._setting(job, short_task(job.setting.name))
        return job.architecture.label, setting, f"lr {job.learning_rate:g} wd {job.weight_decay:g} seed {job.seed}"

    def full(self, job: AnyJob) -> str:
        """The name of a job in a line of its own."""
        if not isinstance(job, Trial):
            return f"{job}{self._rate(job)}"
        point = f"lr {job.learning_rate:g} wd {job.weight_decay:g}"
        return f"{job.architecture.label} · {self._setting(job, job.setting.name)} · {point} · seed {job.seed}"

    def _rate(self, trial: LMTrial) -> str:
        """The learning rate, where trials differ in it only."""
        return f" lr {trial.run.learning_rate:g}" if self._tuned else ""

    def _setting(self, trial: Trial, name: str) -> str:
        """The task, with the knobs in which its settings differ."""
        setting = trial.setting
        varied = (f"{knob}={value}" for knob, value in setting.knobs().items() if (setting.name, knob) in self._varied)
        return " ".join([name, *varied])


def _reading(progress: AnyProgress) -> str:
    """The latest measurements of a running job."""
    if not isinstance(progress, Progress):
        return f"loss {progress.loss:.3f} {human(speed(progress))} tokens/s"
    return "" if progress.accuracy is None else f"{percent(progress.accuracy)} %"


def _outcome(result: AnyResult) -> str:
    """The result of a job."""
    if not isinstance(result, TrialResult):
        loss = f"diverged: {result.reason}" if result.loss is None else f"loss {result.loss:.4f}"
        return f"{loss} ({human(result.tokens_per_second)} tokens/s, {100 * result.utilisation:.0f} % of GEMM)"
    if result.status == "diverged":
        return f"diverged at step {result.steps}, counts as chance"
    if result.status == "dropped":
        return f"dropped at step {result.steps}: its loss is behind other grid points'"
    return f"score {percent(result.score)} % after {result.steps} steps"


def _left(seconds: float | None) -> str:
    return "time left not known yet" if seconds is None else f"{duration(seconds)} left"
