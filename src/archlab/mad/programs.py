"""How training steps run: of one model, of several as one stacked program, or as a captured CUDA graph.

Models that are trained together share their architecture, setting and recipe; learning rate, weight decay and seed differ.
"""

import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.func import functional_call, vmap
from typing_extensions import override

from archlab.isolation import spoil, spoilt
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

    def keep(self, indices: Sequence[int]) -> "Program":
        """The program of these learners only, in the same way; this one must not be used any more."""


class Eager(Program):
    """One learner after the other, operation by operation."""

    def __init__(self, learners: Sequence[Learner], why: str = "") -> None:
        self.learners, self.why = learners, why
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

    @override
    def keep(self, indices: Sequence[int]) -> Program:
        return Eager([self.learners[index] for index in indices], self.why)


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

    @override
    def keep(self, indices: Sequence[int]) -> Program:
        kept = [self.learners[index] for index in indices]
        return Stacked(kept) if len(kept) > 1 else Eager(kept)


class Captured(Program):
    """A program as CUDA graphs, one for every size of batch: a step is one launch."""

    def __init__(self, program: Program, learners: Sequence[Learner], batch_sizes: Sequence[int]) -> None:
        """Capture it; raises RuntimeError if it does what a graph cannot hold, such as waiting for the device."""
        self.program, self.learners, self.batch_sizes = program, learners, batch_sizes
        self.description = f"captured, {program.description}"
        self.graphs: dict[int, tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]] = {}
        pool = torch.cuda.graph_pool_handle()  # of both graphs: they never run at once
        for size in batch_sizes:
            self.graphs[size] = self._capture(size, pool)

    def _capture(self, size: int, pool: Any) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]:
        """A graph, the batches that it reads and the losses that it writes."""
        device = self.learners[0].examples.inputs.device
        here, stream = torch.cuda.current_stream(device), self.learners[0].capturing_stream()
        batches = [torch.zeros(size, dtype=torch.int64, device=device) for _ in self.learners]
        with undone(self.learners):
            stream.wait_stream(here)
            with torch.cuda.stream(stream):
                for _ in range(3):  # libraries allocate and choose kernels, which no graph may hold
                    self.program.step(batches)
            here.wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(here), torch.cuda.graph(graph, pool=pool, stream=stream):
            # the outer context: a capture that fails leaves its own stream the current one
            losses = self.program.step(batches)
        return graph, batches, losses

    @override
    def step(self, batches: Sequence[Tensor]) -> Tensor:
        if len(batches[0]) not in self.graphs:
            return self.program.step(batches)
        graph, own_batches, losses = self.graphs[len(batches[0])]
        for own, batch in zip(own_batches, batches, strict=True):
            own.copy_(batch, non_blocking=True)
        graph.replay()
        return losses

    @override
    def keep(self, indices: Sequence[int]) -> Program:
        torch.cuda.synchronize()
        self.graphs.clear()  # their memory is free before others are captured
        return _capture(self.program.keep(indices), [self.learners[index] for index in indices])


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

    @override
    def keep(self, indices: Sequence[int]) -> Program:
        return Overlapped([self.programs[index] for index in indices])


def choose_program(learners: Sequence[Learner]) -> Program:
    """The fastest way to train these learners together, measured where there is a choice; they are left as they were."""
    is_cuda = learners[0].examples.inputs.is_cuda
    if len(learners) == 1:
        return _capture(Eager(learners), learners) if is_cuda else Eager(learners)
    makers: list[Callable[[Sequence[Learner]], Program]] = [_overlapped if is_cuda else Eager, _stacked]
    tensors = (*learners[0].examples, *learners[0].model.parameters())
    shapes = (len(learners), learners[0].recipe, *(tuple(tensor.shape) for tensor in tensors))
    if shapes not in _fastest:
        times = [_seconds(maker(learners), learners) for maker in makers]
        _fastest[shapes] = times.index(min(times))
    return makers[_fastest[shapes]](learners)


_fastest: dict[Hashable, int] = {}
"""The way that was the fastest, by all that decides it: capturing to find out takes as long as many steps."""


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
    if spoilt():
        program.description += ", not captured: another program of this process could not be"
        return program
    try:
        return Captured(program, learners, _batch_sizes(learners[0]))
    except RuntimeError as error:
        spoil("the capture of a CUDA graph failed")  # after which PyTorch may capture none
        torch.cuda.synchronize()
        for parameter in (*_parameters(learners), *getattr(program, "parameters", {}).values()):
            parameter.grad = None  # memory of the graph, which nothing has written
        program.description += f", cannot be captured: {_first_line(error.__context__ or error)}"
        return program


def _batch_sizes(learner: Learner) -> list[int]:
    """Sequences of a batch, and of the last one of an epoch if that is smaller."""
    number = len(learner.examples.inputs)
    size = min(learner.recipe.batch_size, number)
    return [size, number % size] if number % size else [size]


def _parameters(learners: Sequence[Learner]) -> list[Tensor]:
    return [parameter for learner in learners for parameter in learner.model.parameters()]


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _seconds(program: Program, learners: Sequence[Learner]) -> float:
    """Median seconds per step."""
    device = learners[0].examples.inputs.device
    batches = [torch.arange(_batch_sizes(learner)[0], device=device) for learner in learners]
    with undone(learners):
        times = seconds_of(lambda: program.step(batches).tolist(), 5)
    return sorted(times[1:])[1]


@contextmanager
def undone(learners: Sequence[Learner]) -> Iterator[None]:
    """Take steps in between that leave the learners' parameters and optimisers as they were, in place."""
    parameters = _parameters(learners)
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
