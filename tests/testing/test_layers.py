"""The contract suite passes a sound layer and catches each fault with the check made for it."""

import random
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from archlab.errors import ArchlabError
from archlab.layers import LayerConfig
from archlab.layers.registry import _REGISTRY
from archlab.testing import LayerContract

DECAY = 0.9


class Accumulator(nn.Module):
    """``y_t = W s_t + b`` with ``s_t = 0.9 s_(t-1) + x_t``."""

    def __init__(self, dim):
        super().__init__()
        self.out = nn.Linear(dim, dim)

    def sums(self, x_bld):
        lag = torch.arange(x_bld.shape[1])[:, None] - torch.arange(x_bld.shape[1])
        return (DECAY ** lag.to(x_bld.dtype)).tril() @ x_bld

    def forward(self, x_bld):
        return self.out(self.sums(x_bld))

    def init_state(self, batch_size):
        return {"sum": self.out.weight.new_zeros(batch_size, self.out.weight.shape[0])}

    def step(self, x_bd, state):
        total = DECAY * state["sum"] + x_bd
        return self.out(total), {"sum": total}


@dataclass(frozen=True)
class AccumulatorConfig(LayerConfig):
    name = "accumulator"
    kind = "sequence"
    paper = "none"
    module = Accumulator

    knob: int = 1

    def num_params(self, dim, length):
        return dim * dim + dim

    def state_size(self, dim, length):
        return dim

    def flops(self, dim, length):
        return 2 * length * dim * (length + dim)

    def build(self, dim, max_length):
        return type(self).module(dim)


def oracle(module, x_bld):
    total, outputs = torch.zeros_like(x_bld[:, 0]), []
    for x_bd in x_bld.unbind(1):
        total = total * DECAY + x_bd
        outputs.append(total @ module.out.weight.T + module.out.bias)
    return torch.stack(outputs, 1)


def contract_of(config_type, with_oracle=True):
    attributes = {"config": config_type(), "dim": 16, "oracle": staticmethod(oracle) if with_oracle else None}
    return type("Contract", (LayerContract,), attributes)()


CHECKS = [name for name in dir(LayerContract) if name.startswith("test_")]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("with_oracle", [True, False])
def test_a_sound_layer_passes(check, with_oracle, monkeypatch):
    monkeypatch.setitem(_REGISTRY, "accumulator", AccumulatorConfig)
    if "channel_mixer" in check:
        pytest.skip("the sound layer is a sequence mixer")
    getattr(contract_of(AccumulatorConfig, with_oracle), check)()


class LeaksTheFuture(Accumulator):
    def forward(self, x_bld):
        return super().forward(x_bld) + 1e-6 * x_bld.mean(1, keepdim=True)


class MixesTheBatch(Accumulator):
    def forward(self, x_bld):
        return super().forward(x_bld) + 1e-6 * x_bld.mean(0)


class StepForgetsTheBias(Accumulator):
    def step(self, x_bd, state):
        y_bd, state = super().step(x_bd, state)
        return y_bd - self.out.bias, state


class StepIsRightOnlyAtFirst(Accumulator):
    def step(self, x_bd, state):
        y_bd, state = super().step(x_bd, state)
        return y_bd, {"sum": state["sum"].clamp(-3, 3)}


class StepWritesIntoItsState(Accumulator):
    def step(self, x_bd, state):
        state["sum"].mul_(DECAY).add_(x_bd)
        return self.out(state["sum"]), {"sum": state["sum"]}


class StateGrows(Accumulator):
    def step(self, x_bd, state):
        y_bd, new = super().step(x_bd, {"sum": state["sum"][:, : x_bd.shape[1]]})
        return y_bd, {"sum": torch.cat((new["sum"], x_bd), 1)}


class BothFormsAreWrongAlike(Accumulator):
    def forward(self, x_bld):
        return super().forward(x_bld) + 1e-2 * x_bld

    def step(self, x_bd, state):
        y_bd, state = super().step(x_bd, state)
        return y_bd + 1e-2 * x_bd, state


class GradientIsWrong(Accumulator):
    def sums(self, x_bld):
        return super().sums(x_bld) + (x_bld - x_bld.detach())


class GradientIsNaN(Accumulator):
    def sums(self, x_bld):
        return super().sums(torch.sqrt(x_bld**2) * x_bld.sign())


class OverflowsInTheForward(Accumulator):
    def sums(self, x_bld):
        return super().sums(torch.log(torch.exp(x_bld)))


class HasAnUnusedParameter(Accumulator):
    def __init__(self, dim):
        super().__init__(dim)
        self.out.register_parameter("scale", nn.Parameter(torch.zeros(())))

    def forward(self, x_bld):
        return super().forward(x_bld) * (1 + 0 * self.out.scale)


class ReadsFreshMemory(Accumulator):
    def forward(self, x_bld):
        padded = x_bld.new_empty(x_bld.shape[0], x_bld.shape[1] + 1, x_bld.shape[2])
        padded[:, 1:] = x_bld
        return super().forward(padded)[:, 1:]


class DrawsElsewhere(Accumulator):
    def __init__(self, dim):
        super().__init__(dim)
        nn.init.constant_(self.out.weight, random.random())


class KeepsWeightsOutOfTheStateDict(Accumulator):
    def __init__(self, dim):
        super().__init__(dim)
        self.register_buffer("scale", torch.rand(()), persistent=False)

    def forward(self, x_bld):
        return self.scale * super().forward(x_bld)


class WritesIntoItsInput(Accumulator):
    def forward(self, x_bld):
        return super().forward(x_bld.data.mul_(1.5))


class WidensTheOutput(Accumulator):
    def forward(self, x_bld):
        return super().forward(x_bld).double()


class FailsAtLengthOne(Accumulator):
    def forward(self, x_bld):
        return super().forward(x_bld).squeeze(1)


class CancelsInLowPrecision(Accumulator):
    def forward(self, x_bld):
        return self.out(self.sums(x_bld) + 1e3) - self.out(torch.full_like(x_bld, 1e3)) + self.out.bias


class HidesAParameter(Accumulator):
    def __init__(self, dim):
        super().__init__(dim)
        self.hidden = [self.out.weight]

    def forward(self, x_bld):
        return nn.functional.linear(self.sums(x_bld), self.hidden[0], self.out.bias)


class DiffersWhenCompiled(Accumulator):
    def forward(self, x_bld):
        return super().forward(x_bld) + (1 if torch.compiler.is_compiling() else 0)


class IsAnotherEverySecondTime(Accumulator):
    calls = 0

    def forward(self, x_bld):
        self.calls += 1
        return self.out(self.sums(x_bld) * (2 - self.calls % 2))


class SparesAMatrixFromDecay(Accumulator):
    def __init__(self, dim):
        super().__init__(dim)
        self.out.weight._no_weight_decay = True


class ChannelMixerThatLooksBack(Accumulator):
    def forward(self, x_bld):
        return self.out(x_bld + x_bld.roll(1, 1))


MODULE_FAULTS = [
    (LeaksTheFuture, "test_causal", "moves outputs before it"),
    (MixesTheBatch, "test_sequences_are_independent", "neighbour in the batch"),
    (StepForgetsTheBias, "test_step_form_equals_the_oracle", "step in torch.float64, length 1: output is off"),
    (StepIsRightOnlyAtFirst, "test_step_form_equals_the_oracle", "length 18: output is off"),
    (StepWritesIntoItsState, "test_step_leaves_the_given_state_alone", "step changes sum"),
    (StateGrows, "test_state_is_as_predicted", "becomes"),
    (BothFormsAreWrongAlike, "test_outputs_and_gradients_equal_the_oracle", "output is off by"),
    (BothFormsAreWrongAlike, "test_step_form_equals_the_oracle", "output is off by"),
    (GradientIsWrong, "test_outputs_and_gradients_equal_the_oracle", "gradient of input is off"),
    (GradientIsNaN, "test_extreme_inputs_stay_finite", "input zeros: gradient of input is not finite"),
    (OverflowsInTheForward, "test_extreme_inputs_stay_finite", "input 1e3 times normal: output is not finite"),
    (HasAnUnusedParameter, "test_every_parameter_gets_a_gradient", "out.scale is all zero"),
    (HasAnUnusedParameter, "test_parameters_are_as_predicted", "num_params says"),
    (ReadsFreshMemory, "test_reads_no_uninitialised_memory", "not finite when fresh memory"),
    (DrawsElsewhere, "test_construction_is_deterministic", "out.weight differs"),
    (KeepsWeightsOutOfTheStateDict, "test_state_dict_restores_the_layer", "does not hold all"),
    (WritesIntoItsInput, "test_shape_and_dtype", "changes its input"),
    (WidensTheOutput, "test_shape_and_dtype", "torch.float64 for torch.float32"),
    (FailsAtLengthOne, "test_shape_and_dtype", "length 1"),
    (CancelsInLowPrecision, "test_bfloat16_autocast_stays_close", "bfloat16 autocast is off by"),
    (
        IsAnotherEverySecondTime,
        "test_activations_that_are_computed_again_give_the_same_gradients",
        "recomputed: gradient of out.weight is off",
    ),
    (DiffersWhenCompiled, "test_compiles", "compiled by eager: output is off"),
    (SparesAMatrixFromDecay, "test_weight_decay_acts_on_all_other_matrices", r"exempt from weight decay are \['out.weight'\]"),
    (HidesAParameter, "test_stacked_models_equal_models_apart", "member 0: gradient of out.weight is off"),
]


@pytest.mark.parametrize(("module_type", "check", "message"), MODULE_FAULTS, ids=lambda v: getattr(v, "__name__", None))
def test_a_fault_in_the_module_is_caught(module_type, check, message):
    config_type = type("Config", (AccumulatorConfig,), {"module": module_type})
    with pytest.raises(AssertionError, match=message):
        getattr(contract_of(config_type), check)()


def test_a_channel_mixer_that_mixes_positions_is_caught():
    config_type = type("Config", (AccumulatorConfig,), {"module": ChannelMixerThatLooksBack, "kind": "channel"})
    with pytest.raises(AssertionError, match=r"moves positions \[5, 6\]"):
        contract_of(config_type).test_positions_of_a_channel_mixer_are_independent()


class RoundsByInput(Accumulator):
    def forward(self, x_bld):
        return self.out(x_bld) * (1 + 1e-6 * x_bld.mean())


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ("test_causal", "moves outputs before it"),
        ("test_sequences_are_independent", "depends on its neighbour"),
        ("test_positions_of_a_channel_mixer_are_independent", "a change at position 5 moves positions"),
    ],
)
def test_a_layer_says_how_far_it_rounds(check, message):
    contract = contract_of(type("Config", (AccumulatorConfig,), {"module": RoundsByInput, "kind": "channel"}))
    with pytest.raises(AssertionError, match=message):
        getattr(contract, check)()
    type(contract).causality_tolerance = 1e-5
    getattr(contract, check)()


def test_a_matrix_that_should_not_decay_and_does_is_caught():
    contract = contract_of(AccumulatorConfig)
    type(contract).no_decay = ("out.*",)
    with pytest.raises(AssertionError, match=r"decay are \[\], no_decay names \['out.weight'\]"):
        contract.test_weight_decay_acts_on_all_other_matrices()


def test_a_channel_mixer_that_attends_is_caught():
    config_type = type("Config", (AccumulatorConfig,), {"kind": "channel", "is_attention": True})
    with pytest.raises(AssertionError, match="a channel mixer is no attention"):
        contract_of(config_type).test_heads_are_a_knob_and_channel_mixers_do_not_attend()


def test_a_sequence_mixer_without_a_step_form_is_caught():
    module_type = type("NoSteps", (nn.Linear,), {"__init__": lambda self, dim: nn.Linear.__init__(self, dim, dim)})
    config_type = type("Config", (AccumulatorConfig,), {"module": module_type})
    with pytest.raises(AssertionError, match="needs init_state and step"):
        contract_of(config_type).test_state_is_as_predicted()


def refuse_everything(self, dim):
    raise ArchlabError(f"accumulator: width {dim} is not wanted")


def refuse_namelessly(self, dim):
    if dim < 16:
        raise ArchlabError(f"width {dim} is not wanted")


CONFIG_FAULTS = [
    ("num_params", lambda self, dim, length: dim * dim, "test_parameters_are_as_predicted", "num_params says 256"),
    ("num_params", lambda self, dim, length: 16 * dim + dim, "test_parameters_are_as_predicted", "width 32"),
    ("state_size", lambda self, dim, length: dim + 1, "test_state_is_as_predicted", "state_size says 17, init_state holds 16"),
    ("flops", lambda self, dim, length: 2 * length * dim * dim, "test_flops_are_as_counted", "flops says"),
    (
        "matrix_state",
        lambda self, dim, length: dim + 1,
        "test_parts_of_the_costs_are_no_more_than_the_whole",
        "matrix_state says 17",
    ),
    ("active_flops", lambda self, dim, length: 10**9, "test_parts_of_the_costs_are_no_more_than_the_whole", "active_flops says"),
    ("state_knob", "knob", "test_knobs_that_normalise_do_what_they_are_for", "knob does not set matrix_state"),
    ("head_knob", "width", "test_heads_are_a_knob_and_channel_mixers_do_not_attend", "head_knob width is no whole number: None"),
    ("validate", refuse_everything, "test_every_width_builds_or_is_refused", "refuses its own test width"),
    ("validate", refuse_namelessly, "test_every_width_builds_or_is_refused", "does not name accumulator"),
    ("build", lambda self, dim, max_length: Accumulator(dim // 2 * 2 + 1), "test_every_width_builds_or_is_refused", None),
    ("__str__", lambda self: "accumulator", "test_config_is_a_value_with_a_text_form", "reads back as"),
]


@pytest.mark.parametrize(("attribute", "value", "check", "message"), CONFIG_FAULTS)
def test_a_fault_in_the_config_is_caught(attribute, value, check, message, monkeypatch):
    config_type = dataclass(frozen=True)(type("Config", (AccumulatorConfig,), {attribute: value}))
    monkeypatch.setitem(_REGISTRY, "accumulator", config_type)
    contract = contract_of(config_type)
    type(contract).config = config_type(knob=2)
    with pytest.raises(RuntimeError if message is None else AssertionError, match=message):
        getattr(contract, check)()


def test_every_check_is_shown_to_catch_a_fault():
    shown = {check for _, check, _ in MODULE_FAULTS} | {check for *_, check, _ in CONFIG_FAULTS}
    assert set(CHECKS) - shown == {"test_positions_of_a_channel_mixer_are_independent"}
