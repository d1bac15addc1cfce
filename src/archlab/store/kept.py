"""Kept models: weights in folders beside a store, one folder for each job, with all that is needed to use them."""

import errno
import json
import os
import shutil
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from archlab.errors import ArchlabError, in_one_line
from archlab.files import file_checksum, write_whole

J = TypeVar("J")
R = TypeVar("R")
M = TypeVar("M", bound=nn.Module)
F = TypeVar("F", bound="KeptFiles[Any, Any]")

WEIGHTS, TRIAL = "model.safetensors", "trial.json"
"""Files of a kept model: its weights; its trial or training run with recipe and result."""
SHOWN = 8
"""Digits of a key, and kept models, that messages show."""

Reader = Callable[[dict[str, Any]], tuple[J, R] | None]
"""Reads job and result of ``trial.json``; None for a job of another kind."""


@dataclass(frozen=True)
class KeptFiles(Generic[J, R]):
    """The description of a kept model, without its weights."""

    key: str
    """The key of its trial or training run in the store."""
    trial: J
    """The trial or training run, its recipe and device."""
    result: R
    folder: Path
    """Where its files are: ``model.safetensors``, ``trial.json``, and ``tokenizer.json`` if there is one."""


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


def write_model(
    folder: Path,
    key: str,
    trial: dict[str, Any],
    result: dict[str, Any],
    weights: Mapping[str, Tensor],
    files: Iterable[Path] = (),
) -> str:
    """Write weights, trial with result (JSON-ready) and copies of further files into ``folder/KEY``.

    A process that is killed meanwhile leaves the whole folder or none. Returns why it could not be written, or nothing.
    """
    place, unfinished = folder / key, folder / f"{key}.unfinished"
    document: dict[str, Any] = {"key": key, "trial": trial, "result": result}
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        # copies, for parameters that share memory are refused
        save_file({name: tensor.cpu().contiguous().clone() for name, tensor in weights.items()}, unfinished / WEIGHTS)
        for path in files:
            shutil.copyfile(path, unfinished / path.name)
        document["checksums"] = {path.name: file_checksum(path) for path in unfinished.iterdir()} | {TRIAL: _checksum(document)}
        (unfinished / TRIAL).write_text(json.dumps(document, indent=1), encoding="utf-8")
        for path in (*unfinished.iterdir(), unfinished):
            _sync(path)
        replaced = folder / f"{key}.replaced.unfinished"
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


def kept_beside(store: str | os.PathLike[str], read: Reader[J, R]) -> list[KeptFiles[J, R]]:
    """The whole models beside a store whose jobs ``read`` takes; those that cannot be read are named on standard error."""
    found = []
    folder = beside(store, "models")
    try:
        paths = sorted(folder.glob(f"*/{TRIAL}"))
    except OSError as error:  # its name is too long
        raise ArchlabError(f"models {folder}: cannot be read: {error.strerror}") from None
    for path in paths:
        if path.parent.suffix != ".unfinished":
            try:
                kept = read_files(path.parent, read)
            except ArchlabError as error:
                print(f"warning: {error}", file=sys.stderr)
            else:
                found += [] if kept is None else [kept]
    return found


def read_files(folder: Path, read: Reader[J, R]) -> KeptFiles[J, R] | None:
    """Read the description of a kept model; None if its job is of another kind. Refuses what is not as it was written."""
    try:
        document: dict[str, Any] = json.loads((folder / TRIAL).read_text(encoding="utf-8"))
        key, found = document["key"], read(document)
        if TRIAL in (sums := document.get("checksums", {})) and sums[TRIAL] != _checksum(document):
            raise ArchlabError(f"{TRIAL} is not as it was written")
    except Exception as error:  # whatever a damaged file holds
        raise ArchlabError(f"model {folder}: cannot be read: {in_one_line(error)}: train it again") from None
    return None if found is None else KeptFiles(key, *found, folder)


def _checksum(document: dict[str, Any]) -> int:
    """Checksum of what is written in ``trial.json``, but the key, which :func:`rekey_models` changes."""
    return zlib.crc32(json.dumps([document["trial"], document["result"]]).encode())


def with_weights(kept: KeptFiles[Any, Any], model: M, spec: str, device: str) -> M:
    """The model with the kept weights, on the device and ready to compute; refuses damaged files, and those of other layers.

    Earlier versions wrote no checksums.
    """
    folder = kept.folder
    damaged = f"model {folder}: cannot be read"
    try:
        sums = json.loads((folder / TRIAL).read_text(encoding="utf-8")).get("checksums", {})
        for name in sorted(sums.keys() - {TRIAL}):
            if file_checksum(folder / name) != sums[name]:
                raise ArchlabError(f"model {folder}: {name} is damaged, not as it was written: train it again")
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, SafetensorError) as error:
        raise ArchlabError(f"{damaged}: {in_one_line(error)}: train it again") from None
    except RuntimeError as error:
        raise ArchlabError(f"model {folder}: does not fit {spec} of this archlab: {in_one_line(error)}") from None
    return model.to(torch.device(device)).eval().requires_grad_(False)


def only(name: str, found: Sequence[F], all_kept: Sequence[F], title: Callable[[F], str], how: str) -> F:
    """The one model that is called ``name``; an ArchlabError says ``how`` to name one, and what there is."""
    if len(found) == 1:
        return found[0]
    shown = [title(one) for one in (found or all_kept)]
    names = ", ".join(shown[:SHOWN]) + (f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else "")
    if found:
        raise ArchlabError(f"run {name!r}: {len(found)} kept models are called so: give more of a key: {names}")
    raise ArchlabError(f"run {name!r}: no kept model is called so: give the beginning of a key, or {how}: {names}")


def rekey_models(store: str | os.PathLike[str], read: Reader[J, R], present_key: Callable[[J], str | None]) -> None:
    """Give the models that were kept beside a store the keys that the present code has for their jobs.

    One stays as it is if ``present_key`` gives None or raises an ArchlabError, or another model has its key.
    """
    for kept in kept_beside(store, read):
        with suppress(ArchlabError):
            key = present_key(kept.trial)
            if key is None or kept.folder.name == key or (place := kept.folder.with_name(key)).exists():
                continue
            document = json.loads((kept.folder / TRIAL).read_text(encoding="utf-8")) | {"key": key}
            write_whole(kept.folder / TRIAL, json.dumps(document, indent=1))
            kept.folder.rename(place)
