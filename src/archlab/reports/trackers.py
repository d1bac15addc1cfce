"""Trackers: programs that show trainings, such as TensorBoard, as listeners of a run."""

import importlib
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from typing_extensions import override

from archlab.jobs import events
from archlab.jobs.events import Event
from archlab.mad.trial import Trial, TrialResult
from archlab.reports.progress import AnyJob, AnyProgress, AnyResult
from archlab.scaling.result import LMProgress, LMResult

Values = dict[str, float]


def facts(job: AnyJob) -> dict[str, Any]:
    """A description of a job, by which it is found again in a store; JSON-ready."""
    names: tuple[str, ...] = ("dim", "learning_rate", "weight_decay", "seed", "device")
    if isinstance(job, Trial):
        own = {"architecture": job.architecture.label, "spec": str(job.architecture), "task": job.setting.name}
        return {"key": job.key, **own, "setting": job.setting.knobs(), **{name: getattr(job, name) for name in names}}
    names = ("spec", "dim", "params", "budget", "tokens", "steps", "learning_rate", "seed", "corpus", "tokenizer")
    return {
        "key": job.key,
        "architecture": job.run.label,
        **{name: getattr(job.run, name) for name in names},
        "device": job.device,
    }


def summary(result: AnyResult) -> dict[str, Any]:
    """The result of a job without curves; the score of a trial is that on the test split."""
    names: tuple[str, ...] = ("status", "steps", "score", "wall_seconds", "cpu_seconds")
    if isinstance(result, LMResult):
        names = ("status", "reason", "steps", "loss", "epochs", "tokens_per_second", "seconds", "peak_bytes")
    return {name: getattr(result, name) for name in names}


def curve(result: AnyResult) -> Iterator[tuple[int, Values]]:
    """The steps at which a job was evaluated, with losses in nats and accuracies, by name."""
    if isinstance(result, TrialResult):
        for point in result.curve:
            metrics = point.metrics
            yield point.step, {"train_loss": point.train_loss, "loss": metrics.loss, "accuracy": metrics.accuracy}
    elif isinstance(result, LMResult):
        for at in result.curve:
            yield at.step, {"train_loss": at.train_loss, **({} if at.validation_loss is None else {"loss": at.validation_loss})}


class Tracker(ABC):
    """Shows jobs in another program: a run each, opened when a worker has been given the job."""

    def __init__(self) -> None:
        self.runs: dict[str, Any] = {}

    @abstractmethod
    def start(self, name: str, facts: dict[str, Any]) -> Any:
        """Open a run."""

    @abstractmethod
    def log(self, run: Any, step: int, values: Values) -> None:
        """Add values at a step."""

    @abstractmethod
    def finish(self, run: Any, summary: dict[str, Any]) -> None:
        """Add the result and close the run."""

    def __call__(self, event: Event) -> None:
        """Take in an event; stored results that are used again have no runs."""
        match event:
            case events.JobStarted(job):
                found = facts(job)
                about = found.get("task") or f"{found['params']:,} parameters"
                self.runs[job.key] = self.start(f"{found['architecture']}, {about}, seed {found['seed']}, {job.key[:8]}", found)
            case events.JobProgressed(job, progress) if job.key in self.runs:
                self.log(self.runs[job.key], progress.step, _live(progress))
            case events.JobFinished(job, result) if job.key in self.runs:
                run = self.runs.pop(job.key)
                for step, values in curve(result):
                    self.log(run, step, values)
                self.finish(run, summary(result))
            case events.JobFailed(job) if job.key in self.runs:
                self.finish(self.runs.pop(job.key), {"status": "failed"})
            case events.JobsSkipped(jobs):
                for job in [job for job in jobs if job.key in self.runs]:
                    self.finish(self.runs.pop(job.key), {"status": "not needed"})
            case events.RunEnded():
                while self.runs:
                    self.finish(self.runs.popitem()[1], {"status": "interrupted"})
            case _:
                pass


def _live(progress: AnyProgress) -> Values:
    if isinstance(progress, LMProgress):
        return {"train_loss": progress.loss, "tokens_per_second": progress.tokens_per_second}
    return {"examples_per_second": progress.examples_per_second}  # loss and accuracy come at the end, of every evaluation


class TensorBoard(Tracker):
    """A folder of scalars for every run."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = folder
        self.make = importlib.import_module("torch.utils.tensorboard").SummaryWriter

    @override
    def start(self, name: str, facts: dict[str, Any]) -> Any:
        run = self.make(os.path.join(self.folder, re.sub(r"[^\w.,+@=-]+", "-", name)))
        run.add_text("job", f"```\n{json.dumps(facts, indent=1)}\n```")
        return run

    @override
    def log(self, run: Any, step: int, values: Values) -> None:
        for name, value in values.items():
            run.add_scalar(name, value, step)
        run.flush()

    @override
    def finish(self, run: Any, summary: dict[str, Any]) -> None:
        for name, value in summary.items():
            if isinstance(value, int | float):
                run.add_scalar(f"result/{name}", value, summary.get("steps", 0))
        run.close()


class Wandb(Tracker):
    """A run of Weights & Biases for every job."""

    def __init__(self, project: str) -> None:
        super().__init__()
        self.project, self.module = project, importlib.import_module("wandb")

    @override
    def start(self, name: str, facts: dict[str, Any]) -> Any:
        run = self.module.init(project=self.project, name=name, config=facts, reinit="create_new")
        run.define_metric("*", step_metric="step")  # its own steps would have to come in order
        return run

    @override
    def log(self, run: Any, step: int, values: Values) -> None:
        run.log({"step": step, **values})

    @override
    def finish(self, run: Any, summary: dict[str, Any]) -> None:
        run.summary.update(summary)
        run.finish()


class Trackio(Tracker):
    """A run of trackio for every job, written when the job has ended: it has one open run at a time."""

    def __init__(self, project: str) -> None:
        super().__init__()
        self.project, self.module = project, importlib.import_module("trackio")

    @override
    def start(self, name: str, facts: dict[str, Any]) -> Any:
        return name, facts, []

    @override
    def log(self, run: Any, step: int, values: Values) -> None:
        run[2].append((step, values))

    @override
    def finish(self, run: Any, summary: dict[str, Any]) -> None:
        name, facts, logged = run
        opened = self.module.init(project=self.project, name=name, config=facts | {"result": summary})
        for step, values in logged:
            opened.log(values, step=step)
        numbers = {f"result/{key}": value for key, value in summary.items() if isinstance(value, int | float)}
        opened.log(numbers, step=int(summary.get("steps", 0)))
        opened.finish()


class MLflow(Tracker):
    """A run of MLflow for every job; ``MLFLOW_TRACKING_URI`` says where."""

    def __init__(self, experiment: str) -> None:
        super().__init__()
        self.experiment, self.identifier = experiment, ""
        self.client = importlib.import_module("mlflow").MlflowClient()  # which refuses a store that it cannot use

    @override
    def start(self, name: str, facts: dict[str, Any]) -> Any:
        if not self.identifier:
            known = self.client.get_experiment_by_name(self.experiment)
            self.identifier = known.experiment_id if known else self.client.create_experiment(self.experiment)
        run = self.client.create_run(self.identifier, run_name=name).info.run_id
        for key, value in facts.items():
            self.client.log_param(run, key, value)
        return run

    @override
    def log(self, run: Any, step: int, values: Values) -> None:
        for name, value in values.items():
            self.client.log_metric(run, name, value, step=step)

    @override
    def finish(self, run: Any, summary: dict[str, Any]) -> None:
        for name, value in summary.items():
            if isinstance(value, int | float):
                self.client.log_metric(run, f"result/{name}", value, step=int(summary.get("steps", 0)))
        self.client.set_tag(run, "status", summary["status"])
        self.client.set_terminated(run, "FAILED" if summary["status"] == "failed" else "FINISHED")
