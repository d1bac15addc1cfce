"""What a layer from outside must show before it is trained: each fault is found, and sound layers pass."""

import re
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from archlab.errors import ArchlabError
from archlab.layers import LayerConfig, layer
from archlab.layers.third_party.check import check_third_party


class Sum(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.out = nn.Linear(dim, dim)
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return self.out(x.cumsum(1))


class Dropped(Sum):
    def forward(self, x):
        return F.dropout(super().forward(x), 0.2)


class Transformed(Sum):
    def forward(self, x):
        n = 2 * x.shape[1]
        kernel = torch.fft.rfft(torch.ones(n // 2), n=n)[None, :, None]
        return self.out(torch.fft.irfft(torch.fft.rfft(x, n=n, dim=1) * kernel, n=n, dim=1)[:, : n // 2])


class LooksAhead(Sum):
    def forward(self, x):
        return super().forward(x) + F.pad(x, (0, 0, 0, 1))[:, 1:]


class LooksAheadOnce(Sum):
    def forward(self, x):
        y = super().forward(x)
        return torch.cat([y[:, :5], y[:, 5:6] + x[:, 9:10], y[:, 6:]], 1)


class LooksAheadBehindAClosedGate(Sum):
    def forward(self, x):
        return super().forward(x) + self.gate * x.mean(1, keepdim=True)


class NormsOverPositions(Sum):
    def __init__(self, dim):
        super().__init__(dim)
        self.norm = nn.BatchNorm1d(dim)

    def forward(self, x):
        return self.norm(super().forward(x).transpose(1, 2)).transpose(1, 2)


class Remembers(Sum):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) + self.calls


class Narrows(Sum):
    def forward(self, x):
        return super().forward(x)[..., :-1]


class Rounds(Sum):
    def forward(self, x):
        return super().forward(x).bfloat16()


class Divides(Sum):
    def forward(self, x):
        return super().forward(x) / (x - x)


class HasAnInfiniteSlope(Sum):
    def forward(self, x):
        return super().forward(x) + self.gate.sqrt()


class ReturnsAPair(Sum):
    def forward(self, x):
        return super().forward(x), None


class Raises(Sum):
    def forward(self, x):
        raise RuntimeError(f"no kernel\nfor {x.shape[-1]}")


class IsNotBuilt(Sum):
    def __init__(self, dim):
        raise ValueError("no weights")


@dataclass(frozen=True)
class Config(LayerConfig):
    name = "outside"
    kind = "sequence"
    paper = "none"
    module = Sum

    def num_params(self, dim, length):
        return 0

    state_size = flops = num_params

    def build(self, dim, max_length):
        return type(self).module(dim)


def check(module, kind="sequence"):
    config = dataclass(frozen=True)(type("Config", (Config,), {"module": module, "kind": kind, "__module__": __name__}))()
    check_third_party([config], dim=8, length=16)


@pytest.mark.parametrize("module", [Sum, Dropped, Transformed])
def test_sound_layers_pass(module):
    state = torch.random.get_rng_state()
    check(module)
    assert torch.equal(torch.random.get_rng_state(), state)


FAULTS = [
    (LooksAhead, "reads the future: a change of token 1 moves the output of token 0, before it, by "),
    (LooksAheadOnce, "reads the future: a change of token 9 moves the output of token 5, before it, by "),
    (LooksAheadBehindAClosedGate, "reads the future: a change of token 1 moves the output of token 0, before it, by "),
    (NormsOverPositions, "reads the future: a change of token 1 moves the output of token 0, before it, by "),
    (Remembers, "gives another output for the same input when it is called again"),
    (Narrows, "returns the shape (2, 16, 7) for an input of shape (2, 16, 8): a layer keeps the shape"),
    (Rounds, "returns torch.bfloat16 for an input of torch.float32: a layer keeps the type"),
    (Divides, "the output is not finite: 256 of 256 entries are NaN or infinite"),
    (HasAnInfiniteSlope, "the gradient of gate is not finite: 1 of 1 entries are NaN or infinite"),
    (ReturnsAPair, "returns a tuple, not a tensor"),
    (Raises, "fails on an input of shape (2, 16, 8): RuntimeError: no kernel for 8"),
    (IsNotBuilt, "cannot be built at width 8: ValueError: no weights"),
]


@pytest.mark.parametrize(("module", "message"), FAULTS, ids=lambda v: getattr(v, "__name__", None))
def test_a_fault_is_named(module, message):
    with pytest.raises(ArchlabError, match=f"^outside: {re.escape(message)}"):
        check(module)


def test_a_channel_mixer_reads_one_token():
    check(nn.Identity, kind="channel")
    with pytest.raises(ArchlabError, match=r"^outside: is a channel mixer, but its output at token 1 depends on other tokens"):
        check(Sum, kind="channel")


def test_layers_of_archlab_are_not_tried(monkeypatch):
    config = layer("mamba")
    monkeypatch.setattr(type(config), "build", lambda *_: pytest.fail("it was built"))
    check_third_party([config], dim=8, length=16)
