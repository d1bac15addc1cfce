"""Fingerprint of the code and the libraries that a result is computed with.

archlab's own code counts by *definition*: the functions, classes and constants that a training can reach, followed by name
from the roots that a domain declares (:class:`Numerics`) through the modules that it declares numeric. Code from outside
counts by module.
"""

import ast
import hashlib
import json
import os
import pkgutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from archlab.store.source import EFFECTS, Source, existing_file, file_of, imports
from archlab.store.syntax import CanonicalText


@cache
def library_versions(kernels: Literal["torch", "fla"]) -> dict[str, str]:
    """Versions, up to the minor, of the libraries that compute with a recipe's kernels, by the name of their module.

    A library that is not installed has none: a store of another machine's results can be read anywhere.
    """
    distributions = {"torch": "torch", "numpy": "numpy"} | ({"fla": "fla-core"} if kernels == "fla" else {})
    found = {}
    for module, distribution in distributions.items():
        with suppress(PackageNotFoundError):
            found[module] = version(distribution).split("+")[0].rsplit(".", 1)[0]
    return found


_DEFAULT_KERNELS = {
    "ATEN_CPU_CAPABILITY": None,
    "CUBLAS_WORKSPACE_CONFIG": None,
    "DNNL_DEFAULT_FPMATH_MODE": "STRICT",
    "DNNL_MAX_CPU_ISA": "DEFAULT",
    "MKL_CBWR": None,
    "MKL_DEBUG_CPU_TYPE": None,
    "MKL_ENABLE_INSTRUCTIONS": None,
    "NVIDIA_TF32_OVERRIDE": None,
    "ONEDNN_DEFAULT_FPMATH_MODE": "STRICT",
    "ONEDNN_MAX_CPU_ISA": "DEFAULT",
    "OPENBLAS_CORETYPE": None,
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "0",
}
"""Variables of the environment by which libraries choose kernels or their precision, and the value that is as if not set."""


def chosen_kernels() -> dict[str, str]:
    """The variables of the environment that choose kernels or their precision, as far as they are set; usually none."""
    found = {name: os.environ.get(name, "") for name in _DEFAULT_KERNELS}
    return {name: value for name, value in found.items() if value and value.upper() != _DEFAULT_KERNELS[name]}


def job_key(identity: dict[str, Any], kernels: Literal["torch", "fla"], code: str) -> str:
    """Hash (32 hexadecimal digits) of everything that can change a job's result, and of nothing else: its identity
    (JSON-ready), the :func:`library_versions`, the :func:`chosen_kernels` if there are any, and its code's fingerprint."""
    whole = identity | library_versions(kernels) | chosen_kernels() | {"code": code}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Numerics:
    """The part of archlab's code that can change a result."""

    roots: tuple[str, ...] = ()
    """Where computing begins: modules (their classes and what they do on import), or single definitions as
    ``module:function`` or ``module:Class.method``."""
    modules: tuple[str, ...] = ()
    """Modules and packages whose definitions count where they are reached; all others only find, check or show."""
    idle: tuple[str, ...] = ()
    """Modules, and definitions as ``module:name``, within these that change no result."""
    idle_members: tuple[str, ...] = ()
    """Members of registered classes that change no result: refusals, accounting, texts."""

    def __or__(self, other: "Numerics") -> "Numerics":
        return Numerics(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def covers(self, module: str) -> bool:
        """Whether definitions of a module of archlab count."""
        return _is_within(module, self.modules) and not _is_within(module, self.idle)


MODELS = Numerics(
    roots=(
        "archlab.architectures.backbone_config:AutoEncoderConfig.module",
        "archlab.architectures.backbone_config:LanguageModelConfig.module",
        "archlab.architectures.backbone_config:TiedLanguageModelConfig.module",
        "archlab.architectures.backbones",
        "archlab.architectures.spec:Architecture.build",
        "archlab.architectures.spec:Architecture.num_mixing",
    ),
    modules=("archlab.layers", "archlab.architectures.backbones", "archlab.training"),
    idle=(
        "archlab.layers.contract",
        "archlab.layers.external.check",
        "archlab.layers.knobs",
        "archlab.layers.ops.flop_counter",
        "archlab.layers.registry",
        "archlab.training.memory",
        "archlab.training.steps:REPORT_SECONDS",
    ),
    idle_members=(
        *("active_flops", "flops", "matrix_state", "num_params", "paper_flops", "resized", "state_knob", "state_size"),
        *("background", "describe_tokens", "head_knob", "is_attention", "order", "paper", "short", "signs", "suite", "summary"),
        *("check", "validate"),
    ),
)
"""The code that every training has in common: layers, backbones, optimiser, precision."""


_LOOK_UPS = {
    "archlab.layers": {
        *("archlab.architecture", "archlab.architectures.parser.parse", "archlab.architectures.spec.architecture"),
        "archlab.layer",
        *("archlab.layers.registry", *(f"archlab.layers.registry.{name}" for name in ("composites", "layer", "registry"))),
    },
    "archlab.tasks": {
        *("archlab.sample", "archlab.task", "archlab.tasks.registry"),
        *(f"archlab.tasks.registry.{name}" for name in ("find_task", "registry", "setting")),
    },
}
"""Functions that find layers or tasks by their names."""


def code_fingerprint(*modules: str, numerics: Numerics = MODELS) -> str:
    """Hash of the code that the given modules, and the roots of the numerics, run.

    Every definition of archlab counts that they reach by name, without formatting, comments, docstrings, type
    annotations and the messages of exceptions. A module from outside counts whole but for formatting, comments and
    docstrings, and so do the modules that it imports from its own package, and from beside it unless many packages are
    installed there. Torch counts by its version, which is in the key. The hash is the same under every version of Python.

    Refuses a module without a file.
    """
    found = definitions(*modules, numerics=numerics)
    return hashlib.sha256("".join(found[place] for place in sorted(found)).encode()).hexdigest()[:16]


@cache
def definitions(*modules: str, numerics: Numerics = MODELS) -> dict[str, str]:
    """The hash of every definition that counts, by ``module:name``; see :func:`code_fingerprint`."""
    found: dict[str, str] = {}
    pending = [*numerics.roots, *(module for module in modules if module.partition(".")[0] != "torch")]
    while pending:
        place = pending.pop()
        if place in found or place in numerics.idle:
            continue
        module, _, name = place.partition(":")
        if module.partition(".")[0] != "archlab":
            found[place], imported = _outside(module)
            archlabs = [path for path in imported if path.partition(".")[0] == "archlab"]
            reached = [path for path in imported if path not in archlabs]
            for path in archlabs:
                meaning, more = _resolve(path, numerics)
                reached += [*more, *_found_by_name(meaning)]
        elif not name:
            reached = source_of(module).entries()
        else:
            found[place], reached = _definition(source_of(module), name, numerics)
        pending += reached
    return found


def _definition(source: Source, name: str, numerics: Numerics) -> tuple[str, list[str]]:
    """The hash of a definition of archlab with the meanings of its names, and the definitions that it reaches."""
    text, uses = source.definition(name, numerics.idle_members)
    reached = [f"{source.module}:{EFFECTS}"] if numerics.covers(source.module) else []
    meanings = []
    for used, path in uses:
        meaning, more = _resolve(path, numerics)
        meanings.append(f"{used} = {meaning}")
        reached += more
    return hashlib.sha256("\n".join([text, *meanings]).encode()).hexdigest(), reached


def _resolve(path: str, numerics: Numerics) -> tuple[str, list[str]]:
    """The meaning of a dotted path, wherever it is imported from, and the definitions that it reaches."""
    if path.partition(".")[0] != "archlab":
        return path, []
    module, name = split_path(path)
    if name and (numerics.covers(module) or existing_file(module).stem == "__init__"):
        source = source_of(module)
        if name in source.bound:
            return f"{module}:{name}", [f"{module}:{name}"] if numerics.covers(module) else []
        if name in source.imported:  # passed on from elsewhere
            passed = [_resolve(each, numerics) for each in source.imported[name]]
            return " or ".join(meaning for meaning, _ in passed), [each for _, more in passed for each in more]
    return path, source_of(module).everything() if numerics.covers(module) else []


@cache
def _outside(module: str) -> tuple[str, list[str]]:
    """The hash of a module from outside, and the dotted paths that it imports from archlab, its own package or beside it."""
    path = existing_file(module)
    if path.suffix != ".py":  # compiled: all that can be said is whether it is the same
        return hashlib.sha256(path.read_bytes()).hexdigest(), []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    canonical = CanonicalText(bare=False)
    text = canonical.of(tree)
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    bound = list(imports(tree, package))
    paths = dict.fromkeys(dotted for _, dotted in bound)
    paths |= dict.fromkeys(alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names)
    for name, dotted in bound:  # attributes of what is imported may be modules, or passed on
        paths |= dict.fromkeys(
            dotted + used.removeprefix(name) for used in sorted(canonical.names) if used.startswith(f"{name}.")
        )
    followed = []
    own = module.partition(".")[0]
    for imported in paths:
        root = imported.partition(".")[0]
        if root == "archlab":
            followed.append(imported)
        elif root == own or (folder_of(own) is not None and folder_of(root) == folder_of(own)):
            followed += [each for each in (imported.rpartition(".")[0], imported) if each and file_of(each)]
    return hashlib.sha256(text.encode()).hexdigest(), followed


def _found_by_name(path: str) -> list[str]:
    """All layers, or all tasks, if a dotted path of archlab's finds them by their names, as :func:`archlab.layer` does."""
    packages = [package for package, look_ups in _LOOK_UPS.items() if path in look_ups]
    return [each for package in packages for each in _modules(package)]


@cache
def _modules(package: str) -> list[str]:
    folder = existing_file(package).parent
    return [f"{package}.{module.name}" for module in pkgutil.iter_modules([str(folder)]) if not module.ispkg]


@cache
def folder_of(root: str) -> Path | None:
    """The folder that a package or a single module lies in; None for one where many packages are installed."""
    path = file_of(root)
    if path is None:
        return None
    folder = path.parent.parent if path.stem == "__init__" else path.parent
    return None if folder.name in ("site-packages", "dist-packages") else folder


@cache
def split_path(path: str) -> tuple[str, str]:
    """The module in a dotted path, and the name in it that the path goes through; empty if the path is that of the module."""
    parts = path.split(".")
    length = next(length for length in range(len(parts), 0, -1) if file_of(".".join(parts[:length])))
    return ".".join(parts[:length]), ".".join(parts[length : length + 1])


@cache
def source_of(module: str) -> Source:
    """The source of a module."""
    path = existing_file(module)
    return _parsed(module, path.read_text(encoding="utf-8"), is_package=path.stem == "__init__")


_parsed = cache(Source)


def _is_within(module: str, names: Iterable[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)
