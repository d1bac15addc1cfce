"""Multi-head latent attention: keys and values of all heads come from one short vector a token, which alone is cached."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archlab.fields import Count
from archlab.layers.contract import LayerConfig
from archlab.layers.knobs import Even
from archlab.layers.ops.precision import at_least_float32
from archlab.layers.ops.rotary import rotate
from archlab.layers.registry import register

NORM_EPS = 1e-6


@register("mla")
class MLAConfig(LayerConfig):
    """Multi-head latent attention (arXiv 2405.04434, section 2.1), without biases; any width fits.

    Knobs: ``heads``; ``head_dim``, width of a head's values, and of the part of its queries and keys that has no
    position; ``rope_dim``, width of the part that is rotated by position, even, whose key all heads share; ``kv_rank``
    and ``q_rank``, widths of the latents of keys and values, and of queries.
    """

    paper: ClassVar[str] = "arXiv 2405.04434"
    is_attention: ClassVar[bool] = True

    heads: Count = 8
    head_dim: Count = 16
    rope_dim: Even = 8
    kv_rank: Count = 32
    q_rank: Count = 96

    def _weights(self, dim: int) -> int:
        down = dim * (self.q_rank + self.kv_rank + self.rope_dim)
        up = self.heads * (self.q_rank * (self.head_dim + self.rope_dim) + self.kv_rank * 2 * self.head_dim)
        return down + up + self.heads * self.head_dim * dim

    def num_params(self, dim: int, length: int) -> int:
        return self._weights(dim) + self.q_rank + self.kv_rank

    def state_size(self, dim: int, length: int) -> int:
        # A latent and a rotated key for every token.
        return length * (self.kv_rank + self.rope_dim)

    def flops(self, dim: int, length: int) -> int:
        return 2 * length * self._weights(dim) + 4 * length * length * self.heads * (self.head_dim + self.rope_dim)

    def build(self, dim: int, max_length: int) -> "MLA":
        # ``max_length`` bounds the step form's buffer only.
        return MLA(dim, self, max_length)


class MLA(nn.Module):
    """``o = W_o softmax(([q, q_r] . [k, k_r]) / sqrt(d + d_r)) v`` with ``[k, v] = W_u c`` and ``c = rms_norm(W_d x)``.

    ``[q, q_r] = W_uq rms_norm(W_dq x)``; ``q_r`` and ``k_r = W_r x`` are rotated by position.

    ``forward`` takes any length. The step form remembers ``c`` and ``k_r`` of ``buffer_length`` tokens, and is exact for
    as many steps. It compares queries with the latents themselves: ``q . W_u c`` is ``(W_u^T q) . c``.
    """

    def __init__(self, dim: int, sizes: MLAConfig, buffer_length: int) -> None:
        super().__init__()
        self.heads, self.buffer_length = sizes.heads, buffer_length
        self.rope_dim = sizes.rope_dim
        self.latents = [sizes.kv_rank, sizes.rope_dim]
        self.inner, self.rotated = sizes.heads * sizes.head_dim, sizes.heads * sizes.rope_dim
        self.q_down = nn.Linear(dim, sizes.q_rank, bias=False)
        self.q_norm = nn.RMSNorm(sizes.q_rank, eps=NORM_EPS)
        self.q_up = nn.Linear(sizes.q_rank, self.inner + self.rotated, bias=False)
        self.kv_down = nn.Linear(dim, sum(self.latents), bias=False)
        self.kv_norm = nn.RMSNorm(sizes.kv_rank, eps=NORM_EPS)
        self.kv_up = nn.Linear(sizes.kv_rank, 2 * self.inner, bias=False)
        self.out_proj = nn.Linear(self.inner, dim, bias=False)

    def _project(self, x_bld: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries and their rotated parts (B, L, H, width), latents (B, L, R) and rotated keys (B, L, width)."""
        q, q_rotated = torch.split(self.q_up(self.q_norm(at_least_float32(self.q_down(x_bld)))), [self.inner, self.rotated], -1)
        latent, k_rotated = torch.split(self.kv_down(x_bld), self.latents, -1)
        q_rotated, k_rotated = (rotate(t, positions, self.rope_dim) for t in (q_rotated, k_rotated))
        q, q_rotated = (t.view(*t.shape[:2], self.heads, -1) for t in (q, q_rotated))
        return q, q_rotated, self.kv_norm(at_least_float32(latent)), k_rotated

    def forward(self, x_bld: Tensor) -> Tensor:
        q, q_rotated, latent, k_rotated = self._project(x_bld, torch.arange(x_bld.shape[1], device=x_bld.device))
        k, v = (t.view(*t.shape[:2], self.heads, -1) for t in self.kv_up(latent).chunk(2, -1))
        q, k = torch.cat([q, q_rotated], -1), torch.cat([k, k_rotated[:, :, None].expand_as(q_rotated)], -1)
        # The kernel that stores no scores wants one width; it takes 1.3 times less time at length 128, 3 times at 1024.
        padded = F.pad(v, (0, self.rope_dim))
        q, k, padded = (t.transpose(1, 2) for t in (q, k, padded))
        mixed = F.scaled_dot_product_attention(q, k, padded, is_causal=True).transpose(1, 2)
        return self.out_proj(mixed[..., : v.shape[-1]].flatten(2))

    def init_state(self, batch_size: int) -> dict[str, Tensor]:
        weight = self.kv_up.weight
        buffer = weight.new_zeros(batch_size, self.buffer_length, sum(self.latents))
        return {"latent": buffer, "position": torch.zeros(batch_size, dtype=torch.int64, device=weight.device)}

    def step(self, x_bd: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """One token ``(batch, dim)``; the newest token is the last of the buffer."""
        # The tokens of a step lie along the position axis while they are projected: (1, batch, ...).
        q_bhd, q_rotated, latent, k_rotated = (t[0] for t in self._project(x_bd[None], state["position"]))
        of_keys_hdr, of_values_hdr = self.kv_up.weight.view(2, self.heads, -1, self.latents[0])
        buffer_bmc = torch.cat([state["latent"][:, 1:], torch.cat([latent, k_rotated], -1)[:, None]], 1)
        q_bhc = torch.cat([torch.einsum("bhd,hdr->bhr", q_bhd, of_keys_hdr), q_rotated], -1)
        age = torch.arange(self.buffer_length - 1, -1, -1, device=x_bd.device)
        unfilled = age > state["position"][:, None]
        scores_bhm = q_bhc @ buffer_bmc.mT * (q_bhd.shape[-1] + self.rope_dim) ** -0.5
        weights_bhm = scores_bhm.masked_fill(unfilled[:, None], -torch.inf).softmax(-1)
        mixed_bhr = weights_bhm @ buffer_bmc[..., : self.latents[0]]
        values_bhd = torch.einsum("bhr,hdr->bhd", mixed_bhr, of_values_hdr)
        return self.out_proj(values_bhd.flatten(1)), {"latent": buffer_bmc, "position": state["position"] + 1}
