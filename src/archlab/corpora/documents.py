"""Where text comes from: the standard library, files and folders, Hugging Face datasets; document by document, as bytes.

A source is written ``PLACE`` or ``PLACE#option=value,option=value``::

    stdlib                                      the running Python's standard library, one module a document
    books/                                      a folder: one file a document
    shakespeare.txt                             a text: pieces of 16 KiB, cut at line ends, are its documents
    pile.jsonl.zst#field=text                   rows of a table; also .json, .csv, .tsv, .parquet
    genome.fa, proteins.faa                     FASTA: records, cut after 100,000 letters, in upper case
    hf:roneneldan/TinyStories#max_bytes=1e9     streamed from Hugging Face (config=..., split=...)

``max_bytes`` stops at so many bytes, anywhere. A path that holds ``#`` is taken for one if it exists.
"""

import hashlib
import os
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from archlab.corpora.formats import DNA, NotTextError, file_documents, optional_module, suffix_of, text_of
from archlab.corpora.notes import Notes
from archlab.errors import ArchlabError, unknown

_OPTIONS = {"field": "text", "max_bytes": "", "config": "", "split": "train"}


def split_sources(text: str) -> list[str]:
    """Sources that are separated by commas, as are the options of each: a piece that is an option belongs to the one before."""
    sources: list[str] = []
    for piece in filter(None, text.split(",")):
        if sources and "#" in sources[-1] and piece.partition("=")[0] in _OPTIONS:
            sources[-1] += f",{piece}"
        else:
            sources.append(piece)
    return sources


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
        return not self.is_remote and all(suffix_of(path) in DNA for path in self.files)

    @property
    def files(self) -> list[Path]:
        """The files of a local source, in order; an ArchlabError says that there is none."""
        return [path for path, left_out in self._found if not left_out]

    @cached_property
    def _found(self) -> list[tuple[Path, str]]:
        """Paths in order, with the reason why one is left out."""
        root = Path(os.path.expanduser(sysconfig.get_path("stdlib") if self.place == "stdlib" else self.place))
        if os.path.isfile(root):
            return [(root, "")]
        if not os.path.isdir(root):
            raise ArchlabError(f"corpus {self.place}: no such file or folder: give one, stdlib, or hf:NAME")
        if self.place == "stdlib":
            modules = (path for path in root.rglob("*.py") if not {"site-packages", "dist-packages"} & set(path.parts))
            return [(path, "") for path in sorted(modules)]
        found = sorted(_walked(root, self.place))
        if all(left_out for _, left_out in found):
            hidden = f" but {len(found)} that are hidden or links" if found else ""
            raise ArchlabError(f"corpus {self.place}: the folder has no files{hidden}: it is empty")
        return found

    def fingerprint(self) -> str:
        """Changes when the source does, as far as names, sizes and times of files tell."""
        if self.is_remote:
            return self.text
        facts = [f"{path.absolute()} {(stat := path.stat()).st_size} {stat.st_mtime_ns}" for path in self.files]
        return hashlib.sha256("\n".join([self.text, *facts]).encode(errors="surrogateescape")).hexdigest()

    def documents(self, notes: Notes | None = None) -> Iterator[bytes]:
        """Every document that is not empty, until ``max_bytes`` are read; the last is cut there.

        Documents with NUL bytes are left out: NUL ends a document in the tokenizers ``bytes`` and ``ascii``. ``notes`` takes
        what is left out or changed. An ArchlabError says that a file or dataset cannot be read, or lacks the field.
        """
        notes = Notes() if notes is None else notes
        left = self.max_bytes
        for where, document in _hugging_face(self, notes) if self.is_remote else self._local_documents(notes):
            if b"\0" in document:
                notes.add("documents with NUL bytes left out", where)
            elif document:
                yield document if len(document) <= left else document[: int(left)]
                left -= len(document)
                if left < 1:
                    return

    def _local_documents(self, notes: Notes) -> Iterator[tuple[str, bytes]]:
        for path, left_out in self._found:
            if left_out:
                notes.add(left_out, path)
        files = self.files
        refused: NotTextError | None = None
        taken = 0
        for path in files:
            try:
                for document in file_documents(path, self.field, notes, alone=len(files) == 1):
                    yield str(path), document
                taken += 1
            except NotTextError as reason:
                refused = reason
                notes.add(f"{reason.kind} left out ({reason.fix})", path)
        if refused and not taken:
            raise ArchlabError(f"corpus {self.place} has no text: {refused.kind} are not read: {refused.fix}")


def _walked(root: Path, place: str) -> Iterator[tuple[Path, str]]:
    """Every file below a folder, with the reason why it is left out."""

    def fail(error: OSError) -> None:
        raise ArchlabError(f"corpus {place}: {error.filename} cannot be read: {error.strerror}")

    for folder, inner, files in os.walk(root, onerror=fail):
        for name in [*files, *inner]:
            path = Path(folder, name)
            if name.startswith("."):
                yield path, "hidden files and folders left out"
            elif path.is_dir():
                if path.is_symlink():
                    yield path, "links to folders left out (give the folder itself)"
            elif not path.exists():
                yield path, "links that lead nowhere left out"
            elif path.is_file():
                yield path, ""
        inner[:] = [name for name in inner if not name.startswith(".")]


def _hugging_face(source: Source, notes: Notes) -> Iterator[tuple[str, bytes]]:
    datasets = optional_module("datasets", source.place)
    name = source.place.removeprefix("hf:")
    try:
        rows = datasets.load_dataset(name, source.config or None, split=source.split, streaming=True)
        for number, row in enumerate(rows):
            where = f"{source.place}, row {number}"
            for document in text_of(row, source.field, where, notes):
                yield where, document
    except ArchlabError:
        raise
    except Exception as error:  # the package raises whatever its many readers and the network do
        raise ArchlabError(f"corpus {source.text}: {type(error).__name__}: {error}") from error
