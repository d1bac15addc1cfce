"""Operations by the kernels of flash-linear-attention beside their own forms in float64: equal outputs and gradients.

Triton's interpreter runs the kernels on a CPU, in float32; CONTRIBUTING.md says how. What a GPU rounds is not seen here.
"""

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.fake_fla import USERS
from torch import Tensor

from archlab.architectures import architecture
from archlab.layers.ops import kernels
from archlab.layers.ops.decay import decayed_linear_attention
from archlab.layers.ops.delta_rule import delta_rule, gated_delta_rule
from archlab.layers.ops.linear_attention import linear_attention
from archlab.layers.ops.scalar_decay import scalar_decayed_linear_attention
from archlab.testing.comparison import compare, outputs_and_gradients, relative_error

if os.environ.get("TRITON_INTERPRET") != "1" or not find_spec("triton") or not find_spec("fla"):
    pytest.skip("needs flash-linear-attention and TRITON_INTERPRET=1", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore")  # that there is no GPU
TOLERANCE = 1e-4
LEAST_LOG_DECAY = -0.7


class Index(int):
    """The index of a kernel's loop: that of the interpreter is a plain number, without `to`."""

    def to(self, *_: Any) -> "Index":
        return self


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kernels take CPU tensors, and the first of their configurations; replaces what was bound before the interpreter."""
    with warnings.catch_warnings(action="ignore"):
        import fla.ops  # noqa: F401
        import triton.language as tl
        from triton.runtime.autotuner import Autotuner

    def counted(*bounds: Any) -> Iterator[Index]:
        return map(Index, range(*map(int, bounds)))

    monkeypatch.setattr(Autotuner, "_bench", lambda *_, **__: [1.0, 1.0, 1.0])
    for module in [module for name, module in sys.modules.items() if name.startswith("fla.ops")]:
        monkeypatch.setattr(module, "range", counted, raising=False)
        if hasattr(module, "gather"):
            monkeypatch.setattr(module, "gather", lambda *args, **options: tl.gather(*args, **options))
    monkeypatch.setattr(kernels, "_DEVICE", "cpu")
    monkeypatch.setattr(kernels, "_HALF_ONLY", set())  # bfloat16 is not interpreted
    with kernels.kernels("fla", "cpu"):
        yield


def outputs(operation: Callable[..., Tensor], given: list[Tensor]) -> list[Tensor]:
    """The output, and the gradients of its product with fixed numbers."""
    given = [x.clone().requires_grad_() for x in given]
    out = operation(*given)
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(0)).to(out.dtype)
    return [out, *torch.autograd.grad((out * cotangent).sum(), given, materialize_grads=True)]


def scalar_decay(q: Tensor, k: Tensor, v: Tensor, u: Tensor) -> Tensor:
    return scalar_decayed_linear_attention(q, k, v, -u[..., 0], 16)


def decay(q: Tensor, k: Tensor, v: Tensor, u: Tensor) -> Tensor:
    return decayed_linear_attention(q, k, v, -u, 16)


def numerator_and_denominator(q: Tensor, k: Tensor, v: Tensor, _: Tensor) -> Tensor:
    return torch.cat(linear_attention(*(x.transpose(1, 2).flatten(0, 1) for x in (q, k, v)), 16), -1)


def delta_rule_by_head(q: Tensor, k: Tensor, v: Tensor, u: Tensor) -> Tensor:
    return gated_delta_rule(q, F.normalize(k, dim=-1), v, u[..., :1], -u[..., 1:2], 16)


def delta_rule_by_channel(q: Tensor, k: Tensor, v: Tensor, u: Tensor) -> Tensor:
    return gated_delta_rule(q, F.normalize(k, dim=-1), v, u[..., :1], -u, 16)


def delta_rule_beside_keys(q: Tensor, k: Tensor, v: Tensor, u: Tensor) -> Tensor:
    read = F.normalize(k, dim=-1)
    log_decay = LEAST_LOG_DECAY * u
    return delta_rule(q, -read, u * read, log_decay, 16, kv=(k, v), least_log_decay=LEAST_LOG_DECAY)


@pytest.mark.parametrize(
    ("operation", "kernel"),
    [
        (scalar_decay, "chunk_simple_gla"),
        (decay, "chunk_gla"),
        (numerator_and_denominator, "chunk_linear_attn"),
        (delta_rule_by_head, "chunk_gated_delta_rule"),
        (delta_rule_by_channel, "chunk_kda"),
        (delta_rule_beside_keys, "chunk_dplr_delta_rule"),
    ],
)
@pytest.mark.parametrize(("length", "keys", "values"), [(70, 16, 32), (9, 8, 17)])
def test_an_operation_equals_its_kernel(
    operation: Callable[..., Tensor],
    kernel: str,
    length: int,
    keys: int,
    values: int,
) -> None:
    torch.manual_seed(0)
    given = [torch.randn(1, length, 2, width) for width in (keys, keys, values)] + [torch.rand(1, length, 2, keys)]
    found = outputs(operation, given)
    assert str(kernels.fused()) == f"fla: {kernel}"
    exact = outputs(operation, [x.double() for x in given])
    assert str(kernels.fused()) == f"fla: {kernel}"
    for name, one, other in zip(("output", "dq", "dk", "dv", "du"), found, exact, strict=True):
        assert relative_error(one, other, floor=1.0) <= TOLERANCE, name


@pytest.mark.parametrize("name", USERS)
def test_a_layer_by_kernels_equals_itself(name: str) -> None:
    torch.manual_seed(0)
    (config,) = architecture(f"1*{name}").layers
    module, x_bld = config.build(64, 20), torch.randn(1, 20, 64)
    found = outputs_and_gradients(module, torch.nn.Module.__call__, x_bld)
    assert str(kernels.fused()) == f"fla: {USERS[name]}"
    exact = outputs_and_gradients(module.double(), torch.nn.Module.__call__, x_bld.double())
    compare(found, exact, TOLERANCE, name)
