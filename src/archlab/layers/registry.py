"""The registry of layers: every layer by its name in specs.

Every module of :mod:`archlab.layers` is imported on the first look-up, so a new file needs no edit elsewhere, and so are
those that installed packages name as entry points.
"""

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from typing_extensions import dataclass_transform

from archlab.errors import ArchlabError, in_one_line, unknown
from archlab.fields import check_value, naming
from archlab.layers.contract import Composite, LayerConfig
from archlab.layers.external.cells import PREFIX, class_from_cell, is_without_file
from archlab.layers.knobs import check_number, converted, plain
from archlab.sources import import_installed, import_modules, imported

_REGISTRY: dict[str, type[LayerConfig]] = {}
_DESCRIBED: set[type[LayerConfig]] = set()
"""Configs from outside archlab that have said what they are."""

Config = TypeVar("Config", bound=type[LayerConfig])


@dataclass_transform(frozen_default=True)
def register(name: str) -> Callable[[Config], Config]:
    """Class decorator: make a config known under ``name`` in specs, and a frozen dataclass where it is none yet.

    A class that a notebook's cell defines is replaced by its twin in a file that has the definitions of the cell, so that
    keys and workers find it; a cell that is edited and run again replaces its layer.

    Raises:
        ArchlabError: the name is taken by another class, a knob has no default, ``state_knob`` or ``head_knob`` names no
            whole-number knob, or a session defines the class and its source is not known or needs what another cell defines.
    """

    def add(config: Config) -> Config:
        if "__dataclass_params__" not in vars(config):
            dataclass(frozen=True)(config)
        if is_without_file(config.__module__):
            config = class_from_cell(config, sys._getframe(1).f_code.co_filename)
        if not config.__module__.startswith("archlab."):
            import_modules(__package__)  # archlab's own layers have their names before others ask for one
        taken = _REGISTRY.get(name)
        from_cells = taken is not None and taken.__module__.startswith(PREFIX) and config.__module__.startswith(PREFIX)
        if taken is not None and not from_cells and _home(taken) != _home(config):
            raise ArchlabError(f"layer name {name!r} is taken by {taken.__module__}.{taken.__qualname__}")
        defaults = _defaults(config)
        for knob, default in defaults.items():
            if default is MISSING:
                raise ArchlabError(f"layer {name!r}: its knob {knob} needs a default, as in {knob}: int = 4")
        if not config.head_knob and type(defaults.get("heads")) is int:
            config.head_knob = "heads"
        for role in ("state_knob", "head_knob"):
            knob = getattr(config, role)
            # A property where it depends on other knobs.
            if isinstance(knob, str) and knob and type(defaults.get(knob)) is not int:
                raise unknown(f"{role} of layer {name!r}:", knob, (k for k, v in defaults.items() if type(v) is int))
        config.name = name
        _REGISTRY[name] = config
        return config

    return add


def _home(config: type[LayerConfig]) -> tuple[str, str]:
    return config.__module__, config.__qualname__


def registry() -> Mapping[str, type[LayerConfig]]:
    """Every known layer by name, without those that are made of others. Imports torch on the first call."""
    import_installed(__package__)
    return MappingProxyType({name: config for name, config in _REGISTRY.items() if not issubclass(config, Composite)})


def composites() -> Mapping[str, type[Composite]]:
    """Every known way to make a layer of layers, by name. Imports torch on the first call."""
    import_installed(__package__)
    return MappingProxyType({name: config for name, config in _REGISTRY.items() if issubclass(config, Composite)})


@cache
def own_names() -> frozenset[str]:
    """The names of archlab's own layers, read off their files: nothing is imported."""
    files = (file.read_text(encoding="utf-8") for file in Path(__file__).parent.glob("*.py"))
    return frozenset(name for text in files for name in re.findall(r'^@register\("([^"]+)"\)$', text, re.MULTILINE))


def is_path(name: str) -> bool:
    """Whether a name is the path of an ``nn.Module`` class, as ``my_pkg.mixers.Foo`` and ``fla:Foo`` are, not that of a layer."""
    return "." in name or ":" in name


def unknown_layer(name: str, others: Iterable[str] = ()) -> ArchlabError:
    """The error for a layer that is not known; ``others`` are further names that would be."""
    for module in imported:
        found = getattr(sys.modules.get(module), name, None)
        if isinstance(found, type):
            written = found.name if issubclass(found, LayerConfig) else f"{module}.{name}"
            return ArchlabError(f"unknown layer {name!r}: it is a class of {module}: write {written}")
    return ArchlabError(f"{unknown('layer', name, {*registry(), *composites(), *others})}{import_installed(__package__)}")


def layer(name: str, *layers: LayerConfig, **knobs: Any) -> LayerConfig:
    """The config of a layer.

    ``layer("mamba", d_state=8)``, ``layer("parallel", layer("mamba"), layer("mh-attention"))``, or any module by its path:
    ``layer("my_pkg.mixers.Foo", heads=4)``.

    Raises:
        ArchlabError: the name or a knob is unknown, a knob's value has the wrong type or is no finite number, the layer is
            made of no others, or its config cannot be made.
    """
    name = check_value("name", name, str)
    knobs = {knob: plain(value) for knob, value in knobs.items()}
    known = {**registry(), **composites()}
    if name not in known and is_path(name):
        from archlab.layers.external.dotted import module_layer

        if layers:
            raise ArchlabError(f"{name}({layers[0]}): it is made of no layers, give knobs only")
        return module_layer(name, knobs)
    if name not in known:
        raise unknown_layer(name)
    config = known[name]
    made_of: dict[str, Any] = {"layers": layers} if issubclass(config, Composite) else {}
    for part in layers:
        if not made_of or not isinstance(part, LayerConfig):
            wanted = "give layers, then knobs" if made_of else "it is made of no layers, give knobs only"
            raise ArchlabError(f"{name}({part}): {wanted}")
    defaults = _defaults(config)
    for knob, value in knobs.items():
        if knob not in defaults:
            raise unknown(f"knob of {name}:", knob, defaults)
        check_number(f"{name}({knob}={value})", value)
        knobs[knob] = converted(f"{name}({knob}={value})", value, type(defaults[knob]))
    try:
        if config not in _DESCRIBED and not config.__module__.startswith("archlab."):
            from archlab.layers.external.check import check_description

            with naming(name):
                check_description(lambda: config(**made_of, **knobs))
            _DESCRIBED.add(config)
        return config(**made_of, **knobs)
    except ArchlabError:
        raise
    except (Exception, SystemExit) as error:  # the config of someone else
        raise ArchlabError(f"{name}: its config cannot be made: {in_one_line(error)}") from error


def _defaults(config: type[LayerConfig]) -> dict[str, Any]:
    """The knobs of a class with their defaults."""
    return {f.name: f.default for f in fields(config) if not (issubclass(config, Composite) and f.name == "layers")}
