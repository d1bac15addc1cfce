"""Who takes which kernel of flash-linear-attention, what it is given, and where PyTorch's operations stay."""

import copy
import sys

import pytest
import torch
from tests import fake_fla
from tests.fake_fla import USERS
from tests.oracles import oracle_of
from torch import Tensor, nn

from archlab.architectures import architecture
from archlab.errors import ArchlabError
from archlab.layers import LayerConfig
from archlab.layers.ops import kernels
from archlab.layers.ops.decay import decayed_linear_attention
from archlab.layers.ops.delta_rule import gated_delta_rule
from archlab.testing.comparison import compare, outputs_and_gradients
from archlab.testing.layers import LayerContract


def config(name: str) -> LayerConfig:
    (found,) = architecture(f"1*{name}").layers
    return found


def built(name: str, dim: int, length: int, device: str = "cpu") -> tuple[nn.Module, Tensor]:
    """A layer off its initial values, and an input."""
    torch.manual_seed(0)
    module, x_bld = config(name).build(dim, length), torch.randn(2, length, dim)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return module.to(device), x_bld.to(device)


def decayed(keys: int = 8, dtype: torch.dtype = torch.float32) -> Tensor:
    q, k, v, u = (torch.rand(2, 5, 3, width, dtype=dtype) for width in (keys, keys, 6, keys))
    return decayed_linear_attention(q, k, v, -u, 16)


@pytest.mark.parametrize("name", USERS)
def test_a_layer_by_its_kernel_equals_itself(monkeypatch, name):
    fake_fla.install(monkeypatch)
    monkeypatch.setattr(kernels, "_HALF_ONLY", set())
    module, x_bld = built(name, 64, 18)
    with kernels.kernels("fla", "cpu"):
        found = outputs_and_gradients(module, nn.Module.__call__, x_bld)
        assert str(kernels.fused()) == f"fla: {USERS[name]}"
    compare(found, outputs_and_gradients(module.double(), nn.Module.__call__, x_bld.double()), LayerContract.tolerance, name)


def test_heads_are_widened_and_only_what_is_no_decay_is_rounded(monkeypatch):
    given = fake_fla.install(monkeypatch)
    q, k, v, u = (torch.rand(2, 5, 3, width) for width in (8, 8, 17, 8))
    with kernels.kernels("fla", "cpu", half=True):
        out = gated_delta_rule(q, k, v, u[..., :1], -u, 16)
    assert (out.shape, out.dtype) == ((2, 5, 3, 17), torch.float32)
    found = {name: (x.shape[3:], x.dtype) for name, x in given["chunk_kda"].items() if isinstance(x, Tensor)}
    half, wide = torch.bfloat16, torch.float32
    assert found == {"q": ((16,), half), "k": ((16,), half), "v": ((32,), half), "g": ((16,), wide), "beta": ((), wide)}
    assert given["chunk_kda"]["scale"] == 1.0


@pytest.mark.parametrize("half", [False, True])
def test_a_numerator_is_never_rounded(monkeypatch, half):
    given = fake_fla.install(monkeypatch)
    module, x_bld = built("mh-linear-attention", 32, 6)
    with kernels.kernels("fla", "cpu", half=half):
        module(x_bld)
    assert given["chunk_linear_attn"]["q"].dtype == torch.float32


def test_the_delta_rule_beside_keys_and_values_takes_bfloat16_only(monkeypatch):
    given = fake_fla.install(monkeypatch)
    module, x_bld = built("rwkv-7", 64, 6)
    with kernels.kernels("fla", "cpu"):
        module(x_bld)
    assert not given
    with kernels.kernels("fla", "cpu", half=True):
        module(x_bld)
    assert given["chunk_dplr_delta_rule"]["lower_bound"] == pytest.approx(-0.6065, abs=1e-4)


def test_operations_stay_where_no_kernel_is_asked_for_or_fits(monkeypatch):
    given = fake_fla.install(monkeypatch)
    decayed()
    with kernels.kernels("torch", "cpu"):
        decayed()
        assert kernels.fused() is None
    with kernels.kernels("fla", "cpu"):
        decayed(dtype=torch.float64)
        q, k, v, u = (torch.rand(1, 3, 1, width) for width in (257, 257, 4, 257))
        gated_delta_rule(q, k, v, u[..., :1], -u, 16)
        assert str(kernels.fused()) == "fla: none"
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(kernels, "_DEVICE", "cuda")
            decayed()
    assert not given


def test_kernels_end_with_their_context(monkeypatch):
    fake_fla.install(monkeypatch)
    with kernels.kernels("fla", "cpu"):
        with pytest.raises(ZeroDivisionError), kernels.kernels("torch", "cpu"):
            raise ZeroDivisionError
        assert str(kernels.fused()) == "fla: none"
        decayed()
        assert str(kernels.fused()) == "fla: chunk_gla"
    assert kernels.fused() is None


def test_they_are_refused_off_a_gpu():
    with pytest.raises(ArchlabError, match="kernels='fla': they need a GPU: choose device='cuda', or leave kernels=fla out"):
        kernels.require("fla", "cpu")


def test_they_are_refused_where_the_package_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "fla.ops", None)
    with pytest.raises(ArchlabError, match=r"fla.ops cannot be imported: .*: pip install 'archlab\[gpu\]'") as refused:
        kernels.require("fla", "cuda")
    assert "\n" not in str(refused.value)


@pytest.mark.gpu
@pytest.mark.parametrize(("half", "tolerance"), [(False, 1e-2), (True, 5e-2)], ids=["TF32", "bfloat16"])
@pytest.mark.parametrize("name", USERS)
def test_a_layer_by_its_kernel_equals_the_oracle_on_a_gpu(name, half, tolerance):
    pytest.importorskip("fla.ops")
    module, x_bld = built(name, 128, 127, "cuda")
    exact = outputs_and_gradients(copy.deepcopy(module).cpu().double(), oracle_of(config(name)), x_bld.cpu().double())
    with kernels.kernels("fla", "cuda", half=half), torch.autocast("cuda", torch.bfloat16, enabled=half):
        found = outputs_and_gradients(module, nn.Module.__call__, x_bld)
        taken = "none" if not half and USERS[name] in kernels._HALF_ONLY else USERS[name]
        assert str(kernels.fused()) == f"fla: {taken}"
    compare({key: tensor.cpu() for key, tensor in found.items()}, exact, tolerance, name)


@pytest.mark.parametrize(
    ("triton", "capability", "is_refused"), [("3.6.0", "9.0", True), ("3.7.1", "9.0", False), ("3.6.0", "8.0", False)]
)
def test_gated_kernels_that_raise_on_hopper_are_refused_before(monkeypatch, triton, capability, is_refused):
    monkeypatch.setattr(kernels, "_library", lambda: None)
    monkeypatch.setattr(kernels, "version", lambda _: triton)
    monkeypatch.setattr(kernels, "query_gpus", lambda _: [capability])
    if is_refused:
        with pytest.raises(ArchlabError, match=r"triton 3\.6\.0 computes wrong gradients on this GPU.*'triton>=3\.7\.1'"):
            kernels.require("fla", "cuda")
    else:
        kernels.require("fla", "cuda")
