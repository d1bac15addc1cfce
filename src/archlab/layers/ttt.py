"""TTT-Linear: the state is a linear model, trained on the sequence itself by gradient descent in mini-batches."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from archlab.fields import Count, Positive
from archlab.layers.contract import EvenDivisor, LayerConfig
from archlab.layers.ops.head_norm import head_norm, normalised, projected
from archlab.layers.ops.members import apply
from archlab.layers.ops.precision import at_least_float32, no_autocast
from archlab.layers.ops.rotary import rotate
from archlab.layers.registry import register

NORM_EPS = 1e-6


@register("ttt-linear")
class TTTLinearConfig(LayerConfig):
    """TTT-Linear (arXiv 2407.04620, section 2) in its Transformer backbone: no gate, no convolution.

    Knobs: ``heads``, each of even width; ``mini_batch``, tokens that take their gradients at the same weights;
    ``base_lr``, the largest inner learning rate, times the width of a head.
    """

    paper: ClassVar[str] = "arXiv 2407.04620"
    state_knob: ClassVar[str] = "heads"

    heads: EvenDivisor = 8
    mini_batch: Count = 16
    base_lr: Positive = 1.0

    def _inner(self, dim: int) -> int:
        """Scalars of the linear models of all heads: weights and biases."""
        return dim * (dim // self.heads + 1)

    def num_params(self, dim: int, length: int) -> int:
        return 4 * dim * dim + self._inner(dim) + self.heads * (dim + 1) + 4 * dim + self.mini_batch

    def matrix_state(self, dim: int, length: int) -> int:
        return dim * dim // self.heads

    def state_size(self, dim: int, length: int) -> int:
        # The linear models, and their gradients since the mini-batch began.
        return 2 * self._inner(dim)

    def flops(self, dim: int, length: int) -> int:
        full, rest = divmod(length, self.mini_batch)
        pairs = full * self.mini_batch**2 + rest**2
        per_token = 4 * dim * dim + dim * self.heads + 3 * self._inner(dim)
        return 2 * (length * per_token + pairs * (2 * dim + self.heads))

    def build(self, dim: int, max_length: int) -> "TTTLinear":
        self.validate(dim)
        return TTTLinear(dim, self.heads, self.mini_batch, self.base_lr)


class TTTLinear(nn.Module):
    """``o_t = q_t + LN(q_t W_t + b_t)``, where ``W, b`` descend the gradients of ``|LN(k W + b) - (v - k)|^2 / 2``.

    The gradients of a mini-batch are taken at the weights with which it begins; token ``t`` of it reads weights that
    went down those of tokens 1 to ``t``, each times its own rate ``base_lr sigmoid(W_lr x_s + b_lr) / K`` and, all of
    them, times ``max(1 / t + c_t, 0)`` with a trainable ``c``. Positions are rotary, counted within the mini-batch.
    Outputs of all heads pass a layer norm and a last projection. The inner model runs in at least float32.
    """

    def __init__(self, dim: int, heads: int, mini_batch: int, base_lr: float) -> None:
        """Inner weights start normal with deviation 0.02, inner biases at zero, rates at half of the largest."""
        super().__init__()
        width = dim // heads
        self.heads, self.mini_batch, self.max_rate = heads, mini_batch, base_lr / width
        self.qkv_proj, self.out_proj = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.rate_proj = nn.Linear(dim, heads)
        nn.init.normal_(self.rate_proj.weight, std=0.02)
        nn.init.zeros_(self.rate_proj.bias)
        self.step_offset = nn.Parameter(torch.zeros(mini_batch))
        # The last row is the bias: keys and queries get a channel that is always one.
        self.inner = nn.Parameter(torch.cat([0.02 * torch.randn(heads, width, width), torch.zeros(heads, 1, width)], 1))
        self.inner_norm_weight = nn.Parameter(torch.ones(heads, 1, width))
        self.inner_norm_bias = nn.Parameter(torch.zeros(heads, 1, width))
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        for parameter in (self.inner, self.inner_norm_weight, self.inner_norm_bias):
            parameter._no_weight_decay = True  # type: ignore[attr-defined]

    def _project(self, x_bld: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Queries (B, heads, L, width), inputs of queries and of keys, and these times their rates (..., width + 1), targets."""
        dim = x_bld.shape[-1]
        qk, v = torch.split(at_least_float32(self.qkv_proj(x_bld)), [2 * dim, dim], -1)
        q, k = rotate(qk, positions, dim // self.heads).chunk(2, -1)
        q, k, v = (t.view(*t.shape[:2], self.heads, -1).transpose(1, 2) for t in (q, k, v))
        q1, k1 = F.pad(q, (0, 1), value=1.0), F.pad(k, (0, 1), value=1.0)
        rate = self.max_rate * at_least_float32(self.rate_proj(x_bld)).sigmoid().transpose(1, 2)[..., None]
        return q, q1, k1, rate * k1, v - k

    def _scales(self) -> Tensor:
        """Factors of the summed gradients at each position of a mini-batch (mini_batch, 1)."""
        position = torch.arange(1, self.mini_batch + 1, dtype=self.step_offset.dtype, device=self.step_offset.device)
        return (1 / position + self.step_offset).clamp(min=0)[:, None]

    def _mini_batch(
        self, learnt: Tensor, read: Tensor, scales: Tensor, q1: Tensor, k1: Tensor, written: Tensor, target: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The inner model of queries, a mini-batch or a part of it, (B, heads, tokens, width), and its summed gradients.

        Gradients are taken at the inner weights ``learnt``; tokens read ``read``, less ``scales`` times their gradients.
        """
        gradient = apply(_InnerGradient, k1 @ learnt, target, self.inner_norm_weight, self.inner_norm_bias)
        return q1 @ read - (scales * (q1 @ written.mT)).tril_() @ gradient, written.mT @ gradient

    def _read_out(self, x: Tensor, q: Tensor, z: Tensor) -> Tensor:
        """Both norms and the last projection of the inner models of the queries (B, heads, L, width)."""
        mixed = q + head_norm(z, self.inner_norm_weight, self.inner_norm_bias, NORM_EPS)
        return self.out_proj(self.norm(mixed.transpose(1, 2).flatten(2)).to(x.dtype))

    def forward(self, x_bld: Tensor) -> Tensor:
        q, *projected = self._project(x_bld, torch.arange(x_bld.shape[1], device=x_bld.device) % self.mini_batch)
        with no_autocast(x_bld):
            inner, scales, outputs = self.inner.expand(len(x_bld), -1, -1, -1), self._scales(), []
            for parts in zip(*(torch.split(t, self.mini_batch, 2) for t in projected), strict=True):
                output, summed = self._mini_batch(inner, inner, scales[: parts[0].shape[2]], *parts)
                outputs.append(output)
                inner = inner - scales[-1] * summed
        return self._read_out(x_bld, q, torch.cat(outputs, 2))

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        """Inner weights and summed gradients (B, heads, width + 1, width), and the position in the mini-batch (B)."""
        inner = self.inner.expand(batch_size, -1, -1, -1).clone()
        position = torch.zeros(batch_size, dtype=torch.int64, device=inner.device)
        return {"inner": inner, "summed": torch.zeros_like(inner), "position": position}

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        # The tokens of a step lie along the position axis while they are projected.
        q, *projected = (t.transpose(0, 2) for t in self._project(x_bd[None], state["position"]))
        scales, inner = self._scales(), state["inner"]
        scale = scales[state["position"], :, None, None]
        output, gradient = self._mini_batch(inner, inner - scale * state["summed"], scale, *projected)
        summed = state["summed"] + gradient
        position = (state["position"] + 1) % self.mini_batch
        begins = (position == 0)[:, None, None, None]
        state = {
            "inner": torch.where(begins, inner - scales[-1] * summed, inner),
            "summed": torch.where(begins, 0.0, summed),
            "position": position,
        }
        return self._read_out(x_bd, q, output)[:, 0], state


class _InnerGradient(torch.autograd.Function):
    """Derivative of ``|LN(z) - target|^2 / 2`` by ``z``, along the last axis."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, target: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        normed, factor = normalised(z, NORM_EPS)
        error = (normed * weight).add_(bias).sub_(target)
        gradient = projected(error * weight, normed).mul_(factor)
        ctx.save_for_backward(normed, factor, error, weight, gradient)
        return gradient

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dgradient: Tensor) -> tuple[Tensor, ...]:
        normed, factor, error, weight, gradient = ctx.saved_tensors
        dprojected = dgradient * factor
        dslope = projected(dprojected, normed)
        derror = dslope * weight
        dweight = (dslope * error).addcmul_(derror, normed).sum_to_size(weight.shape)
        # What is projected depends on the norm, and so does what it is projected on.
        slope = error * weight
        dnormed = (derror * weight).addcmul_(dprojected, (slope * normed).mean(-1, keepdim=True), value=-1)
        dnormed.addcmul_(slope, (dprojected * normed).mean(-1, keepdim=True), value=-1)
        dz = projected(dnormed, normed).addcmul_(normed, (dgradient * gradient).mean(-1, keepdim=True), value=-1)
        return dz.mul_(factor), derror.neg(), dweight, derror.sum_to_size(weight.shape)
