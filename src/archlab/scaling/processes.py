"""The processes that train one model together: which of them this is, its share of the work, how they agree."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from archlab.architectures.backbones import Residual
from archlab.errors import ArchlabError

Value = TypeVar("Value")

_LONGEST_WAIT = timedelta(minutes=30)
"""Time after which processes that wait for a dead one end: more than compiling, or writing the largest checkpoint, takes."""


def launched_together() -> bool:
    """Whether ``torchrun`` started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ


@dataclass(frozen=True)
class Processes:
    """One process of those that share a model; alone by default."""

    device: torch.device
    rank: int = 0
    size: int = 1
    sharded: bool = False
    replicas: int = 1
    """Groups of neighbouring processes that hold the whole model each and share it among them."""
    writing: dist.ProcessGroup | None = None
    """The same processes, for what they say to each other while they train."""
    asked: list[int] = field(default_factory=list, compare=False)
    """Signals that have asked this process to end."""

    @classmethod
    @contextmanager
    def join(cls, device: Literal["cpu", "cuda"], replicas: int = 1) -> Iterator["Processes"]:
        """Find the others that ``torchrun`` has started, and part from them at the end.

        Refuses a process without a GPU, and a number of replicas that does not divide that of the processes.
        """
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size % replicas:
            raise ArchlabError(f"replicas={replicas}: must divide the number of processes, {size}")
        place = torch.device(device)
        if device == "cuda":
            local = int(os.environ["LOCAL_RANK"])
            if local >= torch.cuda.device_count():
                raise ArchlabError(f"process {local} has no GPU of its own: start at most {torch.cuda.device_count()} here")
            place = torch.device("cuda", local)
            torch.cuda.set_device(place)
        if device == "cuda":
            dist.init_process_group("nccl", device_id=place, timeout=_LONGEST_WAIT)
        else:
            dist.init_process_group("gloo", timeout=_LONGEST_WAIT)
        try:
            writing = dist.new_group(backend="gloo", timeout=_LONGEST_WAIT)
            yield cls(place, dist.get_rank(), dist.get_world_size(), sharded=True, replicas=replicas, writing=writing)
            dist.barrier()  # a process that leaves while others still talk to it takes them down
        finally:
            dist.destroy_process_group()

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def shard(self, objective: nn.Module) -> None:
        """Put a model on this process's device: alone as it is, else a share of each parameter, gradient and optimiser state.

        Fully sharded data parallel (arXiv 2304.11277): a layer's parameters are gathered for its forward and backward pass only,
        among the processes of a replica; between replicas gradients are summed. The first process has the weights, the others
        may have built the model without any.
        """
        if not self.sharded:
            objective.to(self.device)
            return
        exempt = {name for name, parameter in objective.named_parameters() if getattr(parameter, "_no_weight_decay", False)}
        first = dict((*objective.named_parameters(), *objective.named_buffers())) if self.is_first else {}
        first = {name: value.detach() for name, value in first.items()}
        objective.to("meta")
        mesh = init_device_mesh(
            self.device.type, (self.replicas, self.size // self.replicas), mesh_dim_names=("replicas", "shards")
        )
        mesh = mesh if self.replicas > 1 else mesh["shards"]
        for module in objective.modules():
            if isinstance(module, Residual):
                fully_shard(module, mesh=mesh)
        fully_shard(objective, mesh=mesh)
        objective.to_empty(device=self.device)
        for name, value in (*objective.named_parameters(), *objective.named_buffers()):
            given = (
                first[name].to(self.device) if self.is_first else torch.empty(value.shape, dtype=value.dtype, device=self.device)
            )
            dist.broadcast(given, src=0)
            own = value.detach()
            if isinstance(own, DTensor):
                given = distribute_tensor(given, own.device_mesh, own.placements, src_data_rank=None).to_local()
                own = own.to_local()
            own.copy_(given)
        for name, parameter in objective.named_parameters():
            if name in exempt:
                parameter._no_weight_decay = True  # type: ignore[attr-defined]

    def accumulate(self, objective: nn.Module, *, is_last: bool) -> None:
        """Before the backward pass of a piece of a batch: gradients are exchanged behind the last one only."""
        if isinstance(objective, FSDPModule):
            objective.set_requires_gradient_sync(is_last)

    def shares(self, rows: Tensor, most: int) -> Iterator[tuple[Tensor, float]]:
        """This process's rows of a global batch in pieces of at most ``most`` rows (0: one piece), with their weights.

        All processes get equally many pieces, for they gather parameters together. The weights of all pieces of all
        processes sum to 1; a process that has no row left gets one of weight 0.
        """
        own = torch.tensor_split(rows, self.size)[self.rank]
        longest = -(-len(rows) // self.size)
        for piece in torch.tensor_split(own, -(-longest // (most or longest))):
            yield (piece if len(piece) else rows[:1]), len(piece) / len(rows)

    def sum(self, values: Tensor) -> list[float]:
        """Sums over the processes of a vector on the device."""
        if self.sharded:
            dist.all_reduce(values)
        found: list[float] = values.tolist()
        return found

    def agree(self, value: Value) -> Value:
        """The first process's value."""
        values = [value]
        if self.sharded:
            dist.broadcast_object_list(values, src=0)
        return values[0]

    def wait(self) -> None:
        """Until all are here."""
        if self.sharded:
            dist.barrier()
