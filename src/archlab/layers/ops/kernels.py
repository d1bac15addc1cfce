"""The kernels of flash-linear-attention in place of PyTorch's operations, where a training asks for them.

An operation that has a counterpart there asks :func:`kernel` first. They multiply in TF32 or bfloat16, whose rounding
changes results, so nothing takes them unasked; and they need a GPU.
"""

import importlib
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._compile import _disable_dynamo

from archlab.errors import ArchlabError, in_one_line
from archlab.machine import query_gpus

_DEVICE = "cuda"
_MULTIPLE = 16
"""Heads are widened with zeros to a multiple of the least width that tensor cores take."""
_MOST_KEYS = {"chunk_gated_delta_rule": 256, "chunk_kda": 256, "chunk_dplr_delta_rule": 256}
"""The widest keys of a head that a kernel takes; others take any."""
_HALF_ONLY = {"chunk_dplr_delta_rule"}
"""Kernels whose authors warn against float32."""
_FLOAT32_ONLY = {"chunk_linear_attn"}
"""Kernels whose result is divided by a number that may be near zero, which would magnify the rounding of bfloat16."""
_LOG_DECAYS = {"g", "gk"}
_HOPPER = "9.0"
"""The compute capability of H100 and H200."""
_WRONG_ON_HOPPER, _RIGHT_ON_HOPPER = (3, 4, 0), (3, 7, 1)
"""From the first version of Triton on and before the second, fla-core 0.6.0 raises in its gated backward pass on Hopper."""


@dataclass(frozen=True)
class Fused:
    """The choice of kernels, and which have computed."""

    dtype: torch.dtype
    """Type of queries, keys and values; decays, rates and a kernel's sums stay in float32."""
    taken: set[str] = field(default_factory=set)
    """Kernels that have computed something so far."""

    def __str__(self) -> str:
        return f"fla: {', '.join(sorted(self.taken)) or 'none'}"


# One for the process, not for a thread: a backward pass that computes a layer again does so in a thread of its own.
_fused: Fused | None = None


@contextmanager
def kernels(name: str, device: str, *, half: bool = False) -> Iterator[None]:
    """Compute by ``fla`` or ``torch``, PyTorch's operations, while the context lasts, if :func:`require` takes that.

    ``half`` rounds queries, keys and values of ``fla`` to bfloat16; otherwise their products are in TF32.
    """
    global _fused
    require(name, device)
    dtype = torch.bfloat16 if half else torch.float32
    before, _fused = _fused, Fused(dtype) if name == "fla" else None
    try:
        yield
    finally:
        _fused = before


def fused() -> Fused | None:
    """The choice that :func:`kernels` has made; None for PyTorch's operations."""
    return _fused


def require(name: str, device: str) -> None:
    """Refuse kernels that cannot run here: ArchlabError says what to do if there is no GPU or no import."""
    if name == "torch":
        return
    if device != _DEVICE:
        raise ArchlabError(f"recipe: kernels={name!r}: they need a GPU: choose device='cuda', or leave kernels={name} out")
    _library()
    with suppress(PackageNotFoundError):
        triton = version("triton")
        release = tuple(int(part) for part in re.findall(r"\d+", triton)[:3])
        if _WRONG_ON_HOPPER <= release < _RIGHT_ON_HOPPER and _HOPPER in query_gpus("compute_cap"):
            raise ArchlabError(
                f"recipe: kernels={name!r}: triton {triton} computes wrong gradients on this GPU, so fla refuses gated decays: "
                f"pip install 'triton>=3.7.1', or leave kernels={name} out"
            )


def kernel(name: str, q_blhk: Tensor) -> Callable[..., Tensor] | None:
    """A function of ``fla.ops`` by the conventions of this package, or None where PyTorch's operations are to compute.

    It takes that function's arguments by their names, (B, L, H, width), without a scale, and gives the outputs (B, L, H, V).
    None is the answer where no kernels were asked for, and where this one does not take the queries' width or dtype.
    """
    if _fused is None or q_blhk.device.type != _DEVICE or q_blhk.dtype != torch.float32:
        return None
    if q_blhk.shape[-1] > _MOST_KEYS.get(name, math.inf) or (name in _HALF_ONLY and _fused.dtype == torch.float32):
        return None
    return partial(_run, name, _fused)


@_disable_dynamo  # unlike torch.compiler.disable, imports the compiler only when it is called
def _run(name: str, chosen: Fused, **arguments: Any) -> Tensor:
    v_blhv = arguments["v"]
    dtype = torch.float32 if name in _FLOAT32_ONLY else chosen.dtype
    given = {key: _prepared(key, value, dtype) for key, value in arguments.items()}
    out_blhv: Tensor = getattr(_library(), name)(**given, scale=1.0)[0]
    chosen.taken.add(name)
    return out_blhv[..., : v_blhv.shape[-1]].to(v_blhv.dtype)


def _prepared(key: str, value: Any, dtype: torch.dtype) -> Any:
    """Widened, and rounded if it is no decay or rate; options as they are."""
    if not isinstance(value, Tensor) or value.ndim < 4:
        return value
    value = value if key in _LOG_DECAYS else value.to(dtype)
    missing = -value.shape[-1] % _MULTIPLE
    return F.pad(value, (0, missing)) if missing else value  # padding by nothing would copy


def _library() -> Any:
    try:
        return importlib.import_module("fla.ops")
    except Exception as error:
        reason = in_one_line(error)
        fix = "pip install 'archlab[gpu]', or leave kernels=fla out"
        raise ArchlabError(f"recipe: kernels='fla': fla.ops cannot be imported: {reason}: {fix}") from None
