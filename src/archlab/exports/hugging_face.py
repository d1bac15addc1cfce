"""A kept model as a folder that transformers loads without archlab."""

import ast
import json
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from archlab.architectures.decoding import without_step_form
from archlab.errors import ArchlabError
from archlab.exports.code import Bundle, file_name
from archlab.exports.tokenizer import tokenizer_files
from archlab.format import human
from archlab.layers.contract import Composite, LayerConfig
from archlab.layers.external.dotted import ModuleLayer
from archlab.scaling.models import KeptModel
from archlab.store.kept import WEIGHTS


def write_hugging_face(kept: KeptModel, store: str, folder: Path) -> None:
    """Write model, code, tokenizer and card into a folder that exists; refuses a layer whose source cannot be followed."""
    run, tokenizer = kept.trial.run, kept.tokenizer
    layers, backbone = run.architecture.layers, type(kept.model).__name__
    lacking = without_step_form(layers, kept.model)
    code = _Code(layers, backbone)
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokenizer.end)
    config = {
        "architectures": ["ArchlabForCausalLM"],
        "model_type": "archlab",
        "auto_map": {
            "AutoConfig": "configuration_archlab.ArchlabConfig",
            "AutoModelForCausalLM": "modeling_archlab.ArchlabForCausalLM",
        },
        "layers": [_entry(layer) for layer in layers],
        "num_mixing": run.architecture.num_mixing,
        "vocab_size": run.vocab_size,
        "hidden_size": run.dim,
        "max_position_embeddings": run.length,
        "tie_word_embeddings": False,  # a tied model has one table from the beginning
        "step_form": lacking is None,
        "archlab": {"version": version("archlab"), "spec": run.spec, "key": kept.key},
        **ends,
    }
    beyond = [*range(tokenizer.vocab_size, run.vocab_size)]  # rows of the embedding that no token has
    generation = {"use_cache": lacking is None, **ends} | ({"suppress_tokens": beyond} if beyond else {})
    common = {"name": _name(kept), "version": version("archlab"), "backbone": backbone}
    texts = code.bundle.files()
    modules = [name.removesuffix(".py") for name in texts]
    texts["configuration_archlab.py"] = _rendered("configuration_archlab.py", **common)
    called = {"imports": code.imports.values(), "modules": modules, "layers": code.layers}
    texts["modeling_archlab.py"] = _rendered("modeling_archlab.py", **common, **called)
    texts["README.md"] = _card(kept, store, _packages(texts), lacking)
    texts |= tokenizer_files(tokenizer, run.length)
    texts |= {"config.json": json.dumps(config, indent=1), "generation_config.json": json.dumps(generation, indent=1)}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    tensors = dict(kept.model.named_parameters()) | dict(kept.model.named_buffers())  # with those that building computes again
    weights = {f"model.{name}": tensor.contiguous().clone() for name, tensor in tensors.items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


class _Code:
    """The code of a model: what it imports, how its layers are called there, and the files beside it."""

    def __init__(self, layers: tuple[LayerConfig, ...], backbone: str) -> None:
        parts = dict.fromkeys(part for config in layers for part in _with_parts(config))
        registered = [type(part).__module__ for part in parts if not isinstance(part, ModuleLayer)]
        self.bundle = Bundle(*(module for module in registered if not module.startswith("archlab.")))
        self.imports: dict[str, str] = {"ArchlabConfig": "from .configuration_archlab import ArchlabConfig"}
        self.layers: dict[str, str] = {}
        self._imported("archlab.architectures.backbones", backbone)
        self._imported("archlab.architectures.decoding", "Decoder")
        for part in parts:
            try:
                self.layers[part.name] = self._maker(part)
            except ArchlabError as error:
                raise ArchlabError(f"layer {part}: cannot be exported: {error}") from None

    def _maker(self, part: LayerConfig) -> str:
        """The expression for the function that makes the layer of its knobs."""
        if not isinstance(part, ModuleLayer):
            return self._imported(type(part).__module__, type(part).__qualname__)
        factory = self._imported(part.factory.__module__, part.factory.__qualname__)
        maker = self._imported("archlab.layers.external.dotted", "ModuleLayer")
        return f"lambda **knobs: {maker}({factory}, {part.width!r}, knobs)"

    def _imported(self, module: str, path: str) -> str:
        """The expression for a class, which is imported under a name of its own; its code is included where it is needed."""
        name, *members = path.split(".")
        included = self.bundle.includes(module)
        home = f".{file_name(module)}" if included else module
        plain, renamed = f"from {home} import {name}", f"{file_name(module)}_{name}"
        if included:
            self.bundle.add(module, name)
        local = name if self.imports.get(name, plain) == plain else renamed
        self.imports[local] = plain if local == name else f"{plain} as {renamed}"
        return ".".join([local, *members])


def _with_parts(config: LayerConfig) -> Iterator[LayerConfig]:
    for part in config.layers if isinstance(config, Composite) else ():
        yield from _with_parts(part)
    yield config


def _entry(config: LayerConfig) -> list[Any]:
    """Name, knobs, and for a layer of layers their entries."""
    if isinstance(config, ModuleLayer):
        return [config.name, dict(config.arguments)]
    return [config.name, config.knobs(), *([[_entry(part) for part in config.layers]] if isinstance(config, Composite) else [])]


def _packages(texts: dict[str, str]) -> list[str]:
    """The packages that files import, beside torch, transformers and what these bring."""
    found = set()
    for name, text in texts.items():
        for node in ast.walk(ast.parse(text)) if name.endswith(".py") else ():
            paths = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            paths += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            found |= {path.partition(".")[0] for path in paths}
    return sorted(found - sys.stdlib_module_names - {"torch", "transformers", "typing_extensions", "numpy"})


def _card(kept: KeptModel, store: str, packages: list[str], lacking: LayerConfig | None) -> str:
    run, recipe, result = kept.trial.run, kept.trial.recipe, kept.result
    facts = {
        "architecture": f"`{run.spec}`",
        "parameters": f"{run.params:,} ({run.params_non_embedding:,} without embeddings)",
        "width": run.dim,
        "length of training": run.length,
        "state of a sequence": f"{run.state:,} scalars at {run.length} tokens",
        "data": f"`{run.corpus}`, tokenizer `{run.tokenizer}`, hash `{run.corpus_hash}`",
        "training": f"{run.flops:.4g} FLOPs ({run.convention}): {run.tokens:,} tokens in {run.steps:,} steps",
        "recipe": f"peak learning rate {run.learning_rate:g}, seed {run.seed}, {recipe.precision}; all of it is in `trial.json`",
        "loss": "not known" if result.loss is None else f"{result.loss:.4f} nats a token on held-out text",
        "key": f"`{kept.key}`",
        "store": f"`{store}`",
    }
    notes = [
        "With a cache (`generate`) it takes one token at a time by the layers' step forms; layers that remember all tokens "
        f"forget the oldest beyond {run.length}.",
    ]
    if lacking is not None:
        notes = [f"`{lacking}` has no step form, so it generates without a cache: every token costs a pass over all before it."]
    values = {"run": run, "facts": facts, "notes": notes, "packages": packages}
    return _rendered("README.md", name=_name(kept), version=version("archlab"), **values)


def _name(kept: KeptModel) -> str:
    return f"{kept.trial.run.label}@{human(kept.trial.run.params)}"


def _rendered(template: str, **values: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("archlab.exports")
    environment = Environment(loader=loader, undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # no HTML
    return environment.get_template(f"{template}.jinja").render(**values)
