"""What a layer from outside must show before it is trained: each fault is found, and sound layers pass."""

import os
import re
import signal
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from archlab.errors import ArchlabError
from archlab.isolation import changed, snapshot
from archlab.layers import LayerConfig, layer
from archlab.layers.external.check import check_accounting, check_description, check_third_party


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


class Jitters(Sum):
    def forward(self, x):
        return super().forward(x * (0.9 + 0.2 * torch.rand_like(x)) if self.training else x)


class AddsNoise(Sum):
    def forward(self, x):
        return super().forward(x) + 1e-6 * float(np.random.default_rng().normal())


class StartsAnywhere(Sum):
    def __init__(self, dim):
        super().__init__(dim)
        with torch.no_grad():
            self.gate.add_(float(np.random.default_rng().normal()))

    def forward(self, x):
        return super().forward(x) * (1 + self.gate)


class AddsNoiseToEvaluations(Sum):
    def forward(self, x):
        return super().forward(x) + (0 if self.training else float(np.random.default_rng().normal()))


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


class LooksAheadInLongChunks(Sum):
    def forward(self, x):
        return super().forward(x) if x.shape[1] < 64 else super().forward(x.roll(-1, 1))


class AddsTheMeanOfTheBatch(Sum):
    def forward(self, x):
        return super().forward(x) + x.mean(0, keepdim=True)


class ReadsTheSequenceBefore(Sum):
    def forward(self, x):
        return self.out(x.cumsum(0))


class Remembers(Sum):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) + self.calls


class RoundsByLength(Sum):
    def forward(self, x):
        return super().forward(x) * (1 + 1e-6 * (x.shape[1] == 1))


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


class Detaches(Sum):
    def forward(self, x):
        return super().forward(x).detach()


class EndsTheProgram(Sum):
    def forward(self, x):
        raise SystemExit(0)


class ReturnsAPair(Sum):
    def forward(self, x):
        return super().forward(x), None


class Raises(Sum):
    def forward(self, x):
        raise RuntimeError(f"no kernel\nfor {x.shape[-1]}")


class Steps(Sum):
    def init_state(self, batch_size):
        return {"sum": torch.zeros(batch_size, 8), "seen": torch.zeros(batch_size, dtype=torch.int64)}

    def step(self, x, state):
        return self.out(state["sum"] + x), {"sum": state["sum"] + x, "seen": state["seen"] + 1}


class ChangesTheProcess(Sum):
    def forward(self, x):
        os.environ["ATEN_CPU_CAPABILITY"] = "default"
        torch.set_flush_denormal(True)
        torch.set_float32_matmul_precision("medium")
        torch.backends.mkldnn.enabled = False
        torch.set_num_threads(2)
        os.chdir("/")
        return super().forward(x)


class HooksAllModules(Sum):
    def forward(self, x):
        HOOKS.append(nn.modules.module.register_module_forward_hook(lambda *_: None))
        return super().forward(x)


HOOKS = []


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
        return sum(p.numel() for p in self.build(dim, length).parameters()) if self.module is not IsNotBuilt else 0

    def state_size(self, dim, length):
        return dim

    def flops(self, dim, length):
        return 0

    def build(self, dim, max_length):
        return type(self).module(dim)


def outside(module=Sum, **members):
    return dataclass(frozen=True)(type("Config", (Config,), {"module": module, "__module__": __name__, **members}))()


def check(module, lengths=(16,), **members):
    check_third_party([outside(module, **members)], dim=8, lengths=lengths)


@pytest.mark.parametrize("module", [Sum, Dropped, Jitters, Transformed, Steps])
def test_sound_layers_pass(module):
    state = torch.random.get_rng_state()
    check(module)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("module", "what"), [(AddsNoise, "output"), (StartsAnywhere, "output"), (AddsNoiseToEvaluations, "output of evaluation")]
)
def test_a_layer_that_is_not_deterministic_is_named(module, what):
    differs = rf"^outside: is not deterministic: built and run twice from the same seed, its {what} differs by \d"
    with pytest.raises(ArchlabError, match=differs):
        check(module)


def test_what_a_layer_changes_of_its_process_is_undone():
    before = snapshot()
    check(ChangesTheProcess)
    assert changed(before) == ""


def test_a_change_that_cannot_be_undone_is_refused():
    with pytest.raises(ArchlabError, match=r"^outside: it changes torch's hooks on all modules of this process"):
        check(HooksAllModules)
    for hook in HOOKS:
        hook.remove()


def test_costs_that_change_the_process_are_refused():
    def counts(config, dim, length):
        os.environ["ATEN_CPU_CAPABILITY"] = "default"
        return 0

    before = snapshot()
    with pytest.raises(ArchlabError, match=r"^outside: stating its costs changes the environment's variables"):
        check(Sum, flops=counts)
    assert changed(before) == ""


FAULTS = [
    (LooksAhead, "reads the future: a change of token 1 moves the output of token 0, before it, by "),
    (LooksAheadOnce, "reads the future: a change of token 9 moves the output of token 5, before it, by "),
    (LooksAheadBehindAClosedGate, "reads the future: a change of token 1 moves the output of token 0, before it, by "),
    (NormsOverPositions, "reads the future: a change of token 1 moves the output of token 0, before it, by "),
    (AddsTheMeanOfTheBatch, "mixes the sequences of a batch: a change of sequence 0 moves the output of sequence 1 by "),
    (ReadsTheSequenceBefore, "mixes the sequences of a batch: a change of sequence 0 moves the output of sequence 1 by "),
    (Remembers, "gives another output for the same input when it is called again"),
    (Narrows, "returns the shape (2, 16, 7) for an input of shape (2, 16, 8): a layer keeps the shape"),
    (Rounds, "returns torch.bfloat16 for an input of torch.float32: a layer keeps the type"),
    (Divides, "the output is not finite: 256 of 256 entries are NaN or infinite"),
    (HasAnInfiniteSlope, "the gradient of gate is not finite: 1 of 1 entries are NaN or infinite"),
    (Detaches, "its output is detached: no gradient reaches the input; compute it without detach()"),
    (EndsTheProgram, "fails on an input of shape (2, 16, 8): SystemExit: 0"),
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
    for module in (Sum, RoundsByLength):
        with pytest.raises(ArchlabError, match=r"^outside: .* its output at token 1 depends on other tokens"):
            check(module, kind="channel")


def test_the_longest_sequences_are_tried_too():
    check(LooksAheadInLongChunks, lengths=(16, 32))
    with pytest.raises(ArchlabError, match=r"^outside: reads the future: a change of token 1 moves the output of token 0"):
        check(LooksAheadInLongChunks, lengths=(16, 1024))


def fails(self, dim, length):
    raise ZeroDivisionError("no\nlength")


COSTS = [
    ({"num_params": lambda *_: 7}, "num_params says 7 at width 8, length 16, but the module has 73 trainable scalars"),
    ({"state_size": lambda *_: 9}, "state_size says 9 at width 8, length 16, but init_state holds 8 scalars for a sequence"),
    ({"state_size": lambda *_: -9}, "state_size gives -9 at width 8, length 16: return a whole number of at least 0"),
    ({"flops": lambda *_: 10**400}, "flops gives 1000000000"),
    ({"num_params": lambda *_: None}, "num_params gives None at width 8, length 16: return a whole number"),
    ({"matrix_state": lambda *_: 0.5}, "matrix_state gives 0.5 at width 8, length 16: return a whole number"),
    ({"flops": fails}, "flops fails at width 8, length 16: ZeroDivisionError: no length"),
    ({"active_flops": lambda *_: exit(0)}, "active_flops fails at width 8, length 16: SystemExit: 0"),
]


@pytest.mark.parametrize(("members", "message"), COSTS, ids=[message.split()[0] for _, message in COSTS])
def test_costs_are_those_of_what_is_built(members, message):
    with pytest.raises(ArchlabError, match=f"^outside: {re.escape(message)}"):
        check(Steps, **members)


def test_costs_are_asked_for_without_building():
    check_accounting([outside(IsNotBuilt), layer("mamba")], dim=8, length=16)
    with pytest.raises(ArchlabError, match=r"^outside: flops fails at width 8, length 16: ZeroDivisionError: no length$"):
        check_accounting([layer("parallel", layer("mlp"), outside(IsNotBuilt, flops=fails))], dim=8, length=16)


def test_a_state_that_is_not_known_is_not_compared():
    check(Steps, state_size=lambda *_: None)


def test_parts_of_layers_are_tried_by_themselves():
    with pytest.raises(ArchlabError, match=r"^outside: state_size says 9 at width 8"):
        check_third_party([layer("experts", outside(Steps, state_size=lambda *_: 9))], dim=8, lengths=(16,))


def test_layers_of_archlab_are_not_tried(monkeypatch):
    config = layer("mamba")
    monkeypatch.setattr(type(config), "build", lambda *_: pytest.fail("it was built"))
    check_third_party([config], dim=8, lengths=(16,))


class Hangs(Sum):
    def forward(self, x):
        while True:
            pass


class Crashes(Sum):
    def forward(self, x):
        return os.kill(os.getpid(), signal.SIGSEGV)


class Leaves(Sum):
    def forward(self, x):
        return os._exit(0)


class IsInterrupted(Sum):
    def forward(self, x):
        raise KeyboardInterrupt


class Prints(Sum):
    def forward(self, x):
        print("by the layer")
        os.write(1, b"by its library\n")
        return super().forward(x)


@pytest.mark.skipif(sys.platform != "linux" or torch.cuda.is_available(), reason="no copies of processes here")
@pytest.mark.parametrize(
    ("module", "fault"),
    [
        (Hangs, r"has not ended within 3 seconds in forward \(.*test_check.py, line \d+\)"),
        (Crashes, r"ends the process by SIGSEGV in forward \(.*test_check.py, line \d+\)"),
        (Leaves, "ends the process, with status 0"),
        (IsInterrupted, "KeyboardInterrupt"),
    ],
)
def test_a_layer_that_hangs_or_ends_its_process_is_refused_in_one_line(monkeypatch, module, fault):
    if module is Hangs:
        monkeypatch.setattr("archlab.isolation.MOST_SECONDS", 3.0)
    config = outside(module)
    with pytest.raises(ArchlabError, match=f"{re.escape(str(config))}: {fault}") as refused:
        check_third_party([config], dim=8, lengths=(16,))
    assert "\n" not in str(refused.value)


def leave(*_):
    os._exit(0)


@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ({"knobs": lambda _: None}, r"knobs\(\) gives None: return a dict of knobs and values"),
        ({"modules": lambda _: "faulty"}, r"modules\(\) gives 'faulty': return a tuple of names of modules"),
        ({"__str__": lambda _: 5}, r"__str__\(\) gives 5: return a spec"),
        ({"__eq__": lambda *_: False, "__hash__": lambda _: 0}, "is not equal to one of the same knobs"),
        ({"kind": "both"}, 'kind is \'both\': "sequence" or "channel"'),
        ({"__post_init__": lambda _: 1 / 0}, "its config cannot be made: ZeroDivisionError"),
        ({"__post_init__": leave}, "ends the process, with status 0"),
        ({"validate": leave}, "ends the process, with status 0"),
    ],
)
def test_a_layer_that_cannot_say_what_it_is_is_refused(members, fault):
    if leave in members.values() and (sys.platform != "linux" or torch.cuda.is_available()):
        pytest.skip("no copies of processes here")
    config = type("Config", (type(outside(Sum)),), members)
    with pytest.raises(ArchlabError, match=f"^{fault}"):
        check_description(config)


def test_costs_that_end_the_process_are_refused():
    if sys.platform != "linux" or torch.cuda.is_available():
        pytest.skip("no copies of processes here")
    config = type("Config", (type(outside(Sum)),), {"flops": leave})()
    with pytest.raises(ArchlabError, match=r"ends the process, with status 0$"):
        check_accounting([config], dim=8, length=16)


@pytest.mark.skipif(sys.platform != "linux" or torch.cuda.is_available(), reason="no copies of processes here")
def test_what_a_layer_prints_while_it_is_tried_is_not_on_standard_output(capfd):
    check_third_party([outside(Prints)], dim=8, lengths=(8,))
    printed, errors = capfd.readouterr()
    assert not printed
    assert "by the layer" in errors
    assert "by its library" in errors
