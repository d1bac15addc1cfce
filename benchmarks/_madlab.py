"""Loads the reference code of MAD from a checkout, on a machine without a GPU and without its compiled packages."""

import importlib
import importlib.abc
import importlib.machinery
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

ABSENT = {"flash_attn", "triton", "transformers", "pytorch_lightning", "torchmetrics"}
"""Packages that are imported on the way to the layers measured here and do no work in them, flash_attn's attention aside."""

CLASSES = {
    "swiglu": "SwiGLU",
    "mh-attention": "Attention",
    "hyena": "HyenaOperator",
    "mh-hyena": "MultiHeadHyenaOperator",
    "linear-attention": "LinearAttention",
    "mh-linear-attention": "LinearAttention",
}

_root = Path()


def load(root: Path) -> None:
    """Make ``mad`` importable from a checkout; leave with a message and status 2 if ``root`` is none."""
    global _root
    if not (root / "mad" / "model" / "language_model.py").is_file():
        print(
            f"--madlab {root}: no checkout of the reference code; git clone https://github.com/athms/mad-lab and give its path",
            file=sys.stderr,
        )
        sys.exit(2)
    _root = root
    sys.path.insert(0, str(root))
    sys.meta_path.append(_Absent())
    importlib.import_module("flash_attn.modules.mha").MHA = SelfAttention  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its use of names that PyTorch has deprecated since
        importlib.import_module("mad.model.layers")


def language_model(layers: Sequence[str], *, dim: int, max_length: int, vocab_size: int) -> nn.Module:
    """The reference code's model of these layers, each with the knobs of its configuration file."""
    configs = []
    for name in layers:
        knobs = yaml.safe_load((_root / "configs" / "layers" / f"{name}.yml").read_text(encoding="utf-8"))
        configs.append({**knobs, "dim": dim, "max_length": max_length})
    model = importlib.import_module("mad.model.language_model").LanguageModel(
        vocab_size=vocab_size,
        layers=[getattr(importlib.import_module("mad.model.layers"), CLASSES[name]) for name in layers],
        layer_cfgs=configs,
        dim=dim,
        max_length=max_length,
        norm=lambda width: nn.RMSNorm(width, eps=1e-5),
    )
    assert isinstance(model, nn.Module)
    return model


_NAMES = [
    (r"^token_embeds\.", "embedding."),
    (r"^unembed\.0\.", "norm."),
    (r"^unembed\.1\.", "unembedding."),
    (r"^model\.(\d+)\.0\.", r"layers.\1.norm."),
    (r"^model\.(\d+)\.1\.", r"layers.\1.layer."),
    (r"\.w1\.", ".gate."),
    (r"\.w2\.", ".up."),
    (r"\.w3\.", ".down."),
    (r"\.short_filter\.", ".short_conv."),
    (r"\.long_conv\.bias$", ".skip"),
    (r"\.long_conv\.filter\.pos_emb\.z$", ".filter.features_lf"),
    (r"\.long_conv\.filter\.implicit_filter\.1\.freq$", ".filter.frequency"),
    (r"\.long_conv\.filter\.implicit_filter\.0\.", ".filter.hidden.0."),
    (r"\.long_conv\.filter\.implicit_filter\.2\.", ".filter.hidden.1."),
    (r"\.long_conv\.filter\.implicit_filter\.4\.", ".filter.hidden.2."),
    (r"\.long_conv\.filter\.implicit_filter\.6\.", ".filter.taps."),
]


def copy_weights(reference: nn.Module, ours: nn.Module) -> None:
    """Give this project's model the parameters of the reference code's of the same layers."""
    found = {}
    for name, parameter in reference.named_parameters():
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)
        found[name] = parameter.detach()
    own = dict(ours.named_parameters())
    assert found.keys() == own.keys(), sorted(found.keys() ^ own.keys())
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(found[name].view_as(parameter))


class SelfAttention(nn.Module):
    """Causal multi-head attention with rotary positions over each head's first ``rotary_emb_dim`` channels."""

    def __init__(self, embed_dim: int, num_heads: int, rotary_emb_dim: int, **_: object) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.rotary_dim = rotary_emb_dim
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.out = nn.Linear(embed_dim, embed_dim)
        self.register_buffer("rates", 1e4 ** (-torch.arange(0, rotary_emb_dim, 2) / rotary_emb_dim), persistent=False)

    def forward(self, x_bld: Tensor) -> Tensor:
        batch, length, _ = x_bld.shape
        q, k, v = self.qkv(x_bld).view(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        angles = torch.arange(length)[:, None] * self.rates
        cosine, sine = angles.cos(), angles.sin()
        y = F.scaled_dot_product_attention(self.rotate(q, cosine, sine), self.rotate(k, cosine, sine), v, is_causal=True)
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out

    def rotate(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        first, second, rest = x.split([self.rotary_dim // 2, self.rotary_dim // 2, x.shape[-1] - self.rotary_dim], dim=-1)
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine, rest], dim=-1)


class _Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the absent packages and any module in them: every name in them exists and does nothing."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.partition(".")[0] in ABSENT else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _Nothing(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


class _Nothing(ModuleType):
    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return nn.Module if name.endswith("Module") else MagicMock(name=name)
