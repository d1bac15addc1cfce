"""The contract of a layer as checks that any layer can be put through."""

import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import partial
from typing import ClassVar, cast
from unittest import SkipTest

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils.checkpoint import checkpoint

from archlab.architectures.spec import Architecture, architecture
from archlab.errors import ArchlabError
from archlab.layers.contract import Composite, LayerConfig, Recurrent
from archlab.layers.external.check import moved_outputs, num_trainable, outputs, unsettled
from archlab.layers.ops.flop_counter import count_flops
from archlab.layers.registry import layer
from archlab.testing.comparison import compare, outputs_and_gradients, poisoned_memory, relative_error, step_through

Oracle = Callable[[nn.Module, Tensor], Tensor]
"""The layer as a plain float64 recurrence: its module and ``(batch, length, dim)`` float64 to the same shape."""


class LayerContract:
    """Checks that a layer keeps its contract; inherit, name the layer, run pytest.

    .. code-block:: python

        class TestMyMixer(LayerContract):
            config = layer("my-mixer", heads=4)
            oracle = staticmethod(my_mixer_token_by_token)

    An oracle is written apart from the layer's own operations, sequentially, in float64, and is
    differentiable; the layer's outputs and gradients are compared with it. Without one, the layer's
    own step form takes its place. Parameters are moved off their initial values first, so that
    a bias that starts at zero is not overlooked.
    """

    config: ClassVar[LayerConfig]
    """The layer under test, registered."""
    dim: ClassVar[int] = 128
    """A width that the layer fits; twice that must fit as well."""
    oracle: ClassVar[Oracle | None] = None
    lengths: ClassVar[Sequence[int]] = (1, 18, 127)
    """Sequence lengths to check, ascending; the last is the layer's maximum length."""
    tolerance: ClassVar[float] = 1e-4
    """float32 error of outputs and gradients, relative to the largest entry of each tensor."""
    causality_tolerance: ClassVar[float] = 0.0
    """Change of outputs before a changed token, in another sequence, and of a channel mixer at another position, relative to
    the largest output: 0 is bit-equal; a layer that transforms whole sequences (FFT), or multiplies groups of tokens whose
    sizes depend on the input, rounds, and may say so here."""
    no_decay: ClassVar[Sequence[str]] = ()
    """Names of the matrices that weight decay must not act on, or patterns of them: ``("A_log", "filter.*")``. Vectors never
    decay."""
    compile_backend: ClassVar[str] = "eager"
    """Backend of :func:`torch.compile`: ``"eager"`` traces only, ``"inductor"`` needs a C++ compiler."""

    _references: ClassVar[dict[int, dict[str, Tensor]]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._references = {}

    # Identity and construction

    def test_config_is_a_value_with_a_text_form(self) -> None:
        made_of = self.config.layers if isinstance(self.config, Composite) else ()
        again = layer(self.config.name, *made_of, **self.config.knobs())
        assert again == self.config
        assert hash(again) == hash(self.config)
        stack = Architecture((self.config,))
        assert architecture(str(stack)) == stack, f"{stack} reads back as {architecture(str(stack))}"

    def test_every_width_builds_or_is_refused(self) -> None:
        for dim in (1, 2, 3, 8, 12, 30, 31, 48, self.dim, 2 * self.dim):
            refusal = _refusal(self.config, dim)
            if refusal is None:
                x_bld = torch.randn(1, 3, dim)
                assert self.config.build(dim, 3)(x_bld).shape == x_bld.shape, f"validate accepts width {dim}"
            else:
                assert dim not in (self.dim, 2 * self.dim), f"refuses its own test width: {refusal}"
                assert "\n" not in refusal, f"not one line: {refusal}"
                assert self.config.name in refusal, f"does not name {self.config.name}: {refusal}"

    def test_parameters_are_as_predicted(self) -> None:
        for dim in (self.dim, 2 * self.dim):
            for length in self.lengths:
                predicted = self.config.num_params(dim, length)
                with torch.device("meta"):
                    on_meta = num_trainable(self.config.build(dim, length))
                assert on_meta == predicted, (
                    f"width {dim}, length {length}: num_params says {predicted}, the meta device {on_meta}"
                )
        built, predicted = num_trainable(self._module()), self.config.num_params(self.dim, self.lengths[-1])
        assert built == predicted, f"num_params says {predicted}, built are {built}"

    def test_heads_are_a_knob_and_channel_mixers_do_not_attend(self) -> None:
        knob = self.config.head_knob
        if knob:
            value = self.config.knobs().get(knob)
            assert type(value) is int, f"head_knob {knob} is no whole number: {value!r}"
        assert self.config.kind == "sequence" or not self.config.is_attention, "a channel mixer is no attention"

    def test_weight_decay_acts_on_all_other_matrices(self) -> None:
        matrices = {name: p for name, p in self._build(seed=0).named_parameters() if p.ndim > 1}
        exempt = {name for name, p in matrices.items() if getattr(p, "_no_weight_decay", False)}
        wanted = {name for name in matrices if any(fnmatchcase(name, pattern) for pattern in self.no_decay)}
        assert exempt == wanted, f"exempt from weight decay are {sorted(exempt)}, no_decay names {sorted(wanted)}"

    def test_construction_is_deterministic(self) -> None:
        first, second = self._build(seed=0), self._build(seed=0)
        for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
            assert torch.equal(a, b), f"{name} differs between two builds from one seed"
        x_bld = self._input(18)
        assert torch.equal(first(x_bld), second(x_bld))

    def test_state_dict_restores_the_layer(self) -> None:
        module, other = self._module(), self._build(seed=1)
        other.load_state_dict(module.state_dict())
        x_bld = self._input(18)
        assert torch.equal(module(x_bld), other(x_bld)), "the state dict does not hold all that the output depends on"

    # Outputs and gradients

    def test_shape_and_dtype(self) -> None:
        module = self._module()
        for length in self.lengths:
            x_bld = self._input(length)
            given = x_bld.clone()
            y_bld = module(x_bld)
            assert y_bld.shape == x_bld.shape, f"length {length}: {tuple(y_bld.shape)} for {tuple(x_bld.shape)}"
            assert y_bld.dtype == x_bld.dtype, f"length {length}: {y_bld.dtype} for {x_bld.dtype}"
            assert torch.equal(x_bld, given), "forward changes its input"
            strided = x_bld.transpose(0, 1).contiguous().transpose(0, 1)
            assert relative_error(module(strided), y_bld) <= self.tolerance, (
                f"length {length}: depends on the memory layout of its input"
            )

    def test_causal(self) -> None:
        module = self._module()
        for length in self.lengths[1:]:
            x_bld = self._input(length)
            y_bld = outputs(module, x_bld)
            scale = self.causality_tolerance * float(y_bld.abs().max())
            for changed in (1, length // 2, length - 1):
                moved = float(moved_outputs(module, x_bld, y_bld, changed).max())
                assert moved <= scale, f"token {changed} of {length} moves outputs before it by {moved}"

    def test_positions_of_a_channel_mixer_are_independent(self) -> None:
        if self.config.kind == "sequence":
            raise SkipTest("a sequence mixer mixes positions")
        module, x_bld = self._module(), self._input(18)
        other_bld = x_bld.clone()
        other_bld[:, 5] += 1
        y_bld = module(x_bld)
        moved = (module(other_bld) - y_bld).abs().amax((0, 2)) > self.causality_tolerance * y_bld.abs().max()
        positions = moved.nonzero().flatten().tolist()
        assert 5 in positions, "the output does not depend on the input"
        assert positions == [5], f"a change at position 5 moves positions {positions}"

    def test_sequences_are_independent(self) -> None:
        module, x_bld = self._module(), self._input(18)
        other_bld = x_bld.clone()
        other_bld[1] += 1
        y_bld = module(x_bld)
        moved = (module(other_bld) - y_bld)[0].abs().max()
        assert moved <= self.causality_tolerance * y_bld.abs().max(), "a sequence depends on its neighbour in the batch"

    def test_outputs_and_gradients_equal_the_oracle(self) -> None:
        for length in self.lengths:
            exact = self._reference(length)
            for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, self.tolerance)):
                module = self._module().to(dtype)
                found = outputs_and_gradients(module, nn.Module.__call__, self._input(length, dtype))
                compare(found, exact, tolerance, f"forward in {dtype}, length {length}")

    def test_step_form_equals_the_oracle(self) -> None:
        if self.config.kind == "channel":
            raise SkipTest("a channel mixer has no step form")
        *short, longest = self.lengths
        for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, self.tolerance)):
            module = self._module().to(dtype)
            for length in short:
                found = outputs_and_gradients(module, step_through, self._input(length, dtype))
                compare(found, self._reference(length), tolerance, f"step in {dtype}, length {length}")
            exact = self._reference(longest)["output"]
            with torch.no_grad():
                error = relative_error(step_through(module, self._input(longest, dtype)), exact)
            where = f"step in {dtype}, length {longest}"
            assert error <= tolerance, f"{where}: output is off by {error:.2g} of its largest entry, {tolerance:.2g} is allowed"

    def test_every_parameter_gets_a_gradient(self) -> None:
        module = self._module()
        found = outputs_and_gradients(module, nn.Module.__call__, self._input(self.lengths[-1]))
        for name, gradient in found.items():
            assert gradient.count_nonzero(), f"{name} is all zero"

    # Costs

    def test_state_is_as_predicted(self) -> None:
        predicted = self.config.state_size(self.dim, self.lengths[-1])
        module = self._module()
        if self.config.kind == "channel":
            assert predicted == 0, f"a channel mixer carries no state, state_size says {predicted}"
            return
        assert isinstance(module, Recurrent), "a sequence mixer needs init_state and step"
        state = module.init_state(1)
        scalars = sum(t.numel() for t in state.values() if t.is_floating_point())
        assert scalars == predicted, f"state_size says {predicted}, init_state holds {scalars}"
        batched = module.init_state(3)
        for _ in range(2):
            y_bd, batched = module.step(torch.randn(3, self.dim), batched)
            assert y_bd.shape == (3, self.dim)
        for name, tensor in state.items():
            after = batched[name]
            assert after.shape == (3, *tensor.shape[1:]), (
                f"state {name}: {tuple(tensor.shape)} becomes {tuple(after.shape)} at batch 3"
            )
            assert after.dtype == tensor.dtype, f"state {name}: {tensor.dtype} becomes {after.dtype}"

    def test_step_leaves_the_given_state_alone(self) -> None:
        if self.config.kind == "channel":
            raise SkipTest("a channel mixer has no step form")
        module = cast(Recurrent, self._module())
        _, state = module.step(torch.randn(2, self.dim), module.init_state(2))
        before = {name: t.clone() for name, t in state.items()}
        first, _ = module.step(torch.ones(2, self.dim), state)
        for name, tensor in state.items():
            assert torch.equal(tensor, before[name]), f"step changes {name} of the state it was given"
        assert torch.equal(first, module.step(torch.ones(2, self.dim), state)[0])

    def test_parts_of_the_costs_are_no_more_than_the_whole(self) -> None:
        for length in self.lengths:
            matrices, state = self.config.matrix_state(self.dim, length), self.config.state_size(self.dim, length)
            assert matrices is not None, "matrix_state is not known"
            assert state is not None, "state_size is not known"
            assert 0 <= matrices <= state, f"length {length}: matrix_state says {matrices}, state_size {state}"
            active, executed = self.config.active_flops(self.dim, length), self.config.flops(self.dim, length)
            assert 0 <= active <= executed, f"length {length}: active_flops says {active}, flops {executed}"

    def test_knobs_that_normalise_do_what_they_are_for(self) -> None:
        config, length = self.config, self.lengths[-1]
        state = config.matrix_state(self.dim, length)
        if config.state_knob:
            value = config.knobs()[config.state_knob]
            assert type(value) is int, f"state_knob {config.state_knob} is no whole number: {value!r}"
            moved = set()
            for setting in (2**n for n in range(10)):
                with suppress(ArchlabError):  # not every value fits
                    other = layer(config.name, **config.knobs() | {config.state_knob: setting})
                    other.validate(self.dim)
                    moved.add(other.matrix_state(self.dim, length))
            assert moved - {state}, f"{config.state_knob} does not set matrix_state"
        for factor in (0.5, 1.0, 2.0):
            resized = config.resized(self.dim, factor)
            assert _refusal(resized, self.dim) is None, f"resized by {factor}: {_refusal(resized, self.dim)}"
            assert resized.matrix_state(self.dim, length) == state, f"resized by {factor}: the state changes"
            grown = resized.num_params(self.dim, length) - config.num_params(self.dim, length)
            assert grown * (factor - 1) >= 0, f"resized by {factor}: parameters change by {grown}"

    def test_flops_are_as_counted(self) -> None:
        for length in self.lengths[1:]:
            module = self._build(seed=0, max_length=length)
            x_bld = self._input(length)[:1]
            counted = count_flops(module, x_bld)
            predicted = self.config.flops(self.dim, length)
            assert math.isclose(predicted, counted, rel_tol=0.01), (
                f"length {length}: flops says {predicted}, counted are {counted}"
            )

    # Robustness

    def test_reads_no_uninitialised_memory(self) -> None:
        expected = self._run_all()
        with poisoned_memory():
            found = self._run_all()
        for name, tensor in found.items():
            assert torch.isfinite(tensor).all(), f"{name} is not finite when fresh memory holds NaN"
            assert torch.equal(tensor, expected[name]), f"{name} depends on what fresh memory holds"

    def test_extreme_inputs_stay_finite(self) -> None:
        module = self._module()
        length = self.lengths[-1]
        inputs = {
            "zeros": torch.zeros(2, length, self.dim),
            "1e3 times normal": 1e3 * self._input(length),
            "1e-20 times normal": 1e-20 * self._input(length),
            "constant 30": torch.full((2, length, self.dim), 30.0),
            "constant -30": torch.full((2, length, self.dim), -30.0),
        }
        for what, x_bld in inputs.items():
            for name, tensor in outputs_and_gradients(module, nn.Module.__call__, x_bld).items():
                assert torch.isfinite(tensor).all(), f"input {what}: {name} is not finite"

    def test_bfloat16_autocast_stays_close(self) -> None:
        module, x_bld = self._module(), self._input(self.lengths[-1])
        with torch.autocast("cpu", torch.bfloat16):
            found = outputs_and_gradients(module, nn.Module.__call__, x_bld)
        for name, tensor in found.items():
            assert torch.isfinite(tensor).all(), f"{name} is not finite under bfloat16 autocast"
        error = relative_error(found["output"], module(x_bld))
        assert error <= 0.1, f"output under bfloat16 autocast is off by {error:.2g} of the largest output"

    def test_activations_that_are_computed_again_give_the_same_gradients(self) -> None:
        module, x_bld = self._module(), self._input(18)
        again = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
        found = outputs_and_gradients(module, lambda layer, x: again(layer, x), x_bld)
        compare(found, outputs_and_gradients(module, nn.Module.__call__, x_bld), 0.0, "recomputed")

    def test_compiles(self) -> None:
        module, x_bld = self._module(), self._input(18)
        expected = outputs_and_gradients(module, nn.Module.__call__, x_bld)
        torch.compiler.reset()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's own, about itself
            compiled = torch.compile(module, backend=self.compile_backend)
            found = outputs_and_gradients(module, lambda _, x: compiled(x), x_bld)
        compare(found, expected, self.tolerance, f"compiled by {self.compile_backend}")

    def test_stacked_models_equal_models_apart(self) -> None:
        modules, length = [self._module(), self._build(seed=1)], min(18, self.lengths[-1])
        x_mbld = torch.stack([self._input(length), 2 * self._input(length)])
        apart = [outputs_and_gradients(module, nn.Module.__call__, x) for module, x in zip(modules, x_mbld, strict=True)]
        names = [name for name, _ in modules[0].named_parameters()]

        def run(x_bld: Tensor, *values: Tensor) -> Tensor:
            return functional_call(modules[0], dict(zip(names, values, strict=True)), (x_bld,))  # type: ignore[no-any-return]

        stacked = [torch.stack([p.detach() for p in each]) for each in zip(*(m.parameters() for m in modules), strict=True)]
        wanted = [x.requires_grad_() for x in (x_mbld, *stacked)]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")  # operators that vmap calls member by member
            y_mbld = vmap(run)(*wanted)
        cotangent = torch.randn(y_mbld[0].shape, generator=torch.Generator().manual_seed(0))
        gradients = torch.autograd.grad((y_mbld * cotangent).sum(), wanted, materialize_grads=True)
        found = dict(zip(apart[0], (y_mbld, *gradients), strict=False))
        for member, expected in enumerate(apart):
            compare({name: found[name][member] for name in found}, {n: expected[n] for n in found}, 1e-5, f"member {member}")

    # How the checks get there

    def _build(self, seed: int, max_length: int | None = None) -> nn.Module:
        torch.manual_seed(seed)
        return self.config.build(self.dim, max_length or self.lengths[-1])

    def _module(self) -> nn.Module:
        """The layer with every parameter moved off its initial value."""
        return unsettled(self._build(seed=0))

    def _input(self, length: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(2, length, self.dim, generator=torch.Generator().manual_seed(length)).to(dtype)

    def _reference(self, length: int) -> dict[str, Tensor]:
        """Outputs and gradients in float64 of the oracle, or without one of the step form; computed once a class."""
        if length not in self._references:
            module, x_bld = self._module().double(), self._input(length, torch.float64)
            default = step_through if self.config.kind == "sequence" else nn.Module.__call__
            self._references[length] = outputs_and_gradients(module, type(self).oracle or default, x_bld)
        return self._references[length]

    def _run_all(self) -> dict[str, Tensor]:
        module = self._module()
        found = outputs_and_gradients(module, nn.Module.__call__, self._input(self.lengths[-1]))
        if self.config.kind == "sequence":
            found["step output"] = step_through(module, self._input(18)).detach()
        return found


def _refusal(config: LayerConfig, dim: int) -> str | None:
    try:
        config.validate(dim)
    except ArchlabError as error:
        return str(error)
    return None
