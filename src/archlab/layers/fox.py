"""Forgetting attention (FoX): softmax attention whose scores fall with the forget gates between key and query."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archlab.layers.contract import Divisor, LayerConfig
from archlab.layers.ops.precision import at_least_float32, no_autocast
from archlab.layers.registry import register

_QK_EPS, _NORM_EPS = 1e-5, 1e-6
_GATE_CHANNELS = 4


@register("fox")
class FoXConfig(LayerConfig):
    """Forgetting attention (arXiv 2503.02130, section 3), without positions: the forget gates tell near from far.

    Knobs: ``heads``; ``pro``, the paper's Pro block: keys and values mix with those of the token before, queries and keys are
    normalised, and so is the output, which then is gated.
    """

    paper: ClassVar[str] = "arXiv 2503.02130"
    is_attention: ClassVar[bool] = True

    heads: Divisor = 8
    pro: bool = False

    def _weights(self, dim: int) -> int:
        """Entries of the linear maps; ``pro`` adds the gate and two shifts."""
        return 4 * dim * dim + dim * self.heads + self.pro * (dim * dim + 2 * dim * self.heads)

    def num_params(self, dim: int, length: int) -> int:
        return self._weights(dim) + self.heads + self.pro * 3 * dim

    def matrix_state(self, dim: int, length: int) -> int:
        return 2 * length * dim

    def state_size(self, dim: int, length: int) -> int:
        # Adds the decay of every key, and the last key and value.
        return self.matrix_state(dim, length) + length * self.heads + self.pro * 2 * dim

    def flops(self, dim: int, length: int) -> int:
        return 2 * length * self._weights(dim) + 4 * length * length * (dim + _GATE_CHANNELS * self.heads)

    def build(self, dim: int, max_length: int) -> "FoX":
        self.validate(dim)
        return FoX(dim, self.heads, self.pro, max_length)


class FoX(nn.Module):
    """``o_t = sum_s softmax_s(q_t . k_s / sqrt(D/H) + log f_{s+1} + ... + log f_t) v_s`` with ``f = sigmoid(W_f x + b_f)``.

    In the Pro block ``k_t`` is the norm of ``a k_t + (1 - a) k_{t-1}``, values mix likewise, with ``1 - a = sigmoid(W x_t)``
    for each head, and the output is ``W_o (norm(o_t) * sigmoid(W_g x_t))``. Norms are root mean squares of each head. No biases
    but that of the forget gates. ``forward`` takes any length; the step form remembers ``buffer_length`` tokens.
    """

    def __init__(self, dim: int, heads: int, pro: bool, buffer_length: int) -> None:
        """Biases of the forget gates start at zero."""
        super().__init__()
        self.heads, self.pro, self.buffer_length = heads, pro, buffer_length
        self.qkv_proj = nn.Linear(dim, 3 * dim, bias=False)
        self.forget_proj = nn.Linear(dim, heads)
        nn.init.zeros_(self.forget_proj.bias)
        self.out_proj = nn.Linear(dim, dim, bias=False)
        if pro:
            self.shift_proj = nn.Linear(dim, 2 * heads, bias=False)
            self.gate_proj = nn.Linear(dim, dim, bias=False)
            self.q_norm, self.k_norm, self.norm = (nn.Parameter(torch.ones(heads, dim // heads)) for _ in range(3))
            for parameter in (self.q_norm, self.k_norm, self.norm):
                parameter._no_weight_decay = True  # type: ignore[attr-defined]

    def _project(self, x: Tensor, last_kv: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Scaled queries, keys, values (..., H, width) and log forget gates (..., H) of tokens; keys and values before the
        shift (..., 2, H, width). ``last_kv`` are those of the tokens before, in a sequence None."""
        q, k, v = self.qkv_proj(x).view(*x.shape[:-1], 3, self.heads, -1).unbind(-3)
        kv = torch.stack([k, v], -3)
        if self.pro:
            last = F.pad(kv, (0, 0, 0, 0, 0, 0, 1, -1)) if last_kv is None else last_kv
            share = at_least_float32(self.shift_proj(x)).sigmoid().view(*kv.shape[:-1], 1)
            k, v = torch.lerp(at_least_float32(kv), at_least_float32(last), share).unbind(-3)
            q, k = _norm(q, self.q_norm, _QK_EPS), _norm(k, self.k_norm, _QK_EPS)
        q, k, v = (at_least_float32(t) for t in (q, k, v))
        return q * q.shape[-1] ** -0.5, k, v, F.logsigmoid(at_least_float32(self.forget_proj(x))), kv

    def _read_out(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Norm, gate and last projection of the heads' outputs (..., H, width)."""
        if self.pro:
            mixed = _norm(mixed, self.norm, _NORM_EPS) * self.gate_proj(x).sigmoid().view_as(mixed)
        return self.out_proj(mixed.flatten(-2).to(x.dtype))

    def forward(self, x_bld: Tensor) -> Tensor:
        q, k, v, log_forget, _ = self._project(x_bld, None)
        with no_autocast(x_bld):
            mixed = forgetting_attention(q, k, v, log_forget)
        return self._read_out(x_bld, mixed)

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        weight = self.qkv_proj.weight
        width = weight.shape[1] // self.heads
        kv = weight.new_zeros(batch_size, 2, self.heads, self.buffer_length, width)
        state = {
            "kv": kv,
            "log_decay": weight.new_zeros(batch_size, self.heads, self.buffer_length),
            "position": torch.zeros(batch_size, dtype=torch.int64, device=weight.device),
        }
        return state | ({"last": kv[:, :, :, 0].clone()} if self.pro else {})

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """One token ``(batch, dim)``; the newest token is the last of the buffers."""
        q, k, v, log_forget, last = self._project(x_bd, state.get("last"))
        kv = torch.cat([state["kv"][:, :, :, 1:], torch.stack([k, v], 1)[:, :, :, None]], 3)
        log_decay = F.pad(state["log_decay"][:, :, 1:] + log_forget[..., None], (0, 1))
        age = torch.arange(self.buffer_length - 1, -1, -1, device=x_bd.device)
        scores = (q[:, :, None] @ kv[:, 0].mT)[:, :, 0] + log_decay
        weights = scores.masked_fill((age > state["position"][:, None])[:, None], -torch.inf).softmax(-1)
        new = {"kv": kv, "log_decay": log_decay, "position": state["position"] + 1} | ({"last": last} if self.pro else {})
        return self._read_out(x_bd, (weights[:, :, None] @ kv[:, 1])[:, :, 0]), new


def forgetting_attention(q_blhk: Tensor, k_blhk: Tensor, v_blhk: Tensor, log_forget_blh: Tensor) -> Tensor:
    """Causal attention, (B, L, H, K), with the log gates of ``s + 1`` to ``t`` added to the score of query ``t`` and key ``s``.

    The sum is a difference of cumulated gates, and so a product of further channels of queries and keys; the attention that
    stores no scores does the rest. Whole numbers and remainders are subtracted apart, so that a difference keeps the digits
    that it has far from the start. Queries are scaled already.
    """
    total = log_forget_blh.double().cumsum(1)[..., None]
    whole = total.detach().round()
    rest, whole = (total - whole).to(q_blhk.dtype), whole.to(q_blhk.dtype)
    one = torch.ones_like(whole)
    # A query's own sum shifts all of its scores alike, so it has no gradient.
    q = torch.cat([whole, one, rest.detach(), one, q_blhk], -1)
    k = torch.cat([one, -whole, one, -rest, k_blhk], -1)
    q, k, v = (t.transpose(1, 2) for t in (q, k, F.pad(v_blhk, (0, _GATE_CHANNELS))))
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0).transpose(1, 2)
    return mixed[..., :-_GATE_CHANNELS]


def _norm(x: Tensor, weight_hk: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm of each head (..., H, width), in at least float32."""
    return F.rms_norm(at_least_float32(x), x.shape[-1:], eps=eps) * weight_hk
