"""Checkpoints of a training run: whole or not there, checked before they are read, readable by any number of processes."""

import json
import math
import os
import pickle
import shutil
import sys
import time
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import ReadItem
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer
from typing_extensions import override

from archlab.errors import ArchlabError, in_one_line
from archlab.files import file_checksum
from archlab.scaling.processes import Processes

_LOG = "log.json"
_MOST_TIME = 0.02
"""Share of the time that a training may stand still for its checkpoints."""


class Checkpoints:
    """The latest checkpoint of a training in a folder of its own, which all its processes see.

    A context manager: leaving it waits until what was saved is on the disk.
    """

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.folder, self.processes = folder, processes
        how = StagingOptions(processes.device.type == "cuda", False, False, False)
        self._host, self._thread = DefaultStager(how), ThreadPoolExecutor(1, thread_name_prefix="archlab-checkpoints")
        self._written: Future[None] | None = None
        self._saved, self._cost = time.perf_counter(), 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._finish()
        finally:
            self._thread.shutdown()
            self._host.close()

    def is_due(self, seconds: float) -> bool:
        """Whether so many seconds have passed since the last one, or more where it takes longer than that is worth, and it is
        on the disk."""
        is_written = self._written is None or self._written.done()
        return is_written and time.perf_counter() - self._saved > max(seconds, self._cost / _MOST_TIME)

    def save(self, step: int, objective: nn.Module, optimizer: Optimizer, log: dict[str, Any]) -> None:
        """Copy parameters, optimiser and log (JSON-ready) after a step; a thread writes them, then drops the checkpoint before.

        A process that is killed meanwhile leaves the one before it as it was. Raises what went wrong with the last one.
        """
        started = time.perf_counter()
        self._finish()
        unfinished = self.folder / f"unfinished-{step}"
        if self.processes.is_first:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.rmtree(unfinished, ignore_errors=True)
        self.processes.wait()
        model_state, optimizer_state = get_state_dict(objective, optimizer)
        state: dict[str, Any] = {"model": model_state, "optimizer": optimizer_state}
        self._written = self._thread.submit(self._write, self._host.stage(state), unfinished, self.folder / f"step-{step}", log)
        self._saved = time.perf_counter()
        self._cost = self._saved - started

    def _write(self, state: Any, unfinished: Path, place: Path, log: dict[str, Any]) -> None:
        """Write a checkpoint, by all processes; the first one puts it in its place once all have written it."""
        with _without_warnings():
            group = {"process_group": self.processes.writing, "no_dist": not self.processes.sharded}
            save(state, checkpoint_id=unfinished, **group)
        if not self.processes.is_first:
            return
        with (unfinished / _LOG).open("w", encoding="utf-8") as file:
            json.dump({"log": log, "checksums": _checksums(unfinished, log)}, file)
            file.flush()
            os.fsync(file.fileno())
        shutil.rmtree(place, ignore_errors=True)
        os.rename(unfinished, place)
        for other in self.folder.iterdir():
            if other != place:
                shutil.rmtree(other, ignore_errors=True)

    def _finish(self) -> None:
        """Wait until the last one is on the disk."""
        written, self._written = self._written, None
        if written is not None:
            written.result()

    def latest(self) -> int | None:
        """The step of the latest checkpoint, or None if there is none."""
        names = (path.name.removeprefix("step-") for path in self.folder.glob("step-*"))
        steps = [int(name) for name in names if name.isdecimal()]
        return self.processes.agree(max(steps, default=None))

    def restore(self, objective: nn.Module, optimizer: Optimizer, most: float = math.inf) -> dict[str, Any] | None:
        """Load the latest checkpoint in place and return its log; None if there is none, or its step is more than ``most``.

        One that is not as it was written is set aside, and named on standard error: the training begins again. Refuses the
        folder of another user.
        """
        step = self.latest()
        if step is None or step > most:
            return None
        place = self.folder / f"step-{step}"
        log = self.processes.agree(self._checked_log(place) if self.processes.is_first else None)
        if log is None:
            return None
        if isinstance(log, str):
            raise ArchlabError(f"checkpoint {place}: {log}: delete the folder to begin this training run again")
        model_state, optimizer_state = get_state_dict(objective, optimizer)
        state: dict[str, Any] = {"model": model_state, "optimizer": optimizer_state}
        with _without_warnings():
            load(state, storage_reader=_Reader(place), planner=_Planner(), no_dist=not self.processes.sharded)
        set_state_dict(objective, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        return log

    def _checked_log(self, place: Path) -> dict[str, Any] | str | None:
        """The log of a checkpoint; why it must not be read; or None if it is damaged, and set aside."""
        status = self.folder.stat()
        if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
            return f"{self.folder} belongs to another user or can be written by others"
        try:
            document = json.loads((place / _LOG).read_text(encoding="utf-8"))
            log, expected = dict(document["log"]), dict(document["checksums"])
            found = _checksums(place, log)
            differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
            if not differing:
                return log
            reason = f"{', '.join(differing)} is not as it was written"
        except Exception as error:  # whatever a damaged file holds
            reason = in_one_line(error)
        aside = self.folder / f"damaged-{place.name}"
        shutil.rmtree(aside, ignore_errors=True)
        place.rename(aside)
        print(f"checkpoint {place}: it is damaged ({reason}): set aside as {aside.name}, begun again", file=sys.stderr)
        return None


def _checksums(folder: Path, log: dict[str, Any]) -> dict[str, int]:
    """CRC-32 of every file of a checkpoint, of the log's file that of the log alone."""
    sums = {path.name: file_checksum(path) for path in sorted(folder.iterdir()) if path.name != _LOG}
    return sums | {_LOG: zlib.crc32(json.dumps(log).encode())}


_METADATA_NAMES = {
    "torch.distributed.checkpoint.metadata": {
        *("BytesStorageMetadata", "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta", "TensorProperties"),
        *("TensorStorageMetadata", "_MEM_FORMAT_ENCODING"),
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size", "float64", "float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool"},
    "pathlib": {"PosixPath", "WindowsPath"},
}
"""All that the metadata of a checkpoint is made of, by module."""


class _Unpickler(pickle.Unpickler):
    """Reads the metadata of a checkpoint without running what a file names."""

    @override
    def find_class(self, module: str, name: str) -> Any:
        if name not in _METADATA_NAMES.get(module, ()):
            raise ArchlabError(f"checkpoint: its metadata names {module}.{name}, which no checkpoint holds: delete its folder")
        return super().find_class(module, name)


class _Reader(FileSystemReader):
    """Reads the files of a checkpoint without running what they name."""

    @override
    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with self.fs.create_stream(self._get_metadata_path(kwargs.get("rank")), "rb") as file:
            metadata: Metadata = _Unpickler(file).load()
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _Planner(DefaultLoadPlanner):
    """Reads values that are no tensors as plain data."""

    @override
    def load_bytes(self, read_item: ReadItem, value: Any) -> None:
        torch.load(value, weights_only=True)  # refuses anything that is not plain data
        value.seek(0)
        super().load_bytes(read_item, value)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """One process alone is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield
