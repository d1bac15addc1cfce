"""Modules of transformers that compute what a layer does, with the layer's parameters under their names.

Imports of transformers stand inside the functions: of its models, only those that are asked for are loaded.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DIM = 64

Tensors = dict[str, Tensor]


class Counterpart(NamedTuple):
    """A module of transformers, how to call it, and its parameters or their gradients in terms of the layer's."""

    module: nn.Module
    run: Callable[[nn.Module, Tensor], Tensor]
    renamed: Callable[[Tensors], Tensors]


def mamba(ours: nn.Module) -> Counterpart:
    from transformers import MambaConfig
    from transformers.models.mamba.modeling_mamba import MambaMixer

    rank, d_state, _ = ours.split
    config = MambaConfig(
        hidden_size=DIM, state_size=d_state, conv_kernel=4, expand=2, time_step_rank=rank, num_hidden_layers=1, use_bias=False
    )
    return Counterpart(MambaMixer(config, 0), call, lambda p: with_names(p, {"conv.": "conv1d.", "dt_bias": "dt_proj.bias"}))


def mamba2(ours: nn.Module) -> Counterpart:
    from transformers import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    inner, d_state, _ = ours.conv_split
    config = Mamba2Config(
        hidden_size=DIM,
        num_heads=ours.heads,
        head_dim=inner // ours.heads,
        state_size=d_state,
        n_groups=1,
        conv_kernel=4,
        expand=inner // DIM,
        chunk_size=32,
        layer_norm_epsilon=1e-5,
        num_hidden_layers=1,
    )
    return Counterpart(Mamba2Mixer(config, 0), call, lambda p: with_names(p, {"conv.": "conv1d."}))


def gated_deltanet(ours: nn.Module) -> Counterpart:
    from transformers import Qwen3NextConfig
    from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

    heads = ours.heads
    keys, _, values = (width // heads for width in ours.split)
    config = Qwen3NextConfig(
        hidden_size=DIM,
        linear_num_key_heads=heads,
        linear_num_value_heads=heads,
        linear_key_head_dim=keys,
        linear_value_head_dim=values,
        linear_conv_kernel_dim=4,
        rms_norm_eps=1e-5,
        num_hidden_layers=1,
    )

    def renamed(p: Tensors) -> Tensors:
        def by_head(*weights: Tensor) -> Tensor:
            return torch.cat([weight.view(heads, -1, DIM) for weight in weights], 1).flatten(0, 1)

        return {
            "in_proj_qkvz.weight": by_head(*p["qkv_proj.weight"].split(ours.split), p["gate_proj.weight"]),
            "in_proj_ba.weight": by_head(p["beta_proj.weight"], p["dt_proj.weight"]),
            "conv1d.weight": p["conv.weight"],
            **{name: p[name] for name in ("dt_bias", "A_log", "norm.weight", "out_proj.weight")},
        }

    return Counterpart(Qwen3NextGatedDeltaNet(config, 0), call, renamed)


def kda(ours: nn.Module) -> Counterpart:
    from transformers.models.kimi_linear.configuration_kimi_linear import KimiLinearConfig
    from transformers.models.kimi_linear.modeling_kimi_linear import KimiLinearDeltaAttention

    heads = ours.heads
    config = KimiLinearConfig(
        hidden_size=DIM, linear_num_heads=heads, linear_head_dim=DIM // heads, linear_conv_kernel_dim=4, num_hidden_layers=1
    )
    # Of the output's gate, their second map has no bias.
    nn.init.zeros_(ours.gate_proj[1].bias)

    def renamed(p: Tensors) -> Tensors:
        q, k, v = p["qkv_proj.weight"].split(DIM)
        return {
            "q_proj.weight": q,
            "k_proj.weight": k,
            "v_proj.weight": v,
            "conv1d.weight": p["conv.weight"],
            "forget_gate.f_a_proj.weight": p["dt_proj.0.weight"],
            "forget_gate.f_b_proj.weight": p["dt_proj.1.weight"],
            "forget_gate.dt_bias": p["dt_bias"],
            "forget_gate.A_log": p["A_log"].view(1, 1, heads, 1),
            "b_proj.weight": p["beta_proj.weight"],
            "g_a_proj.weight": p["gate_proj.0.weight"],
            "g_b_proj.weight": p["gate_proj.1.weight"],
            "o_norm.weight": p["norm.weight"],
            "o_proj.weight": p["out_proj.weight"],
        }

    return Counterpart(KimiLinearDeltaAttention(config, 0), call, renamed)


def mlstm(ours: nn.Module) -> Counterpart:
    from transformers import xLSTMConfig
    from transformers.models.xlstm.modeling_xlstm import xLSTMLayer

    config = xLSTMConfig(
        hidden_size=DIM,
        num_heads=ours.heads,
        num_hidden_layers=1,
        mode="train",
        autocast_kernel_dtype="float32",
        chunk_size=32,
    )
    with torch.no_grad():  # away from the start, where next to nothing is written
        ours.gate_bias[: ours.heads] += 10

    def renamed(p: Tensors) -> Tensors:
        gates = {
            f"{gate}gate_preact.{kind}": p[f"gate_{source}"].split(ours.heads)[place]
            for place, gate in enumerate("if")
            for kind, source in (("weight", "proj.weight"), ("bias", "bias"))
        }
        return {
            **gates,
            **{f"{role}.weight": p[f"{role}_proj.weight"] for role in "qkv"},
            "ogate_preact.weight": p["o_proj.weight"],
            "multihead_norm.weight": p["norm_weight"],
            "out_proj.weight": p["out_proj.weight"],
        }

    def run(theirs: nn.Module, x_bld: Tensor) -> Tensor:
        length = x_bld.shape[1]
        mixed: Tensor = theirs(F.pad(x_bld, (0, 0, 0, -length % config.chunk_size)))[0]  # it takes whole chunks only
        return mixed[:, :length]

    return Counterpart(xLSTMLayer(config), run, renamed)


def rg_lru(ours: nn.Module) -> Counterpart:
    from transformers import RecurrentGemmaConfig
    from transformers.models.recurrent_gemma.modeling_recurrent_gemma import RecurrentGemmaRecurrentBlock

    _, blocks, block, _ = ours.gates_weight.shape
    config = RecurrentGemmaConfig(
        hidden_size=DIM, lru_width=blocks * block, num_attention_heads=blocks, conv1d_width=4, num_hidden_layers=1
    )

    def renamed(p: Tensors) -> Tensors:
        return {
            **with_names(
                {name: p[name] for name in p if name.split(".")[0] in ("gate_proj", "in_proj", "conv", "out_proj")},
                {"gate_proj": "linear_y", "in_proj": "linear_x", "conv.": "conv_1d.", "out_proj": "linear_out"},
            ),
            "rg_lru.recurrent_param": -p["Lambda"],
            "rg_lru.recurrent_gate_weight": p["gates_weight"][0],
            "rg_lru.input_gate_weight": p["gates_weight"][1],
            "rg_lru.recurrent_gate_bias": p["gates_bias"][0].view(blocks, block),
            "rg_lru.input_gate_bias": p["gates_bias"][1].view(blocks, block),
        }

    def run(theirs: nn.Module, x_bld: Tensor) -> Tensor:
        # At position 0 their input is not scaled; the paper, as the layer, scales every one.
        positions = torch.arange(1, x_bld.shape[1] + 1).expand(len(x_bld), -1)
        mixed: Tensor = theirs(x_bld, positions, None, use_cache=False)[0]
        return mixed

    return Counterpart(RecurrentGemmaRecurrentBlock(config, 0), run, renamed)


def liv(ours: nn.Module) -> Counterpart:
    from transformers import Lfm2Config
    from transformers.models.lfm2.modeling_lfm2 import Lfm2ShortConv

    config = Lfm2Config(hidden_size=DIM, conv_L_cache=ours.conv.kernel_size, conv_bias=False, num_hidden_layers=1)
    return Counterpart(Lfm2ShortConv(config, 0), call, dict)


def attention(ours: nn.Module) -> Counterpart:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding

    config = LlamaConfig(
        hidden_size=DIM,
        num_attention_heads=ours.heads,
        num_key_value_heads=ours.kv_heads,
        attention_bias=True,
        num_hidden_layers=1,
        attn_implementation="eager",
    )

    def renamed(p: Tensors) -> Tensors:
        parts = {kind: p[f"qkv.{kind}"].split(ours.split) for kind in ("weight", "bias")}
        projections = {f"{role}_proj.{kind}": part for kind in parts for role, part in zip("qkv", parts[kind], strict=True)}
        return {**projections, "o_proj.weight": p["out.weight"], "o_proj.bias": p["out.bias"]}

    return Counterpart(LlamaAttention(config, 0), attend_with(LlamaRotaryEmbedding(config)), renamed)


def mla(ours: nn.Module) -> Counterpart:
    from transformers import DeepseekV3Config
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention, DeepseekV3RotaryEmbedding

    heads, head_dim, (kv_rank, rope_dim) = ours.heads, ours.inner // ours.heads, ours.latents
    config = DeepseekV3Config(
        hidden_size=DIM,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        q_lora_rank=len(ours.q_norm.weight),
        kv_lora_rank=kv_rank,
        qk_rope_head_dim=rope_dim,
        qk_nope_head_dim=head_dim,
        v_head_dim=head_dim,
        num_hidden_layers=1,
        attn_implementation="eager",
    )

    def renamed(p: Tensors) -> Tensors:
        def pairs_side_by_side(rows: Tensor) -> Tensor:
            """Channels j and j + d/2 turn together in the layer, 2 j and 2 j + 1 in theirs."""
            return rows.view(-1, 2, rope_dim // 2, rows.shape[-1]).transpose(1, 2).reshape(-1, rope_dim, rows.shape[-1])

        def by_head(*weights: Tensor) -> Tensor:
            return torch.cat([weight.view(heads, -1, weight.shape[-1]) for weight in weights], 1).flatten(0, 1)

        q, q_rotated = p["q_up.weight"].split([ours.inner, ours.rotated])
        latent, k_rotated = p["kv_down.weight"].split(ours.latents)
        return {
            "q_a_proj.weight": p["q_down.weight"],
            "q_a_layernorm.weight": p["q_norm.weight"],
            "q_b_proj.weight": by_head(q, pairs_side_by_side(q_rotated)),
            "kv_a_proj_with_mqa.weight": torch.cat([latent, pairs_side_by_side(k_rotated)[0]]),
            "kv_a_layernorm.weight": p["kv_norm.weight"],
            "kv_b_proj.weight": by_head(*p["kv_up.weight"].chunk(2)),
            "o_proj.weight": p["out_proj.weight"],
        }

    return Counterpart(DeepseekV3Attention(config, 0), attend_with(DeepseekV3RotaryEmbedding(config)), renamed)


def call(theirs: nn.Module, x_bld: Tensor) -> Tensor:
    mixed: Tensor = theirs(x_bld)
    return mixed


def attend_with(rotary: nn.Module) -> Callable[[nn.Module, Tensor], Tensor]:
    def run(theirs: nn.Module, x_bld: Tensor) -> Tensor:
        length = x_bld.shape[1]
        positions = rotary(x_bld, torch.arange(length)[None])
        future = torch.full((length, length), -torch.inf).triu(1)
        mixed: Tensor = theirs(x_bld, position_embeddings=positions, attention_mask=future)[0]
        return mixed

    return run


def with_names(p: Tensors, names: dict[str, str]) -> Tensors:
    """``p`` under the names whose beginnings are replaced."""
    renamed = {}
    for name, tensor in p.items():
        old = next((beginning for beginning in names if name.startswith(beginning)), "")
        renamed[names.get(old, "") + name.removeprefix(old)] = tensor
    return renamed
