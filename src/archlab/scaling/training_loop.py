"""The training of one language model, from its seed to its loss; it can end anywhere and go on later."""

import functools
import gc
import math
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from archlab.accelerators import accelerator_of
from archlab.corpora import Corpus
from archlab.machine import ceilings
from archlab.scaling.checkpoints import Checkpoints
from archlab.scaling.loader import Loader
from archlab.scaling.models import save_model
from archlab.scaling.objective import make_lm_optimizer, make_objective
from archlab.scaling.processes import Processes
from archlab.scaling.result import CurvePoint, Interrupted, LMProgress, LMResult
from archlab.scaling.trial import LMTrial
from archlab.training.context import computing
from archlab.training.optimiser import set_learning_rate, update
from archlab.training.steps import REPORT_SECONDS, diverged_step, evenly_spaced

CHECKPOINT_SECONDS = 60.0
CURVE_POINTS = 50
HOPELESS_AFTER = 0.25
"""Share of the steps after which a training that does not beat a uniform guess is given up."""
_COLLECT_EVERY = 100
"""Steps after which processes that share a model collect Python's garbage: all at the same, for each waits for the others."""
_READ_EVERY = {"cpu": 1, "cuda": 10}  # steps; reading a loss waits for the device


def train(
    trial: LMTrial,
    corpus: Corpus,
    processes: Processes | None = None,
    *,
    checkpoints: Path | None = None,
    trunk: Path | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    last_checkpoint: bool = False,
    models: Path | None = None,
    on_progress: Callable[[LMProgress], None] = lambda _: None,
) -> LMResult:
    """Train and evaluate one language model, in this process alone unless others share it.

    Alone on a CPU, the same trial gives the same bits, interrupted or not. Shared by several processes it gives the same
    numbers up to rounding: the batch of a step follows from the step, and each process takes some of its rows.
    With a folder of its own for ``checkpoints`` the trial is kept there from time to time and taken up again, and with
    ``last_checkpoint`` after its last step. A horizon begins with the checkpoint in the folder of its ``trunk``, if that lies
    before its decay, and leaves one there for longer ones: the same bits as without. The weights of a finished one go to the
    folder of ``models``, if there is one.
    ``on_progress`` is called about once a second, in the first process. SIGTERM or Ctrl-C raises Interrupted, behind a last
    checkpoint.
    """
    recipe = trial.recipe
    processes = processes or Processes(torch.device(trial.device))
    with ExitStack() as stack:
        kept, shared = (
            None if folder is None else stack.enter_context(Checkpoints(folder, processes)) for folder in (checkpoints, trunk)
        )
        stack.enter_context(computing(recipe.kernels, recipe.precision, trial.device))
        stack.enter_context(_signals(processes.asked))
        stack.enter_context(_collecting(processes))
        loader = stack.enter_context(Loader.open(corpus, trial.run, processes, recipe.micro_batch))
        training = _Training(trial, corpus, loader, processes, kept, shared, checkpoint_seconds, on_progress)
        result = training.train()
        if result.status == "finished" and kept is not None and last_checkpoint:
            kept.save(result.steps, training.objective, training.optimizer, asdict(training.log))
        if result.status == "finished" and models is not None:
            return replace(result, not_kept=save_model(models, trial, result, training.objective, corpus, processes))
        return result


@contextmanager
def _signals(asked: list[int]) -> Iterator[None]:
    """Note the signals that ask for an end instead of obeying them; outside the main thread there are none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [n for n in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, lambda n, _: asked.append(n)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _collecting(processes: Processes) -> Iterator[None]:
    """Leave it to the steps of those that share a model when Python's garbage is collected."""
    is_automatic = gc.isenabled()
    if processes.sharded:
        gc.disable()
    try:
        yield
    finally:
        if is_automatic:
            gc.enable()


@dataclass
class _Log:
    """The history of a training run so far; goes into its checkpoints."""

    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    """Since the last point of the curve."""
    curve: list[tuple[int, float, float | None]] = field(default_factory=list)


class _Training:
    def __init__(
        self,
        trial: LMTrial,
        corpus: Corpus,
        loader: Loader,
        processes: Processes,
        checkpoints: Checkpoints | None,
        trunk: Checkpoints | None,
        checkpoint_seconds: float,
        on_progress: Callable[[LMProgress], None],
    ) -> None:
        self.run = run = trial.run
        shape = {"params": run.params_non_embedding, "tokens": run.tokens, "batch_tokens": run.batch_size * run.length}
        recipe = trial.recipe.resolved(**shape)
        if run.warmup_steps is not None and run.decay_steps is not None:
            recipe = recipe.horizon(run.steps, run.warmup_steps, run.decay_steps)
        self.recipe = recipe
        self.corpus, self.loader, self.processes, self.checkpoints, self.trunk = corpus, loader, processes, checkpoints, trunk
        self.checkpoint_seconds, self.on_progress = checkpoint_seconds, on_progress
        _forget_peak(processes.device)
        built: dict[str, Any] = {name: getattr(run, name) for name in ("vocab_size", "length", "dim", "backbone", "seed")}
        self.objective = make_objective(run.architecture, **built, recipe=recipe, processes=processes)
        self.optimizer = make_lm_optimizer(self.objective, recipe)
        kept = checkpoints.restore(self.objective, self.optimizer) if checkpoints is not None else None
        if kept is None and trunk is not None:
            kept = trunk.restore(self.objective, self.optimizer, most=run.trunk_steps)
        self.log = _Log(**kept) if kept is not None else _Log()
        self.start_step = self.log.step
        self.evaluate_at = evenly_spaced(recipe.evaluations, run.steps)
        self.curve_at = evenly_spaced(CURVE_POINTS, run.steps) | self.evaluate_at | {run.trunk_steps}
        self.unread: list[Tensor] = []
        self.reported = self.clock = time.perf_counter()

    def train(self) -> LMResult:
        every = _READ_EVERY[self.processes.device.type]
        step = self.log.step
        while step < self.run.steps:
            step += 1
            self.unread.append(self._take_step(step))
            if self.processes.sharded and step % _COLLECT_EVERY == 0:
                gc.collect(1)
            if step % every == 0 or step in self.curve_at:
                reason = self._read(step)
                if reason:
                    return self._result("diverged", reason)
        return self._result("finished", "")

    def _take_step(self, step: int) -> Tensor:
        """This process's part of the loss of a step, on the device."""
        run, recipe = self.run, self.recipe
        total = torch.zeros((), device=self.processes.device)
        pieces = self.loader.pieces(step)
        for number, (piece, weight) in enumerate(pieces, 1):
            self.processes.accumulate(self.objective, is_last=number == len(pieces))
            loss = self.objective(piece.to(self.processes.device, non_blocking=True))
            (loss * (weight * self.processes.size)).backward()  # gradients are averaged over the processes
            total += loss.detach() * weight
        set_learning_rate(self.optimizer, run.learning_rate * recipe.rate(step, run.steps))
        update(self.objective, self.optimizer, recipe.grad_clip)
        return total

    def _read(self, step: int) -> str:
        """Take in the losses up to a step, and do what is due; why the training cannot go on, or nothing."""
        due = self.processes.is_first and self.checkpoints is not None and self.checkpoints.is_due(self.checkpoint_seconds)
        wishes = torch.tensor([float(max(self.processes.asked, default=0)), float(due)], device=self.processes.device)
        *losses, stop, save = self.processes.sum(torch.cat([torch.stack(self.unread), wishes]))
        self.unread = []
        now = time.perf_counter()
        self.log.seconds += now - self.clock
        self.log.step = step
        self.log.losses += losses
        diverged = diverged_step(step, losses)
        if diverged is not None:
            return f"the loss is not a number at step {diverged}"
        if step in self.curve_at and (reason := self._add_point()):
            return reason
        if self.trunk is not None and step == self.run.trunk_steps and step > (self.trunk.latest() or 0):
            self.trunk.save(step, self.objective, self.optimizer, asdict(self.log))
        if self.checkpoints is not None and (stop or save):
            self.checkpoints.save(step, self.objective, self.optimizer, asdict(self.log))
        if stop:
            raise Interrupted(self.processes.asked[0] if self.processes.asked else signal.SIGTERM)
        if self.processes.is_first and now - self.reported > REPORT_SECONDS:
            self.reported = now
            self.on_progress(LMProgress(step, self.start_step, self.run.steps, self._tokens_per_second(), losses[-1]))
        self.clock = time.perf_counter()
        return ""

    def _add_point(self) -> str:
        """Add a point to the curve; why it is hopeless to go on, or nothing."""
        step, mean = self.log.step, math.fsum(self.log.losses) / len(self.log.losses)
        loss = self._evaluate() if step in self.evaluate_at else None
        self.log.curve.append((step, mean, loss))
        self.log.losses = []
        if loss is not None and not math.isfinite(loss):
            return f"the validation loss is not a number after step {step}"
        guess = math.log(self.run.vocab_size)  # padding included: it begins as likely as any token
        if step >= HOPELESS_AFTER * self.run.steps and mean > guess:
            return f"the loss is {mean:.3g} at step {step}, above the {guess:.3g} of a uniform guess"
        return ""

    @torch.no_grad()
    def _evaluate(self) -> float:
        """Loss on the validation split, over all processes."""
        run, recipe = self.run, self.recipe
        limit = max(1, recipe.validation_tokens // run.length)
        size = min(recipe.micro_batch or run.batch_size, run.batch_size) * self.processes.size
        total, number = torch.zeros(1, dtype=torch.float64, device=self.processes.device), 0
        for batch in self.corpus.validation_batches(size, run.length, limit):
            for piece, weight in self.processes.shares(torch.from_numpy(batch), 0):
                total += self.objective(piece.to(self.processes.device)).double() * (weight * len(batch))
            number += len(batch)
        return self.processes.sum(total)[0] / number

    def _tokens_per_second(self) -> float:
        return self.log.step * self.run.batch_size * self.run.length / max(self.log.seconds, 1e-9)

    def _result(self, status: Any, reason: str) -> LMResult:
        device = self.processes.device
        gemm = self.processes.sum(torch.tensor([gemm_peak(device.type)], dtype=torch.float64, device=device))[0]
        shape: dict[str, Any] = {"length": self.run.length, "dim": self.run.dim, "vocab_size": self.run.vocab_size}
        card = accelerator_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
        if card is None:
            peak, flops = gemm, 3 * self.run.architecture.flops(**shape)
        else:  # as others state it: what the model needs, over what the data sheet says
            peak = self.processes.size * (card.bf16 if self.recipe.precision == "bf16" else card.fp32)
            flops = 3 * self.run.architecture.active_flops(**shape)
        rate = self._tokens_per_second()
        return LMResult(
            status=status,
            reason=reason,
            steps=self.log.step,
            loss=self.log.curve[-1][2] if status == "finished" else None,
            curve=tuple(CurvePoint(*point) for point in self.log.curve),
            epochs=self.corpus.epochs(self.log.step * self.run.batch_size * self.run.length, self.run.length),
            tokens_per_second=rate,
            utilisation=rate * flops / self.run.length / peak,
            gemm=gemm,
            peak_bytes=_peak_bytes(device),
            seconds=self.log.seconds,
            processes=self.processes.size,
        )


@functools.cache
def gemm_peak(device: str) -> float:
    """FLOP/s of large products of matrices on this process's threads or its GPU."""
    return ceilings(device).gemm


def _forget_peak(device: torch.device) -> None:
    """Count the largest memory from now on: a worker has trained other models before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):  # other systems than Linux count from the start of the process
            Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says counts from the peak of the process that started this one
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) << 10
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
