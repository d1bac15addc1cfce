"""Where text comes from: the standard library, files and folders, Hugging Face datasets; document by document, as bytes.

A source is written ``PLACE`` or ``PLACE#option=value,option=value``::

    stdlib                                      the running Python's standard library, one module a document
    books/                                      a folder: one file a document
    shakespeare.txt                             a text: pieces of 16 KiB, cut at line ends, are its documents
    pile.jsonl.gz#field=text                    one object a line; also .parquet
    genome.fa, proteins.faa                     FASTA: one record a document, letters in upper case
    hf:roneneldan/TinyStories#max_bytes=1e9     streamed from Hugging Face (config=..., split=...)

``max_bytes`` stops at so many bytes, anywhere. A path that holds ``#`` is taken for one if it exists.
"""

import gzip
import hashlib
import importlib
import json
import os
import sysconfig
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from archlab.errors import ArchlabError, unknown

PIECE = 16 << 10
"""Bytes of a document of a single text, at least; at most twice as many, if its lines are longer."""
_OPTIONS = {"field": "text", "max_bytes": "", "config": "", "split": "train"}
_DNA = {".fa", ".fasta", ".fna", ".ffn"}
_FASTA = {*_DNA, ".faa"}


@dataclass(frozen=True)
class Source:
    """A place that documents come from, in the same order each time it is read."""

    text: str
    """As it was written."""
    place: str
    field: str
    max_bytes: float
    config: str
    split: str

    @classmethod
    def parse(cls, text: str) -> "Source":
        """Read ``PLACE#option=value,...``; looks for a file of that name only where there are several readings.

        An ArchlabError says that an option is unknown or has no fitting value.
        """
        parts = text.split("#")
        readings = [("#".join(parts[:end]), "#".join(parts[end:])) for end in range(len(parts), 0, -1)]
        # a file whose name is too long, as no path can be, does not exist either
        found = (reading for reading in readings[:-1] if os.path.exists(os.path.expanduser(reading[0])))
        place, options = next(found, readings[-1])
        if not place:
            raise ArchlabError(f"corpus {text!r}: give stdlib, a file, a folder, or hf:NAME")
        given = dict(_OPTIONS)
        for option in filter(None, options.split(",")):
            name, equals, value = option.partition("=")
            if name not in _OPTIONS:
                raise unknown(f"option of corpus {place}:", name, _OPTIONS)
            if not (equals and value):
                raise ArchlabError(f"corpus {text}: {name} has no value: write {place}#{name}=...")
            given[name] = value
        try:
            max_bytes = float(given["max_bytes"] or "inf")
        except ValueError:
            max_bytes = 0.0
        if not max_bytes > 0:
            raise ArchlabError(f"corpus {text}: max_bytes={given['max_bytes']}: give a positive number, as in max_bytes=1e9")
        return cls(text, place, given["field"], max_bytes, given["config"], given["split"])

    @property
    def is_remote(self) -> bool:
        """Read over a network: reading twice costs twice."""
        return self.place.startswith("hf:")

    @property
    def is_dna(self) -> bool:
        """All its documents are records of FASTA files whose names do not say proteins."""
        return not self.is_remote and all(_suffix(path) in _DNA for path in self.files)

    @cached_property
    def files(self) -> list[Path]:
        """The files of a local source, in order; an ArchlabError says that there is none."""
        root = Path(os.path.expanduser(sysconfig.get_path("stdlib") if self.place == "stdlib" else self.place))
        if os.path.isfile(root):
            return [root]
        if not os.path.isdir(root):
            raise ArchlabError(f"corpus {self.place}: no such file or folder: give one, stdlib, or hf:NAME")
        if self.place == "stdlib":
            found = (path for path in root.rglob("*.py") if not {"site-packages", "dist-packages"} & set(path.parts))
        else:
            found = (p for p in root.rglob("*") if p.is_file() and not any(x.startswith(".") for x in p.relative_to(root).parts))
        if not (files := sorted(found)):
            raise ArchlabError(f"corpus {self.place}: the folder has no files: it is empty")
        return files

    def fingerprint(self) -> str:
        """Changes when the source does, as far as names, sizes and times of files tell."""
        if self.is_remote:
            return self.text
        facts = [f"{path.absolute()} {(stat := path.stat()).st_size} {stat.st_mtime_ns}" for path in self.files]
        return hashlib.sha256("\n".join([self.text, *facts]).encode()).hexdigest()

    def documents(self) -> Iterator[bytes]:
        """Every document that is not empty, until ``max_bytes`` are read; the last is cut there.

        An ArchlabError says that a file or dataset cannot be read, or lacks the field.
        """
        left = self.max_bytes
        for document in filter(None, _hugging_face(self) if self.is_remote else self._local_documents()):
            yield document if len(document) <= left else document[: int(left)]
            left -= len(document)
            if left < 1:
                return

    def _local_documents(self) -> Iterator[bytes]:
        for path in self.files:
            try:
                yield from _file_documents(path, self.field, alone=len(self.files) == 1)
            except (OSError, EOFError, zlib.error) as error:
                raise ArchlabError(f"corpus {self.place}: {path} cannot be read: {error}") from None


def _file_documents(path: Path, field: str, *, alone: bool) -> Iterator[bytes]:
    suffix = _suffix(path)
    if suffix == ".parquet":
        yield from _parquet(path, field)
        return
    with gzip.open(path) if _is_packed(path) else path.open("rb") as file:
        if suffix in _FASTA:
            yield from _fasta(file, path)
        elif suffix == ".jsonl":
            yield from _json_lines(file, path, field)
        elif alone:
            while piece := file.read(PIECE):
                yield piece + file.readline(PIECE)
        else:
            yield file.read()


def _suffix(path: Path) -> str:
    return Path(path.stem if _is_packed(path) else path.name).suffix.lower()


def _is_packed(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def _fasta(lines: Iterable[bytes], path: Path) -> Iterator[bytes]:
    record: list[bytes] | None = None
    # lines may end by carriage returns alone
    for number, line in enumerate(chain.from_iterable(map(bytes.splitlines, lines)), start=1):
        line = line.strip()
        if line.startswith(b">"):
            if record is not None:
                yield b"".join(record)
            record = []
        elif line and record is None:
            raise ArchlabError(f"{path}, line {number}: not FASTA: a record begins with a line that starts with >")
        elif record is not None:
            record.append(line.upper())
    yield b"".join(record or [])


def _json_lines(lines: Iterable[bytes], path: Path, field: str) -> Iterator[bytes]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ArchlabError(f"{path}, line {number}: not JSON that can be read: {error}") from None
        if not isinstance(row, dict):
            raise ArchlabError(f"{path}, line {number}: give an object a line, as in {{{field!r}: '...'}}")
        yield _text_of(row, field, f"{path}, line {number}")


def _parquet(path: Path, field: str) -> Iterator[bytes]:
    parquet = optional_module("pyarrow.parquet", f"{path}: Parquet")
    try:
        file = parquet.ParquetFile(path)
    except ValueError as error:  # pyarrow's errors are ValueErrors
        raise ArchlabError(f"{path}: not Parquet: {error}") from None
    with file:
        if field not in file.schema_arrow.names:
            raise unknown(f"column of {path}:", field, file.schema_arrow.names)
        for rows in file.iter_batches(columns=[field]):
            for row in rows.to_pylist():
                yield _text_of(row, field, str(path))


def _hugging_face(source: Source) -> Iterator[bytes]:
    datasets = optional_module("datasets", source.place)
    name = source.place.removeprefix("hf:")
    try:
        rows = datasets.load_dataset(name, source.config or None, split=source.split, streaming=True)
        for row in rows:
            yield _text_of(row, source.field, source.place)
    except ArchlabError:
        raise
    except Exception as error:  # the package raises whatever its many readers and the network do
        raise ArchlabError(f"corpus {source.text}: {type(error).__name__}: {error}") from error


def _text_of(row: dict[str, Any], field: str, where: str) -> bytes:
    if field not in row:
        raise unknown(f"field of {where}:", field, map(str, row))
    text = row[field]
    if not isinstance(text, str):
        raise ArchlabError(f"{where}: field {field!r} holds {type(text).__name__}, not text: choose another one by #field=")
    return text.encode(errors="replace")  # JSON can hold half of a surrogate pair, which UTF-8 cannot


def optional_module(name: str, what: str) -> Any:
    """A module of the ``hf`` extra; an ArchlabError says what needs one that is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ArchlabError(f"{what} needs the package {name.partition('.')[0]}: pip install 'archlab[hf]'") from None
