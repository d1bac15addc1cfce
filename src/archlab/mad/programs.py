"""How training steps run: of one model, of several as one stacked program, or as a captured CUDA graph.

Models that are trained together share their architecture, setting and recipe; learning rate, weight decay and seed differ.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor
from torch.func import functional_call, vmap
from typing_extensions import override

from archlab.machine import seconds_of
from archlab.mad.learner import Examples, Learner


class Program(Protocol):
    """A way to run a step of one or several learners."""

    description: str
    """The way in a few words, for provenance."""

    def step(self, batches: Sequence[Tensor]) -> Tensor:
        """Forward, loss, backward and update; nothing waits for the device.

        Takes for every learner the indices of its batch among its examples; returns losses ``(learners,)`` in nats, on the
        device.
        """


class Eager(Program):
    """One learner after the other, operation by operation."""

    def __init__(self, learners: Sequence[Learner], why: str = "") -> None:
        self.learners = learners
        kind = "compiled" if learners[0].recipe.compiled else "eager"
        self.description = f"{kind}: {why}" if why else kind

    @override
    def step(self, batches: Sequence[Tensor]) -> Tensor:
        losses = []
        for learner, batch in zip(self.learners, batches, strict=True):
            loss = learner.loss(*learner.examples.take(batch))
            loss.backward()  # type: ignore[no-untyped-call]
            learner.update()
            losses.append(loss.detach())
        return torch.stack(losses)


class Stacked(Program):
    """All learners as one program over stacked parameters, each operation once for all of them (``torch.func.vmap``).

    The learners' own parameters become slices of the stacked ones: to evaluate, save or leave, a learner needs nothing.
    """

    def __init__(self, learners: Sequence[Learner]) -> None:
        self.learners = learners
        self.description = f"stacked, {len(learners)} together"
        objectives = [learner.objective for learner in learners]
        self.parameters = {
            name: torch.stack([objective.get_parameter(name).detach() for objective in objectives]).requires_grad_()
            for name, _ in objectives[0].named_parameters()
        }
        for name, stacked in self.parameters.items():
            for objective, own in zip(objectives, stacked.detach(), strict=True):
                objective.get_parameter(name).data = own
        self.buffers = {
            name: torch.stack([objective.get_buffer(name) for objective in objectives])
            for name, _ in objectives[0].named_buffers()
        }
        self._losses: Callable[..., Tensor] = vmap(self._loss)
        answers = max(learner.examples.labels.shape[1] for learner in learners)
        self.examples = [learner.examples.padded(answers) for learner in learners]

    def _loss(self, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], examples: Examples) -> Tensor:
        loss: Tensor = functional_call(self.learners[0].objective, (parameters, buffers), tuple(examples))  # type: ignore[arg-type]
        return loss

    @override
    def step(self, batches: Sequence[Tensor]) -> Tensor:
        taken = [examples.take(batch) for examples, batch in zip(self.examples, batches, strict=True)]
        batch = Examples(*(torch.stack(column) for column in zip(*taken, strict=True)))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")  # operators that vmap runs member by member
            losses = self._losses(self.parameters, self.buffers, batch)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        for name, stacked in self.parameters.items():
            gradients = [None] * len(self.learners) if stacked.grad is None else stacked.grad
            for learner, own in zip(self.learners, gradients, strict=True):
                learner.objective.get_parameter(name).grad = own
            stacked.grad = None
        for learner in self.learners:
            learner.update()
        return losses.detach()


class Captured(Program):
    """A program as one CUDA graph: a step is one launch. Batches of another size run as the program does by itself."""

    def __init__(self, program: Program, learners: Sequence[Learner], batch_size: int) -> None:
        """Capture it; raises RuntimeError if it does what a graph cannot hold, such as waiting for the device."""
        self.program = program
        self.description = f"captured, {program.description}"
        device = learners[0].examples.inputs.device
        self.batches = [torch.zeros(batch_size, dtype=torch.int64, device=device) for _ in learners]
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with undone(learners):
            self.stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(self.stream):
                for _ in range(3):  # libraries allocate and choose kernels, which no graph may hold
                    program.step(self.batches)
            torch.cuda.current_stream(device).wait_stream(self.stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=self.stream):
            self.losses = program.step(self.batches)

    @override
    def step(self, batches: Sequence[Tensor]) -> Tensor:
        if any(len(batch) != len(own) for batch, own in zip(batches, self.batches, strict=True)):
            return self.program.step(batches)
        for own, batch in zip(self.batches, batches, strict=True):
            own.copy_(batch, non_blocking=True)
        self.graph.replay()
        return self.losses


class Overlapped(Program):
    """A program for each learner, all at once on streams of their own."""

    def __init__(self, programs: Sequence[Program]) -> None:
        self.programs = programs
        self.description = f"overlapped, {len(programs)} x {programs[0].description}"
        self.streams = [torch.cuda.Stream() for _ in programs]  # type: ignore[no-untyped-call]

    @override
    def step(self, batches: Sequence[Tensor]) -> Tensor:
        here = torch.cuda.current_stream()
        losses = []
        for program, stream, batch in zip(self.programs, self.streams, batches, strict=True):
            stream.wait_stream(here)
            with torch.cuda.stream(stream):
                losses.append(program.step([batch]))
        for stream in self.streams:
            here.wait_stream(stream)
        return torch.cat(losses)


def choose_program(learners: Sequence[Learner]) -> Program:
    """The fastest way to train these learners together, measured where there is a choice; they are left as they were."""
    is_cuda = learners[0].examples.inputs.is_cuda
    if len(learners) == 1:
        return _capture(Eager(learners), learners) if is_cuda else Eager(learners)
    makers: list[Callable[[Sequence[Learner]], Program]] = [_overlapped if is_cuda else Eager, _stacked]
    times = [_seconds(maker(learners), learners) for maker in makers]
    return makers[times.index(min(times))](learners)


def _overlapped(learners: Sequence[Learner]) -> Program:
    return Overlapped([_capture(Eager([learner]), [learner]) for learner in learners])


def _stacked(learners: Sequence[Learner]) -> Program:
    program = Stacked(learners)
    try:
        with undone(learners):
            program.step([torch.zeros(1, dtype=torch.int64, device=learner.examples.inputs.device) for learner in learners])
    except (RuntimeError, NotImplementedError, ValueError) as error:
        return Eager(learners, f"cannot be stacked: {_first_line(error)}")
    return _capture(program, learners) if learners[0].examples.inputs.is_cuda else program


def _capture(program: Program, learners: Sequence[Learner]) -> Program:
    try:
        return Captured(program, learners, _batch_size(learners[0]))
    except RuntimeError as error:
        torch.cuda.synchronize()
        program.description += f", cannot be captured: {_first_line(error)}"
        return program


def _batch_size(learner: Learner) -> int:
    return min(learner.recipe.batch_size, len(learner.examples.inputs))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _seconds(program: Program, learners: Sequence[Learner]) -> float:
    """Median seconds per step."""
    device = learners[0].examples.inputs.device
    batches = [torch.arange(_batch_size(learner), device=device) for learner in learners]
    with undone(learners):
        times = seconds_of(lambda: program.step(batches).tolist(), 5)
    return sorted(times[1:])[1]


@contextmanager
def undone(learners: Sequence[Learner]) -> Iterator[None]:
    """Take steps in between that leave the learners' parameters and optimisers as they were, in place."""
    parameters = [p for learner in learners for p in learner.model.parameters()]
    values = [p.detach().clone() for p in parameters]
    states = {tensor: tensor.clone() for tensor in _state_tensors(learners)}
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, values, strict=True):
                parameter.copy_(value)
                parameter.grad = None
            for tensor in _state_tensors(learners):
                if tensor in states:
                    tensor.copy_(states[tensor])
                else:
                    tensor.zero_()  # as every state of AdamW begins


def _state_tensors(learners: Sequence[Learner]) -> list[Tensor]:
    states = [state for learner in learners for state in learner.optimizer.state.values()]
    return [value for state in states for value in state.values() if isinstance(value, Tensor)]
