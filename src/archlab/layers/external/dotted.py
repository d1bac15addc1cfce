"""Any ``nn.Module`` class as a layer, named by its path: ``my_pkg.mixers.Foo(heads=4)``, ``fla:GatedDeltaNet(num_heads=4)``."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from archlab.errors import ArchlabError, in_one_line, unknown
from archlab.isolation import undone
from archlab.layers.contract import LayerConfig
from archlab.layers.external.check import num_trainable
from archlab.layers.knobs import check_number, knob_text
from archlab.layers.ops.flop_counter import count_flops
from archlab.sources import import_outside

PREFIXES = {"fla": "fla.layers"}
"""Short forms of modules: ``fla:X`` is the class ``fla.layers.X`` of flash-linear-attention."""
_WIDTHS = ("dim", "d_model", "hidden_size")
"""Names of the width if it is not the first argument."""


class FirstOutput(nn.Module):
    """A module that may return several things, of which the first is the output."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x_bld: Tensor) -> Tensor:
        y = self.module(x_bld)
        return y[0] if isinstance(y, tuple) else y


@dataclass(frozen=True)
class ModuleLayer(LayerConfig):
    """An ``nn.Module`` class with its arguments; every class has a subclass of this of its own.

    Parameters and FLOPs are measured on a module that is built for it. It counts as a mixer along the sequence, for what it
    mixes is not known.
    """

    paper: ClassVar[str] = "third party"
    factory: ClassVar[type[nn.Module]]
    width: ClassVar[str | None]
    """The argument that takes the width; None for the first one, whatever its name."""

    arguments: tuple[tuple[str, Any], ...] = ()
    state: int | None = None
    """Scalars carried from token to token, if that is known."""

    def validate(self, dim: int) -> None:
        _num_params(self, dim)

    def num_params(self, dim: int, length: int) -> int:
        return _num_params(self, dim)

    def state_size(self, dim: int, length: int) -> int | None:
        return self.state

    def flops(self, dim: int, length: int) -> int:
        # Measured, without what kernels do that PyTorch's counter does not know.
        return _flops(self, dim, length)

    def build(self, dim: int, max_length: int) -> nn.Module:
        arguments = dict(self.arguments)
        module = self.factory(dim, **arguments) if self.width is None else self.factory(**{self.width: dim}, **arguments)
        return FirstOutput(module)

    def modules(self) -> tuple[str, ...]:
        return (__name__, self.factory.__module__)

    def knobs(self) -> dict[str, Any]:
        return dict(self.arguments) | ({} if self.state is None else {"state": self.state})

    def __str__(self) -> str:
        knobs = ", ".join(f"{knob}={knob_text(value)}" for knob, value in self.knobs().items())
        return f"{self.name}({knobs})" if knobs else self.name

    def __reduce__(self) -> tuple[Any, ...]:
        return module_layer, (self.name, self.knobs())


def module_layer(path: str, knobs: Mapping[str, Any]) -> ModuleLayer:
    """The layer that a path names; ``state=N`` among the knobs says how many scalars it carries.

    Raises:
        ArchlabError: the class cannot be imported or is no ``nn.Module``, or a knob is none of its arguments, is missing or
            has a value that no spec can write.
    """
    config = _config(path)
    known = _arguments(config.factory, config.width)
    given = dict(knobs)
    state = None if "state" in known else given.pop("state", None)
    check_number(f"{path}(state={state})", state)
    if state is not None and (type(state) is not int or state < 0):
        raise ArchlabError(f"{path}(state={state}): give the scalars that are carried from token to token, a whole number")
    for knob, value in given.items():
        if knob not in known:
            raise unknown(f"knob of {path}:", knob, [*known, "state"])
        if not isinstance(value, bool | int | float | str):
            raise ArchlabError(f"{path}({knob}={value}): a spec cannot write it; give a number, a string, True or False")
        check_number(f"{path}({knob}={value})", value)
    missing = [knob for knob in _required(config.factory) if knob != config.width and knob not in given]
    if missing:
        raise ArchlabError(f"{path}: {missing[0]} has no default: give it, as in {path}({missing[0]}=...)")
    return config(tuple((knob, given[knob]) for knob in known if knob in given), state)


@cache
def _config(path: str) -> type[ModuleLayer]:
    factory = _import(path)
    return type(factory.__name__, (ModuleLayer,), {"name": path, "factory": factory, "width": _width(factory)})


def _import(path: str) -> type[nn.Module]:
    prefix, colon, rest = path.partition(":")
    if colon and prefix not in PREFIXES:
        raise unknown("prefix", prefix, PREFIXES)
    if prefix == "fla" and colon and not torch.cuda.is_available():
        raise ArchlabError(f"{path}: the kernels of flash-linear-attention need a GPU, and none is visible here")
    home, _, name = (f"{PREFIXES[prefix]}.{rest}" if colon else path).rpartition(".")
    try:
        module, _ = import_outside(home)
    except ArchlabError as error:
        fix = "pip install 'archlab[gpu]'" if colon else "install it, or name a file of it with --layers"
        raise ArchlabError(f"{path}: {home} cannot be imported: {error}: {fix}") from None
    classes = {key: value for key, value in vars(module).items() if isinstance(value, type) and issubclass(value, nn.Module)}
    if name in classes:
        return classes[name]
    if hasattr(module, name):
        raise ArchlabError(f"{path}: {name} is not a class of nn.Module")
    raise unknown(f"class of {home}:", name, classes)


def _width(factory: type[nn.Module]) -> str | None:
    """A first argument without default, unless another one is called as widths are."""
    own = inspect.signature(factory).parameters.values()
    named = [p.name for p in own if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    first = [p.name for p in own if p.kind is p.POSITIONAL_OR_KEYWORD][:1]
    required = [p.name for p in own if p.name in first and p.default is p.empty]
    return next((name for name in (*_WIDTHS[:2], *required, *_WIDTHS[2:], *first) if name in named), None)


def _arguments(factory: type[nn.Module], width: str | None) -> list[str]:
    """The arguments beside the width; those of a base class too where any are passed on."""
    found: dict[str, None] = {}
    for owner in factory.__mro__:
        if owner is nn.Module:
            break
        if "__init__" in vars(owner):
            own = list(inspect.signature(vars(owner)["__init__"]).parameters.values())[1:]
            found |= dict.fromkeys(p.name for p in own if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
            if all(p.kind is not p.VAR_KEYWORD for p in own):
                break
    return [name for name in found if name != width]


def _required(factory: type[nn.Module]) -> list[str]:
    """The arguments of the class's own constructor that have no default."""
    own = inspect.signature(factory).parameters.values()
    return [p.name for p in own if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


@cache
def _num_params(config: ModuleLayer, dim: int) -> int:
    return _measured(config, f"cannot be built at width {dim}", lambda: num_trainable(config.build(dim, 1)))


@cache
def _flops(config: ModuleLayer, dim: int, length: int) -> int:
    return _measured(
        config,
        f"cannot be run at width {dim}, length {length}",
        lambda: count_flops(config.build(dim, length), torch.zeros(1, length, dim)),
    )


def _measured(config: ModuleLayer, failed: str, measure: Callable[[], int]) -> int:
    """Without data where the module allows it, else on the first device that it runs on."""
    # Fake tensors, not the meta device: a Triton kernel would take a meta tensor for a null pointer, and break CUDA.
    places: list[Any] = [
        FakeTensorMode(allow_non_fake_inputs=True),
        *map(torch.device, ["cpu", "cuda"][: 1 + torch.cuda.is_available()]),
    ]
    reason = ""
    for place in places:
        try:
            with undone(), place:
                return measure()
        except (Exception, SystemExit) as error:
            reason = in_one_line(error)
    raise ArchlabError(f"{config}: {failed}: {reason}")
