"""PaTH attention: softmax attention whose positions are products of Householder-like matrices of the tokens in between."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archlab.layers.contract import Divisor, LayerConfig
from archlab.layers.ops.delta_rule import unit_length
from archlab.layers.ops.precision import at_least_float32, no_autocast
from archlab.layers.ops.short_conv import ShortConv
from archlab.layers.registry import register

_RANK, _TAPS = 32, 3
_CHUNK = 32


@register("path-attention")
class PaTHConfig(LayerConfig):
    """PaTH attention (arXiv 2505.16381, section 3): between key and query every token multiplies by a matrix of its own.

    Knobs: ``heads``; ``forget``, forget gates as in ``fox``, the paper's PaTH-FoX.
    """

    paper: ClassVar[str] = "arXiv 2505.16381"
    is_attention: ClassVar[bool] = True

    heads: Divisor = 8
    forget: bool = False

    def _weights(self, dim: int) -> int:
        """Entries of the linear maps."""
        return 4 * dim * dim + 2 * _RANK * dim + (1 + self.forget) * dim * self.heads

    def num_params(self, dim: int, length: int) -> int:
        return self._weights(dim) + _TAPS * dim + (1 + self.forget) * self.heads

    def matrix_state(self, dim: int, length: int) -> int:
        return 2 * length * dim

    def state_size(self, dim: int, length: int) -> int:
        # Adds what the convolution looks back on, and with forget gates the decay of every key.
        return self.matrix_state(dim, length) + (_TAPS - 1) * dim + self.forget * length * self.heads

    def flops(self, dim: int, length: int) -> int:
        head, mixing = dim // self.heads, 0
        for start in range(0, length, _CHUNK):
            here, past, ends = min(_CHUNK, length - start), start, start + _CHUNK >= length
            mixing += 8 * here * here * head + here * here * (here + head) + 2 * here**3  # scores within, and their solve
            mixing += 2 * here * (past + here) * head  # values
            mixing += bool(past) * 2 * here * head * (here + past)  # queries back to the start, scores before it
            mixing += (not ends) * 2 * head * (here * here + bool(past) * (here + past) * head)  # keys on to the end
        return 2 * length * (self._weights(dim) + _TAPS * dim) + self.heads * mixing

    def build(self, dim: int, max_length: int) -> "PaTHAttention":
        self.validate(dim)
        return PaTHAttention(dim, self.heads, self.forget, max_length)


class PaTHAttention(nn.Module):
    """``o_t = sum_s softmax_s(q_t^T H_t ... H_{s+1} k_s / sqrt(D/H)) v_s`` with ``H_t = I - beta_t w_t w_t^T``.

    ``w`` is a map of low rank behind a causal convolution of three taps and SiLU, at unit length in each head; ``beta = 2
    sigmoid(W x + b)``. ``forget`` adds log gates to the scores. ``forward`` takes any length; the step form remembers
    ``buffer_length`` tokens and multiplies all keys by the matrix of each new one.
    """

    def __init__(self, dim: int, heads: int, forget: bool, buffer_length: int) -> None:
        super().__init__()
        self.heads, self.buffer_length = heads, buffer_length
        self.qkv_proj = nn.Linear(dim, 3 * dim, bias=False)
        self.w_proj = nn.Sequential(nn.Linear(dim, _RANK, bias=False), nn.Linear(_RANK, dim, bias=False))
        self.conv = ShortConv(dim, _TAPS, bias=False)
        self.beta_proj = nn.Linear(dim, heads)
        self.forget_proj = nn.Linear(dim, heads) if forget else None
        self.out_proj = nn.Linear(dim, dim, bias=False)

    def _project(self, x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        """Scaled queries, keys, values, directions ``w`` (..., H, width), rates and log forget gates (..., H) of tokens."""
        q, k, v = at_least_float32(self.qkv_proj(x)).view(*x.shape[:-1], 3, self.heads, -1).unbind(-3)
        w = unit_length(at_least_float32(F.silu(w)).view(k.shape))
        beta = 2 * at_least_float32(self.beta_proj(x)).sigmoid()
        gates = torch.zeros_like(beta) if self.forget_proj is None else at_least_float32(self.forget_proj(x))
        log_forget = gates if self.forget_proj is None else F.logsigmoid(gates)
        return q * q.shape[-1] ** -0.5, k, v, w, beta, log_forget

    def forward(self, x_bld: Tensor) -> Tensor:
        q, k, v, w, beta, log_forget = (t.transpose(1, 2) for t in self._project(x_bld, self.conv(self.w_proj(x_bld))))
        with no_autocast(x_bld):
            mixed = path_attention(q, k, v, w, beta, None if self.forget_proj is None else log_forget)
        return self.out_proj(mixed.transpose(1, 2).flatten(2).to(x_bld.dtype))

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        weight = self.qkv_proj.weight
        kv = weight.new_zeros(batch_size, 2, self.heads, self.buffer_length, weight.shape[1] // self.heads)
        state = {
            "kv": kv,
            "conv": self.conv.init_state(batch_size),
            "position": torch.zeros(batch_size, dtype=torch.int64, device=weight.device),
        }
        return state if self.forget_proj is None else state | {"log_decay": kv[:, 0, :, :, 0].clone()}

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """One token ``(batch, dim)``; the newest token is the last of the buffers."""
        w_bd, conv = self.conv.step(self.w_proj(x_bd), state["conv"])
        q, k, v, w, beta, log_forget = self._project(x_bd, w_bd)
        past, values = state["kv"][:, :, :, 1:].unbind(1)
        past = past - (past @ w[..., None]) * (beta[..., None] * w)[:, :, None]
        keys, values = torch.cat([past, k[:, :, None]], 2), torch.cat([values, v[:, :, None]], 2)
        age = torch.arange(self.buffer_length - 1, -1, -1, device=x_bd.device)
        scores = (q[:, :, None] @ keys.mT)[:, :, 0]
        new = {"kv": torch.stack([keys, values], 1), "conv": conv, "position": state["position"] + 1}
        if self.forget_proj is not None:
            new["log_decay"] = F.pad(state["log_decay"][:, :, 1:] + log_forget[..., None], (0, 1))
            scores = scores + new["log_decay"]
        weights = scores.masked_fill((age > state["position"][:, None])[:, None], -torch.inf).softmax(-1)
        return self.out_proj((weights[:, :, None] @ values)[:, :, 0].flatten(1).to(x_bd.dtype)), new


def path_attention(q: Tensor, k: Tensor, v: Tensor, w: Tensor, beta: Tensor, log_forget: Tensor | None) -> Tensor:
    """Attention of queries, keys, values and unit directions (B, H, L, K) by products of ``I - beta w w^T``: (B, H, L, K).

    Chunk by chunk (arXiv 2505.16381, section 3.2). Products within a chunk follow from a triangular system (the UT transform);
    at its end all keys so far are multiplied by the product over the chunk, so that they stand where the next one starts.
    ``log_forget`` (B, H, L) are added to scores, those after the key up to the query.
    """
    length = q.shape[2]
    decay = None if log_forget is None else log_forget.double().cumsum(2)
    keys, outputs = k[:, :, :0], []
    for start in range(0, length, _CHUNK):
        here = slice(start, min(start + _CHUNK, length))
        q_c, k_c, w_c, beta_c = q[:, :, here], k[:, :, here], w[:, :, here], beta[:, :, here, None]
        scaled = beta_c * w_c
        # Row j of a solution: what token j removes, given what earlier tokens of the chunk have removed.
        within = torch.linalg.solve_triangular(
            torch.tril(scaled @ w_c.mT, -1),
            torch.cat([torch.tril(scaled @ k_c.mT, -1), scaled], -1),
            upper=False,
            unitriangular=True,
        )
        of_keys, of_start = within[..., : within.shape[-2]], within[..., within.shape[-2] :]
        read = torch.tril(q_c @ w_c.mT)
        scores = q_c @ k_c.mT - read @ of_keys
        if start:
            scores = torch.cat([(q_c - read @ of_start) @ keys.mT, scores], -1)
        if decay is not None:
            scores = scores + (decay[:, :, here, None] - decay[:, :, None, : here.stop]).to(scores.dtype)
        unseen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu_(1 + start)
        outputs.append(scores.masked_fill(unseen, -torch.inf).softmax(-1) @ v[:, :, : here.stop])
        if here.stop < length:
            k_c = k_c - of_keys.mT @ w_c
            keys = torch.cat([keys - keys @ (of_start.mT @ w_c), k_c], 2) if start else k_c
    return torch.cat(outputs, 2)
