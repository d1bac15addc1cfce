"""Checks of layers from outside archlab on a small input, before they are trained."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from archlab.errors import ArchlabError, in_one_line
from archlab.fields import naming
from archlab.isolation import changed, in_child, snapshot, undone
from archlab.layers.contract import Composite, LayerConfig, Recurrent, is_third_party
from archlab.machine import single_thread

LONGEST = 128
"""Tokens of the small input, at most."""
_ANY_WIDTH = 128
_MOST_BITS = 100  # of a cost: floats hold what is computed of it
ROUNDING = 1e-5
"""Outputs may move by this fraction of the largest one without counting as a leak: transforms of whole sequences round."""


def check_description(make: Callable[[], LayerConfig]) -> None:
    """Make a layer from outside archlab once and have it say what it is, in a copy of this process.

    Raises:
        ArchlabError: its config cannot be made, does not end, or says something of another type; says which.
    """
    if fault := in_child(partial(_misdescribed, make), quiet=True):
        raise ArchlabError(fault)


def _misdescribed(make: Callable[[], LayerConfig]) -> str | None:
    try:
        config = make()
    except ArchlabError:  # its own words for whoever asks for it
        return None
    except (Exception, SystemExit) as error:
        return f"its config cannot be made: {in_one_line(error)}"
    with suppress(Exception):  # whether it fits a width is asked later
        config.validate(_ANY_WIDTH)
    for name, kind, fix in (
        ("knobs", dict, "a dict of knobs and values"),
        ("modules", tuple, "a tuple of names of modules"),
        ("__str__", str, "a spec"),
        ("__hash__", int, "a number, or leave it to the dataclass"),
    ):
        value = getattr(config, name)()
        if not isinstance(value, kind):
            return f"{name}() gives {value!r}: return {fix}"
    if config != make():
        return "is not equal to one of the same knobs: leave __eq__ to the dataclass"
    if config.kind not in ("sequence", "channel"):
        return f'kind is {config.kind!r}: "sequence" or "channel"'
    return None


def check_third_party(
    layers: Iterable[LayerConfig], dim: int, lengths: Sequence[int], device: Literal["cpu", "cuda"] = "cpu"
) -> None:
    """Try every layer from outside archlab at a width, on sequences of each of the lengths, or of :data:`LONGEST` tokens.

    Raises:
        ArchlabError: one cannot be built or run, returns the wrong shape or type, is not finite or has gradients that are not,
            is not deterministic, lets an output depend on a later token or on another sequence, or states costs that are not
            those of what is built; names the layer and what is wrong.
    """
    device = device if torch.cuda.is_available() else "cpu"
    for config in _from_outside(layers):
        for length in dict.fromkeys(min(length, LONGEST) for length in lengths):
            with naming(str(config)):
                if fault := in_child(partial(_tried, config, dim, length, device)):
                    raise ArchlabError(fault)


def _tried(config: LayerConfig, dim: int, length: int, device: str) -> str | None:
    with undone():
        torch.manual_seed(0)
        return _fault(config, torch.randn(2, length, dim, device=device))


def check_accounting(layers: Iterable[LayerConfig], dim: int, length: int) -> None:
    """Ask every layer from outside archlab for its costs at a width and length, without building it.

    Raises:
        ArchlabError: a cost cannot be had, or is no whole number of at least 0; names the layer, the cost and what is wrong.
    """
    for config in _from_outside(layers):
        with naming(str(config)):
            if fault := in_child(partial(_no_number, config, dim, length), quiet=True):
                raise ArchlabError(fault)


def _from_outside(layers: Iterable[LayerConfig]) -> Iterable[LayerConfig]:
    return dict.fromkeys(part for config in layers for part in _with_parts(config) if is_third_party(part))


def _with_parts(config: LayerConfig) -> Iterator[LayerConfig]:
    """A layer behind all that it is made of."""
    for part in config.layers if isinstance(config, Composite) else ():
        yield from _with_parts(part)
    yield config


def _no_number(config: LayerConfig, dim: int, length: int) -> str | None:
    at = f"at width {dim}, length {length}"
    before = snapshot()
    for cost in ("num_params", "state_size", "matrix_state", "flops", "active_flops"):
        try:
            with torch.random.fork_rng(devices=[]):  # one may build the layer to count
                number = getattr(config, cost)(dim, length)
        except (Exception, SystemExit) as error:
            return f"{cost} fails {at}: {in_one_line(error)}"
        unknown_state = number is None and cost in ("state_size", "matrix_state")
        if not unknown_state and (type(number) is not int or not 0 <= number < 1 << _MOST_BITS):
            return f"{cost} gives {str(number)[:40]} {at}: return a whole number of at least 0, below 2^{_MOST_BITS}"
    same_environment = dict(os.environ) == before["the environment's variables"]
    if found := changed(before, started=False) or (not same_environment and "the environment's variables"):
        return f"stating its costs changes {found} of this process: count only"
    return None


def _fault(config: LayerConfig, x_bld: Tensor) -> str | None:
    _, length, dim = x_bld.shape
    if fault := _no_number(config, dim, length):
        return fault
    try:
        module = config.build(dim, length).to(x_bld.device)
    except (Exception, SystemExit) as error:
        return f"cannot be built at width {dim}: {in_one_line(error)}"
    try:
        if fault := _miscounted(config, module, dim, length) or _fault_at_initialisation(module, x_bld):
            return fault
        if fault := _chance(config, x_bld):
            return fault
        if fault := _leak(module, x_bld) or _leak(unsettled(module), x_bld):
            return fault
        return _memory(module, x_bld) if config.kind == "channel" else None
    except (Exception, SystemExit) as error:
        return f"fails on an input of shape {tuple(x_bld.shape)}: {in_one_line(error)}"


def _miscounted(config: LayerConfig, module: nn.Module, dim: int, length: int) -> str | None:
    at = f"at width {dim}, length {length}"
    said, built = config.num_params(dim, length), num_trainable(module)
    if said != built:
        return f"num_params says {said} {at}, but the module has {built} trainable scalars: return that"
    state = config.state_size(dim, length)
    if state is not None and isinstance(module, Recurrent) and not isinstance(config, Composite):
        held = sum(tensor.numel() for tensor in module.init_state(1).values() if tensor.is_floating_point())
        if state != held:
            return f"state_size says {state} {at}, but init_state holds {held} scalars for a sequence: return that"
    return None


def _fault_at_initialisation(module: nn.Module, x_bld: Tensor) -> str | None:
    wanted = {"the input": x_bld.clone().requires_grad_()} | {n: p for n, p in module.named_parameters() if p.requires_grad}
    y_bld = module(wanted["the input"])
    if not isinstance(y_bld, Tensor):
        return f"returns a {type(y_bld).__name__}, not a tensor"
    if y_bld.shape != x_bld.shape:
        return f"returns the shape {tuple(y_bld.shape)} for an input of shape {tuple(x_bld.shape)}: a layer keeps the shape"
    if y_bld.dtype != x_bld.dtype:
        return f"returns {y_bld.dtype} for an input of {x_bld.dtype}: a layer keeps the type"
    if not y_bld.requires_grad:
        return "its output is detached: no gradient reaches the input; compute it without detach(), no_grad() or numpy"
    gradients = torch.autograd.grad((y_bld * torch.randn_like(y_bld)).sum(), list(wanted.values()), materialize_grads=True)
    found = {"output": y_bld, **{f"gradient of {name}": g for name, g in zip(wanted, gradients, strict=True)}}
    for name, tensor in found.items():
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            return f"the {name} is not finite: {bad} of {tensor.numel()} entries are NaN or infinite"
    return None


def _chance(config: LayerConfig, x_bld: Tensor) -> str | None:
    """Fault of a layer that is not the same, bit for bit, when it is built and run again from the same seed.

    Random numbers of torch are the same again, so dropout and the jitter of routers are no fault. On a GPU sums may round.
    """
    with single_thread():
        first, second = _built_and_run(config, x_bld), _built_and_run(config, x_bld)
    for name, value in first.items():
        differs = (value - second[name]).abs().max() if value.shape == second[name].shape and value.numel() else 0.0
        if differs > (ROUNDING * value.abs().max() if x_bld.is_cuda else 0):
            return (
                f"is not deterministic: built and run twice from the same seed, its {name} differs by {float(differs):.2g}; draw "
                "random numbers by torch alone, without a generator of your own"
            )
    return None


def _built_and_run(config: LayerConfig, x_bld: Tensor) -> dict[str, Tensor]:
    """The layer's outputs and gradients from a seed, by names for messages."""
    _, length, dim = x_bld.shape
    with torch.random.fork_rng(devices=[x_bld.device] if x_bld.is_cuda else []):
        torch.manual_seed(0)
        module = config.build(dim, length).to(x_bld.device)
        wanted = {"input": x_bld.clone().requires_grad_()} | {n: p for n, p in module.named_parameters() if p.requires_grad}
        y_bld = module(wanted["input"])
        gradients = torch.autograd.grad((y_bld * x_bld).sum(), list(wanted.values()), materialize_grads=True)
        found = {"output": y_bld.detach()} | {f"gradient of {n}": g for n, g in zip(wanted, gradients, strict=True)}
        with torch.no_grad():
            return found | {"output of evaluation": module.eval()(x_bld)}


def _leak(module: nn.Module, x_bld: Tensor) -> str | None:
    y_bld = outputs(module, x_bld)
    allowed = ROUNDING * float(y_bld.abs().max())
    if (outputs(module, x_bld) - y_bld).abs().max() > allowed:
        return "gives another output for the same input when it is called again: it keeps something from call to call"
    for token in range(1, x_bld.shape[1]):
        moved_t = moved_outputs(module, x_bld, y_bld, token)
        if moved_t.max() > allowed:
            return (
                f"reads the future: a change of token {token} moves the output of token {int(moved_t.argmax())}, before it, by "
                f"{float(moved_t.max()):.2g}; its scores would mean nothing"
            )
    for sequence in range(len(x_bld)):
        moved_b = _moved(module, x_bld, y_bld, (sequence,)).amax((1, 2))
        moved_b[sequence] = 0
        if moved_b.max() > allowed:
            return (
                f"mixes the sequences of a batch: a change of sequence {sequence} moves the output of sequence "
                f"{int(moved_b.argmax())} by {float(moved_b.max()):.2g}; its input is (batch, length, width): give an argument "
                "that says so, e.g. batch_first=True, or compute each sequence by itself"
            )
    return None


def _memory(module: nn.Module, x_bld: Tensor) -> str | None:
    """Fault of a channel mixer that depends on other positions: it may be run at some positions only."""
    y_bld = outputs(module, x_bld)
    alone = torch.cat([outputs(module, x_bld[:, t : t + 1]) for t in range(x_bld.shape[1])], dim=1)
    moved = (alone - y_bld).abs().amax((0, 2)) > ROUNDING * y_bld.abs().max()
    if not moved.any():
        return None
    return (
        f"is a channel mixer, but its output at token {int(moved.nonzero()[0])} depends on other tokens: "
        'give its config kind = "sequence"'
    )


def num_trainable(module: nn.Module) -> int:
    """Trainable scalars of a module."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def outputs(module: nn.Module, x_bld: Tensor) -> Tensor:
    """The module's outputs, with the same random numbers at every call."""
    with torch.no_grad(), torch.random.fork_rng(devices=[x_bld.device] if x_bld.is_cuda else []):
        torch.manual_seed(0)
        return module(x_bld)


def moved_outputs(module: nn.Module, x_bld: Tensor, y_bld: Tensor, token: int) -> Tensor:
    """How far a change of a token moves each output before it: ``(token,)``, the largest over batch and width.

    ``y_bld`` is what :func:`outputs` gives for ``x_bld``.
    """
    return _moved(module, x_bld, y_bld, (slice(None), token))[:, :token].amax((0, 2))


def _moved(module: nn.Module, x_bld: Tensor, y_bld: Tensor, where: tuple[int | slice, ...]) -> Tensor:
    """How far a change of the input at ``where`` moves each entry of the output: ``(batch, length, dim)``."""
    other_bld = x_bld.clone()
    other_bld[where] = -3 * other_bld[where] + 1
    return (outputs(module, other_bld) - y_bld).abs()


def unsettled(module: nn.Module) -> nn.Module:
    """The module with every parameter moved off its initial value: a gate that starts closed hides what is behind it."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return module
