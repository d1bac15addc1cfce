"""Titans' memory: a matrix state that descends its loss by gradient steps with momentum, and forgets."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from archlab.layers.deltanet import DeltaNet, DeltaNetConfig, GatedDeltaNet
from archlab.layers.ops.decay import chunk_size
from archlab.layers.ops.decayed_chunks import floor_of_log_decay, num_chunks
from archlab.layers.ops.precision import at_least_float32, no_autocast
from archlab.layers.registry import register

FORGOTTEN = 0.01
"""Share of the memory that a token forgets at the start."""


@register("titans")
class TitansConfig(DeltaNetConfig):
    """Titans' long-term memory (arXiv 2501.00663, section 3.1) with a linear memory, whose gradients are those of single tokens.

    Knobs: ``heads``; ``expand_v``, width of the values over the layer's; ``d_conv``, taps of the short convolution;
    ``allow_neg_eigval``, rates of up to 2 instead of 1.
    """

    paper: ClassVar[str] = "arXiv 2501.00663"

    @override
    def _weights(self, dim: int) -> int:
        # Adds the gate of the output, forgetting and momentum.
        return super()._weights(dim) + dim * (self.expand_v * dim + 2 * self.heads)

    @override
    def _vectors(self, dim: int) -> int:
        return super()._vectors(dim) + 2 * self.heads

    @override
    def matrix_state(self, dim: int, length: int) -> int:
        # The memory and its momentum.
        return 2 * super().matrix_state(dim, length)

    @override
    def flops(self, dim: int, length: int) -> int:
        keys, values = self._head(dim)
        mixing = self.heads * momentum_delta_rule_flops(keys, values, length, chunk_size(keys, values, length))
        return 2 * length * (self._weights(dim) + self.d_conv * self._convolved(dim)) + mixing

    @override
    def build(self, dim: int, max_length: int) -> "Titans":
        self.validate(dim)
        return Titans(dim, self.heads, self.expand_v * dim, self.d_conv, self.allow_neg_eigval)


class Titans(DeltaNet):
    """``o_t = q_t M_t / sqrt(K)``; ``M_t = (1 - a_t) M_{t-1} + S_t``; ``S_t = e_t S_{t-1} + k_t (beta_t (v_t - k_t M_{t-1}))``.

    ``S`` goes down the gradient of ``|k M - v|^2 / 2`` with momentum ``e = sigmoid(W_e x + b_e)`` and rate ``beta``; the memory
    forgets ``a = sigmoid(W_a x + b_a)`` of itself. All three are numbers of a head and token. The normalised output of each
    head is multiplied by ``silu(W_g x_t)``; all else is as in :class:`DeltaNet`, which this is at ``a = e = 0``.
    """

    def __init__(self, dim: int, heads: int, values: int, d_conv: int, allow_neg_eigval: bool) -> None:
        """Biases start such that a token forgets 1 % and that momentum is halved."""
        super().__init__(dim, heads, values, d_conv, allow_neg_eigval)
        self.decay_proj = nn.Linear(dim, 2 * heads)
        self.gate_proj = nn.Linear(dim, values, bias=False)
        forgotten = torch.tensor([FORGOTTEN, 0.5]).logit().repeat(heads)
        with torch.no_grad():
            self.decay_proj.bias.copy_(forgotten)

    @override
    def _log_decay(self, x: Tensor) -> Tensor:
        # Of the memory and of the momentum: (..., heads, 2).
        forgotten, momentum = at_least_float32(self.decay_proj(x)).view(*x.shape[:-1], self.heads, 2).unbind(-1)
        return F.logsigmoid(torch.stack([-forgotten, momentum], -1))

    _gate = GatedDeltaNet._gate

    @override
    def forward(self, x_bld: Tensor) -> Tensor:
        q, k, v, beta, log_decay = self._project(x_bld, self.conv(self.qkv_proj(x_bld)))
        with no_autocast(x_bld):
            mixed = momentum_delta_rule(q, k, v, beta, log_decay, chunk_size(k.shape[-1], v.shape[-1], x_bld.shape[1]))
        return self._read_out(x_bld, mixed)

    @override
    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        state = super().init_state(batch_size)
        return state | {"momentum": state["kv"].clone()}

    @override
    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        qkv, conv = self.conv.step(self.qkv_proj(x_bd), state["conv"])
        q, k, v, beta, log_decay = self._project(x_bd, qkv)
        kept, momentum = torch.split(log_decay.exp()[..., None], 1, -2)
        written = beta * (v - (k[..., None] * state["kv"]).sum(-2))
        momentum = momentum * state["momentum"] + k[..., None] * written[..., None, :]
        kv = kept * state["kv"] + momentum
        return self._read_out(x_bd, (q[..., None] * kv).sum(-2)), {"kv": kv, "momentum": momentum, "conv": conv}


def momentum_delta_rule(
    q_blhk: Tensor, k_blhk: Tensor, v_blhv: Tensor, beta_blh1: Tensor, log_decay_blh2: Tensor, chunk: int
) -> Tensor:
    """``o[t] = q[t] M[t]``, ``M[t] = a[t] M[t-1] + S[t]``, ``S[t] = e[t] S[t-1] + k[t] beta[t] (v[t] - k[t] M[t-1])``.

    ``log a`` and ``log e`` are the two of ``log_decay``, at most 0; keys are of unit length. What the memory holds at ``t`` of
    a write at ``s`` is a number, the sum over the tokens at which it may pass from the momentum to the memory, so within a
    chunk the writes solve a unit triangular system, as those of the delta rule do; memory and momentum at the ends of
    chunks follow from each other by one product. Any chunk will do, and changes the cost only.

    Returns:
        The outputs (B, L, H, V).
    """
    length = q_blhk.shape[1]
    log_decay = log_decay_blh2.clamp(min=floor_of_log_decay(log_decay_blh2.dtype))
    q, k, v, beta, log_decay = (_cut(x, chunk) for x in (q_blhk, k_blhk, v_blhv, beta_blh1, log_decay))
    kept, momentum = torch.split(log_decay.cumsum(-2), 1, -1)
    ends = _decays(momentum)
    brought = _decays(kept) @ ends
    kept, carried = kept.exp(), brought[..., :1] * momentum[..., :1, :].exp()
    of_keys, of_queries = torch.split(torch.cat([k, q], -2) @ k.mT, chunk, -2)
    # A token's error is of the memory before it.
    system = beta * of_keys * _delayed(brought)
    given = beta * torch.cat([v, _delayed(kept, 1.0) * k, _delayed(carried) * k], -1)
    solved = torch.linalg.solve_triangular(system, given, upper=False, unitriangular=True)
    written, of_state = torch.split(solved, [v.shape[-1], 2 * k.shape[-1]], -1)
    lasting = torch.cat([brought[:-1, ..., -1:, :].mT * k[:-1], ends[:-1, ..., -1:, :].mT * k[:-1]], -1).mT
    added, passed = lasting @ written[:-1], _passed(kept[:-1], carried[:-1], momentum[:-1], k.shape[-1]) - lasting @ of_state[:-1]
    states = [v.new_zeros(v.shape[1] * v.shape[2], 2 * k.shape[-1], v.shape[-1])]
    for through, new in zip(passed.flatten(1, 2).unbind(), added.flatten(1, 2).unbind(), strict=True):
        states.append(torch.baddbmm(new, through, states[-1]))
    state = torch.stack(states).view(*v.shape[:3], *states[0].shape[1:])
    written = written - of_state @ state
    out = (of_queries * brought) @ written + torch.cat([kept * q, carried * q], -1) @ state
    return out.permute(1, 0, 3, 2, 4).flatten(1, 2)[:, :length]


def momentum_delta_rule_flops(key_dim: int, value_dim: int, length: int, chunk: int) -> int:
    """Floating-point operations of :func:`momentum_delta_rule` for one sequence and head."""
    chunks, states = num_chunks(length, chunk), 2 * key_dim
    within = 4 * chunk**2 * key_dim + 2 * chunk**3 + chunk**2 * (value_dim + states) + 2 * chunk**2 * value_dim
    across = 4 * chunk * states * value_dim
    passed = 2 * chunk * states * (value_dim + states) + 2 * states**2 * value_dim
    return chunks * (within + across) + (chunks - 1) * passed


def _cut(x_blhd: Tensor, chunk: int) -> Tensor:
    """(B, L, H, D) to (chunks, B, H, chunk, D), zeros after the last position."""
    chunks = num_chunks(x_blhd.shape[1], chunk)
    padded = F.pad(x_blhd, (0, 0, 0, 0, 0, chunks * chunk - x_blhd.shape[1]))
    return padded.reshape(len(x_blhd), chunks, chunk, *x_blhd.shape[2:]).permute(1, 0, 3, 2, 4)


def _decays(log_decay: Tensor) -> Tensor:
    """Decays (..., chunk, chunk) from each position (last axis) to each later one, by their logarithms since the chunk began."""
    return (log_decay - log_decay.mT).clamp(max=0).exp().tril()


def _delayed(x: Tensor, first: float = 0.0) -> Tensor:
    """Each position's row at the next position of the chunk."""
    return F.pad(x, (0, 0, 1, -1), value=first)


def _passed(kept: Tensor, carried: Tensor, momentum: Tensor, keys: int) -> Tensor:
    """The matrix (..., 2 keys, 2 keys) by which memory and momentum, one above the other, pass over a chunk."""
    whole, joined, faded = kept[..., -1, 0], carried[..., -1, 0], momentum[..., -1, 0].exp()
    parts = torch.stack([torch.stack([whole, joined], -1), torch.stack([torch.zeros_like(faded), faded], -1)], -2)
    eye = torch.eye(keys, dtype=kept.dtype, device=kept.device)
    return (parts[..., :, None, :, None] * eye[:, None, :]).flatten(-2).flatten(-3, -2)
