"""Kept models: the weights of finished training runs in a folder beside their store, with all that is needed to use them."""

import errno
import json
import os
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from archlab.architectures.backbones import Backbone
from archlab.corpora import Corpus
from archlab.corpora.tokenizers import TOKENIZER_FILE, Tokenizer, load_tokenizer
from archlab.errors import ArchlabError, in_one_line
from archlab.fields import checked
from archlab.files import file_checksum, write_whole
from archlab.format import human
from archlab.machine import Device
from archlab.scaling.processes import Processes
from archlab.scaling.result import LMResult
from archlab.scaling.store import StudyStore
from archlab.scaling.trial import LMTrial
from archlab.training.context import initialising

Keep = Literal["weights", "checkpoints", "none"]
"""A choice of what stays of a finished training run: weights, the last checkpoint too, or nothing but the result."""

WEIGHTS, TRIAL = "model.safetensors", "trial.json"
"""Files of a kept model: its weights; its training run with recipe and result."""
_SHOWN = 8
"""Digits of a key, and kept models, that messages show."""
_NEAR = 0.05
"""Largest relative distance of a size from the one that is asked for."""


def beside(store: str | os.PathLike[str], what: str) -> Path:
    """The folder of ``"models"`` or ``"checkpoints"`` beside a store; in the current one for a URL."""
    location = os.fspath(store)
    return Path(f"archlab.{what}" if "://" in location else f"{location}.{what}")


@contextmanager
def folder_beside(
    store: str | os.PathLike[str], what: str, fix: str, given: str | os.PathLike[str] | None = None
) -> Iterator[Path]:
    """Make a folder beside the store, unless another is given; it is removed at the end if it is empty."""
    folder = Path(given or beside(store, what))
    try:
        if given or folder.parent.is_dir():  # else there is no directory for the store either, which says so
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise ArchlabError(f"{what} {folder}: {error.strerror}: give another folder {fix}") from None
    try:
        yield folder
    finally:
        with suppress(OSError):  # something is in it
            folder.rmdir()


def save_model(folder: Path, trial: LMTrial, result: LMResult, objective: nn.Module, corpus: Corpus, processes: Processes) -> str:
    """Write a trained model into ``folder/KEY``: weights, trial with result, tokenizer; called by all processes that share it.

    A process that is killed meanwhile leaves the whole folder or none. Returns why the first process could not write it, or
    nothing.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights: dict[str, Any] = get_model_state_dict(objective, options=options)  # gathered by all
    if not processes.is_first:
        return ""
    place, unfinished = folder / trial.key, folder / f"{trial.key}.unfinished"
    document: dict[str, Any] = {"key": trial.key, "trial": trial.to_dict(), "result": result.to_dict()}
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        # copies, for parameters that share memory are refused
        save_file({name.removeprefix("model."): w.contiguous().clone() for name, w in weights.items()}, unfinished / WEIGHTS)
        if (corpus.folder / TOKENIZER_FILE).is_file():
            shutil.copyfile(corpus.folder / TOKENIZER_FILE, unfinished / TOKENIZER_FILE)
        document["checksums"] = {path.name: file_checksum(path) for path in unfinished.iterdir()} | {TRIAL: _checksum(document)}
        (unfinished / TRIAL).write_text(json.dumps(document, indent=1), encoding="utf-8")
        for path in (*unfinished.iterdir(), unfinished):
            _sync(path)
        replaced = folder / f"{trial.key}.replaced.unfinished"
        shutil.rmtree(replaced, ignore_errors=True)
        if place.exists():
            place.rename(replaced)  # a folder is not deleted at one blow
        unfinished.rename(place)
        _sync(folder)
        shutil.rmtree(replaced, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        return in_one_line(error)
    return ""


def _sync(path: Path) -> None:
    """Have the disk hold a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class KeptModel:
    """A trained language model, ready to compute."""

    key: str
    """The key of its training run in the store."""
    trial: LMTrial
    """The training run, its recipe and device: spec, width, length, corpus, and the rest."""
    result: LMResult
    folder: Path
    """Where its files are: ``model.safetensors``, ``trial.json``, and ``tokenizer.json`` if there is one."""
    model: Backbone
    """Token ids ``(batch, length)`` to logits ``(batch, length, vocab_size)``, in evaluation mode."""

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Encodes documents (bytes) and decodes tokens; an ArchlabError says that its package is missing."""
        return load_tokenizer(self.trial.run.tokenizer, self.folder)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.model.embedding.weight.device

    def __str__(self) -> str:
        """Key, architecture and size, budget and seed, for messages."""
        return _named(self.key, self.trial)


@checked
def load_model(run: str, store: str | os.PathLike[str] = "archlab.db", *, device: Device = "cpu") -> KeptModel:
    """Load the model of a training run that ``archlab scale run`` or :func:`archlab.scaling.train` has kept.

    Args:
        run: the beginning of its key, or its architecture's label, alone or with the number of parameters as tables show it
            (``mamba@13.2k``; within 5 %).
        store: the store beside which it was kept.
        device: where the weights go, ``"cpu"`` or ``"cuda"``.

    Raises:
        ArchlabError: none is called so, or several are; its files are damaged, or do not fit the layers of this archlab.
    """
    folder = find_model(run, store)
    key, trial, result = _read(folder)
    _check_files(folder)
    values = trial.run
    sizes: dict[str, Any] = {"vocab_size": values.vocab_size, "max_length": values.length, "dim": values.dim}
    with initialising(0):
        model = values.architecture.build(**sizes, backbone=values.backbone, embedding_std=trial.recipe.embedding_std)
    try:
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, SafetensorError) as error:
        raise ArchlabError(f"model {folder}: cannot be read: {in_one_line(error)}: train it again") from None
    except RuntimeError as error:
        raise ArchlabError(f"model {folder}: does not fit {values.spec} of this archlab: {in_one_line(error)}") from None
    return KeptModel(key, trial, result, folder, model.to(device).eval().requires_grad_(False))


def find_model(run: str, store: str | os.PathLike[str]) -> Path:
    """The folder of the one kept model that ``run`` names, see :func:`load_model`; an ArchlabError lists what there is."""
    place = beside(store, "models")
    kept = dict(_kept(place))
    if not kept:
        with StudyStore(store, create=False):  # which says that there is none
            pass
        raise ArchlabError(f"{place} has no models: `archlab scale run PLAN` keeps those that it trains")
    found = [path for path, (key, trial) in kept.items() if run and key.startswith(run)]
    found = found or [path for path, (_, trial) in kept.items() if trial.run.label == run]
    label, _, size = run.rpartition("@")
    if not found and label:
        alike = {path: trial.run.params for path, (_, trial) in kept.items() if trial.run.label == label}
        found = [path for path, params in alike.items() if human(params) == size]
        number = _parsed(size)
        found = found or [path for path, params in alike.items() if number and abs(params / number - 1) < _NEAR]
    if len(found) == 1:
        return found[0]
    shown = [_named(*kept[path]) for path in (found or kept)]
    names = ", ".join(shown[:_SHOWN]) + (f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else "")
    if found:
        raise ArchlabError(f"run {run!r}: {len(found)} kept models are called so: give more of a key: {names}")
    raise ArchlabError(f"run {run!r}: no kept model is called so: give the beginning of a key, or ARCHITECTURE@SIZE: {names}")


def rekey_models(store: str | os.PathLike[str], present_key: Callable[[LMTrial], str | None]) -> None:
    """Give the models that were kept beside a store the keys that the present code has for their training runs.

    One stays as it is if ``present_key`` gives None or raises an ArchlabError, or another model has its key.
    """
    for folder, (_, trial) in _kept(beside(store, "models")):
        with suppress(ArchlabError):
            key = present_key(trial)
            if key is None or folder.name == key or (place := folder.with_name(key)).exists():
                continue
            document = json.loads((folder / TRIAL).read_text(encoding="utf-8")) | {"key": key}
            write_whole(folder / TRIAL, json.dumps(document, indent=1))
            folder.rename(place)


def _kept(folder: Path) -> Iterator[tuple[Path, tuple[str, LMTrial]]]:
    """Folders of whole models with their keys and training runs, the smallest first; those that cannot be read are named on
    standard error."""
    found = []
    for path in folder.glob(f"*/{TRIAL}"):
        if path.parent.suffix != ".unfinished":
            try:
                key, trial, _ = _read(path.parent)
            except ArchlabError as error:
                print(f"warning: {error}", file=sys.stderr)
            else:
                found.append((path.parent, (key, trial)))
    order = {path: (trial.run.label, trial.run.params, trial.run.budget, trial.run.seed) for path, (_, trial) in found}
    yield from sorted(found, key=lambda each: order[each[0]])


def _read(folder: Path) -> tuple[str, LMTrial, LMResult]:
    try:
        document: dict[str, Any] = json.loads((folder / TRIAL).read_text(encoding="utf-8"))
        found = document["key"], LMTrial.from_dict(document["trial"]), LMResult.from_dict(document["result"])
        if TRIAL in (sums := document.get("checksums", {})) and sums[TRIAL] != _checksum(document):
            raise ArchlabError(f"{TRIAL} is not as it was written")
    except Exception as error:  # whatever a damaged file holds
        raise ArchlabError(f"model {folder}: cannot be read: {in_one_line(error)}: train it again") from None
    return found


def _checksum(document: dict[str, Any]) -> int:
    """Checksum of what is written in ``trial.json``, but the key, which :func:`rekey_models` changes."""
    return zlib.crc32(json.dumps([document["trial"], document["result"]]).encode())


def _check_files(folder: Path) -> None:
    """Refuse a model whose weights or tokenizer are not as they were written; earlier versions wrote no checksums."""
    sums = json.loads((folder / TRIAL).read_text(encoding="utf-8")).get("checksums", {})
    for name in (WEIGHTS, TOKENIZER_FILE):
        try:
            damaged = name in sums and file_checksum(folder / name) != sums[name]
        except OSError as error:
            raise ArchlabError(f"model {folder}: cannot be read: {in_one_line(error)}: train it again") from None
        if damaged:
            raise ArchlabError(f"model {folder}: {name} is damaged, not as it was written: train it again")


def _named(key: str, trial: LMTrial) -> str:
    run = trial.run
    return f"{key[:_SHOWN]} ({run.label}@{human(run.params)}, {run.budget:.3g} FLOPs, seed {run.seed})"


def _parsed(size: str) -> float | None:
    """The number that :func:`human` wrote, or any other; None if it is none."""
    factor = {"k": 1e3, "M": 1e6, "G": 1e9}.get(size[-1:], 1.0)
    with suppress(ValueError):
        return float(size[:-1] if factor > 1 else size) * factor
    return None
