"""Formats of files: from the bytes of a file to its documents, by the ending of its name; ``.gz`` and ``.zst`` may follow.

A file is read in pieces, however long it, its lines or what it unpacks to are. Only ``.json`` is parsed whole, up to 128 MiB.
"""

import codecs
import csv
import gzip
import importlib
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from typing_extensions import override

from archlab.corpora.notes import Notes
from archlab.errors import ArchlabError

PIECE = 16 << 10
"""Bytes of a document of a single text, at least; at most twice as many, if its lines are longer."""
RECORD_PIECE = 100_000
"""Letters of a document of FASTA, at most: longer records are cut."""
LONGEST = 64 << 20
"""Bytes of a file of a folder that are one document, at most: longer files are cut. Also the longest line of JSON or CSV, and
the longest text of Parquet."""
_LARGEST_JSON = 128 << 20
_MOST_LISTS, _MOST_VALUES, _MOST_CELLS = 1_000_000, 8_000_000, 100_000
"""Lists and objects, and values, of JSON that is parsed at once; cells of a line of a table: memory for more than these would be
many times their text."""
_HEAD = 8 << 10
"""Bytes that tell what a file holds."""
_CHUNK = 1 << 20

DNA = {".fa", ".fasta", ".fna", ".ffn"}

NOT_UTF8 = "texts that are not UTF-8 (their bytes are kept; convert them, as by iconv -f LATIN1 -t UTF-8)"
_BOMS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_UNITS = {"utf-32-le": "<u4", "utf-32-be": ">u4", "utf-16-le": "<u2", "utf-16-be": ">u2"}
_LEAST_LATIN = 0.8
"""Fraction of units that are Latin letters, at least, where UTF-16 or UTF-32 has no byte order mark."""
_ARCHIVES = ("archives", "unpack them")
_IMAGES = ("images", "give their text")
_MAGIC = {
    b"PK\3\4": _ARCHIVES,
    b"\x1f\x8b": ("files of gzip under another name", "name them .gz"),
    b"\x28\xb5\x2f\xfd": ("files of zstd under another name", "name them .zst"),
    b"\xfd7zXZ\0": _ARCHIVES,
    b"BZh91AY&SY": _ARCHIVES,
    b"7z\xbc\xaf\x27\x1c": _ARCHIVES,
    b"Rar!\x1a\x07": _ARCHIVES,
    b"PAR1": ("Parquet files under another name", "name them .parquet"),
    b"%PDF-": ("PDF files", "convert them to text"),
    b"\x89PNG": _IMAGES,
    b"\xff\xd8\xff": _IMAGES,
    b"GIF87a": _IMAGES,
    b"GIF89a": _IMAGES,
    b"\xd0\xcf\x11\xe0": ("office documents", "save them as text, tables as .csv"),
}
_OFFICE = {".xlsx", ".docx", ".pptx", ".ods", ".odt", ".odp"}


class NotTextError(Exception):
    """A file that holds no text: a plural that names its kind, and what to do."""

    def __init__(self, kind: str, fix: str) -> None:
        super().__init__(kind, fix)
        self.kind, self.fix = kind, fix


def file_documents(path: Path, field: str, notes: Notes, *, alone: bool) -> Iterator[bytes]:
    """The documents of a file; ``alone`` says that a text is the whole corpus, so it is cut into pieces.

    Raises:
        ArchlabError: it cannot be read, is not what its name says, or lacks the field.
        NotTextError: it holds no text.
    """
    suffix = suffix_of(path)
    reader = READERS.get(suffix, partial(_text, size=PIECE if alone else LONGEST))
    damaged: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error, *_zstd_errors(path))
    try:
        with _opened(path) as file:
            if suffix == ".parquet":
                yield from reader(file, path, field, notes)
            else:
                with _in_utf8(file, path, notes) as text:
                    yield from reader(text, path, field, notes)
    except damaged as error:
        raise ArchlabError(f"{path} cannot be read: {error}") from None


def suffix_of(path: Path) -> str:
    """The ending of a file's name that tells its format, in small letters; that of compression does not count."""
    return Path(path.stem if path.suffix.lower() in _OPENERS else path.name).suffix.lower()


def _opened(path: Path) -> io.BufferedReader:
    raw = _OPENERS.get(path.suffix.lower(), partial(open, mode="rb", buffering=0))(path)
    return io.BufferedReader(cast(io.RawIOBase, raw), _CHUNK)


def _zstd() -> Any:
    if sys.version_info >= (3, 14):
        return importlib.import_module("compression.zstd")
    return optional_module("backports.zstd", ".zst", package="backports.zstd")


def _zstd_errors(path: Path) -> list[type[Exception]]:
    return [_zstd().ZstdError] if path.suffix.lower() == ".zst" else []


_OPENERS: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".zst": lambda path: _zstd().open(path)}


def _in_utf8(file: io.BufferedReader, path: Path, notes: Notes) -> io.BufferedReader:
    """The file without a byte order mark, from UTF-16 and UTF-32 translated; raises NotTextError if it is neither text."""
    head = file.peek(_HEAD)[:_HEAD]
    if head.startswith(codecs.BOM_UTF8):
        file.read(len(codecs.BOM_UTF8))
        return file
    encoding = next((name for mark, name in _BOMS.items() if head.startswith(mark)), None)
    if encoding is None and b"\0" in head:
        encoding = next((name for name, unit in _UNITS.items() if _is_latin(head, unit)), None)
    if encoding is not None:
        notes.add(f"texts in {encoding[:6].upper()}, translated to UTF-8", path)
        return io.BufferedReader(_Translated(file, encoding, path), _CHUNK)
    for magic, (kind, fix) in _MAGIC.items():
        if head.startswith(magic):
            raise NotTextError(*_MAGIC[b"\xd0\xcf\x11\xe0"] if path.suffix.lower() in _OFFICE else (kind, fix))
    if head[257:262] == b"ustar":
        raise NotTextError(*_ARCHIVES)
    if b"\0" in head:
        raise NotTextError("binary files", "save them as text")
    return file


def _is_latin(head: bytes, unit: str) -> bool:
    units = np.frombuffer(head[: len(head) // 4 * 4], unit)
    letters = np.isin(units, list(b"\t\n\r")) | ((units >= 32) & (units < 256))
    return len(units) > 0 and bool(letters.mean() >= _LEAST_LATIN)


class _Translated(io.RawIOBase):
    """A file of another encoding, read as UTF-8."""

    def __init__(self, file: io.BufferedReader, encoding: str, path: Path) -> None:
        self.file, self.path, self.encoding = file, path, encoding
        self.decoder = codecs.getincrementaldecoder(encoding)()
        self.ready = b""

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any) -> int:
        ended = False
        while not self.ready and not ended:
            chunk = self.file.read(_CHUNK)
            ended = not chunk
            try:
                self.ready = self.decoder.decode(chunk, final=ended).encode()
            except UnicodeError as error:
                raise ArchlabError(f"{self.path}: not {self.encoding.upper()}, though it begins so: {error}") from None
        number = min(len(buffer), len(self.ready))
        buffer[:number] = self.ready[:number]
        self.ready = self.ready[number:]
        return number


def _text(file: BinaryIO, path: Path, field: str, notes: Notes, *, size: int) -> Iterator[bytes]:
    """Pieces of a text, of at least ``size`` bytes and as long again at most, cut at a line end if there is one."""
    place = 0
    while piece := file.read(size):
        piece += file.readline(size)
        piece += file.read(_missing(piece))
        try:
            piece.decode()
        except UnicodeDecodeError as error:
            notes.add(NOT_UTF8, f"{path}, byte {place + error.start}")
        place += len(piece)
        yield piece


def _missing(text: bytes) -> int:
    """Bytes that the last character of a text in UTF-8 lacks."""
    for back, byte in enumerate(reversed(text[-3:]), start=1):
        if byte >= 0xC0:
            return max(0, (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4) - back)
        if byte < 0x80:
            return 0
    return 0


def _fasta(file: BinaryIO, path: Path, field: str, notes: Notes) -> Iterator[bytes]:
    record = bytearray()
    in_record = in_name = False
    begins = True  # a line; its rest is in the next chunk if it is long
    while chunk := file.read(_CHUNK):
        for part in chunk.splitlines(keepends=True):  # lines may end by carriage returns alone
            line = part.strip()
            ends = part[-1:] in b"\n\r"
            if begins and line.startswith(b">"):
                if record:
                    yield bytes(record)
                record.clear()
                in_record = in_name = True
            elif line and not in_record:
                raise ArchlabError(
                    f"{path}: not FASTA: a record begins with a line that starts with >, this one with {line[:20]!r}"
                )
            elif not in_name:
                record += part.translate(None, b" \t\r\n\v\f").upper()
                while len(record) >= RECORD_PIECE:
                    yield bytes(record[:RECORD_PIECE])
                    del record[:RECORD_PIECE]
            begins = ends or (begins and not line)
            in_name = in_name and not ends
    if record:
        yield bytes(record)


def _json_lines(file: Iterable[bytes], path: Path, field: str, notes: Notes) -> Iterator[bytes]:
    for number, line in enumerate(_lines(file, path), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            row = _parsed(line, where)
            if not isinstance(row, dict):
                raise ArchlabError(f"{where}: give an object a line, as in {{{field!r}: '...'}}")
            yield from text_of(row, field, where, notes)


def _json(file: BinaryIO, path: Path, field: str, notes: Notes) -> Iterator[bytes]:
    """An array of rows, an object with one, a single row, or a row a line."""
    start = file.readline(LONGEST)
    try:
        by_line = isinstance(_parsed(start, ""), dict)
    except ArchlabError:
        by_line = False
    following = next((line for line in iter(lambda: file.readline(LONGEST), b"") if line.strip()), b"")
    if by_line and following:
        yield from _json_lines(chain([start, following], iter(partial(file.readline, LONGEST + 1), b"")), path, field, notes)
        return
    data = start + following + file.read(_LARGEST_JSON)
    if len(data) >= _LARGEST_JSON:
        raise ArchlabError(f"{path}: longer than {_LARGEST_JSON >> 20} MiB: write a row a line, in .jsonl, as by jq -c '.[]'")
    if not data.strip():
        return
    found = _parsed(data, str(path))
    if isinstance(found, dict):
        tables = [value for value in found.values() if _are_rows(value)]
        found = tables[0] if len(tables) == 1 and field not in found else [found] if field in found else None
    if not _are_rows(found):
        raise NotTextError(f"JSON files without rows of field {field!r}", "give an array of objects, or another field by #field=")
    for number, row in enumerate(found, start=1):
        yield from text_of(row, field, f"{path}, row {number}", notes)


def _are_rows(value: Any) -> bool:
    return isinstance(value, list) and value != [] and all(isinstance(row, dict) for row in value)


def _parsed(text: bytes, where: str) -> Any:
    if text.count(b"[") + text.count(b"{") > _MOST_LISTS or text.count(b",") > _MOST_VALUES:
        raise ArchlabError(f"{where}: more than {_MOST_LISTS:,} lists and objects, or {_MOST_VALUES:,} values: cut it")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArchlabError(f"{where}: not JSON that can be read: {error}") from None


def _table(file: BinaryIO, path: Path, field: str, notes: Notes, *, delimiter: str) -> Iterator[bytes]:
    def decoded() -> Iterator[str]:
        for number, line in enumerate(_lines(file, path), start=1):
            if line.count(delimiter.encode()) > _MOST_CELLS:
                raise ArchlabError(f"{path}, line {number}: more than {_MOST_CELLS:,} cells: leave out all but the text")
            try:
                yield line.decode()
            except UnicodeDecodeError as error:
                fix = "convert it, as by iconv -f LATIN1 -t UTF-8"
                raise ArchlabError(f"{path}, line {number}, byte {error.start}: not UTF-8: {fix}") from None

    csv.field_size_limit(LONGEST)
    rows = csv.DictReader(decoded(), delimiter=delimiter)
    try:
        if rows.fieldnames:
            check_field(rows.fieldnames, field, f"{path}, line 1")
        for row in rows:
            yield from text_of(row, field, f"{path}, line {rows.line_num}", notes)
    except csv.Error as error:
        raise ArchlabError(f"{path}, line {rows.line_num}: not a table that can be read: {error}") from None


def _lines(file: BinaryIO | Iterable[bytes], path: Path) -> Iterator[bytes]:
    lines = iter(partial(file.readline, LONGEST + 1), b"") if isinstance(file, io.IOBase) else iter(file)
    for number, line in enumerate(lines, start=1):
        if len(line) > LONGEST:
            raise _too_long(f"{path}, line {number}:")
        yield line


def _parquet(file: BinaryIO, path: Path, field: str, notes: Notes) -> Iterator[bytes]:
    parquet = optional_module("pyarrow.parquet", f"{path}: Parquet")
    types = importlib.import_module("pyarrow").types
    try:
        # A text that many rows share is in memory once, as it is in the file.
        with parquet.ParquetFile(file, read_dictionary=[field]) as table:
            schema = table.schema_arrow
            check_field(schema.names, field, str(path))
            kind = getattr(schema.field(field).type, "value_type", schema.field(field).type)
            if not (types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind)):
                raise not_text(
                    str(schema.field(field).type), field, [x.name for x in schema if types.is_string(x.type)], str(path)
                )
            for rows in table.iter_batches(batch_size=256, columns=[field]):
                for value in rows.column(0):
                    text = value.as_py()
                    if text is not None and len(text) > LONGEST:
                        raise _too_long(f"{path}: a row is")
                    yield from text_of({field: text}, field, str(path), notes)
    except ArchlabError:
        raise
    except ValueError as error:  # pyarrow's errors are ValueErrors
        raise ArchlabError(f"{path}: not Parquet: {error}") from None


def _too_long(what: str) -> ArchlabError:
    return ArchlabError(f"{what} longer than {LONGEST >> 20} MiB: cut its text into several rows")


READERS: dict[str, Callable[..., Iterator[bytes]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": partial(_table, delimiter=","),
    ".tsv": partial(_table, delimiter="\t"),
    ".parquet": _parquet,
    **dict.fromkeys([*DNA, ".faa"], _fasta),
}
"""Reader by ending: it takes the open file, its path, the field of rows and notes. Every other file is text."""


def text_of(row: Mapping[str, Any], field: str, where: str, notes: Notes) -> Iterator[bytes]:
    """The text of a row, or nothing if it is null; an ArchlabError says that there is no such field, or no text in it."""
    check_field(row, field, where)
    text = row[field]
    if text is None:
        notes.add(f"rows left out whose field {field!r} is null", where)
    elif isinstance(text, str):
        yield text.encode(errors="replace")  # JSON can hold half of a surrogate pair, which UTF-8 cannot
    else:
        raise not_text(type(text).__name__, field, [name for name, value in row.items() if isinstance(value, str)], where)


def check_field(fields: Iterable[str], field: str, where: str) -> None:
    """Refuse a field that is not among those that there are."""
    if field not in (known := list(fields)):
        raise ArchlabError(f"{where}: no field {field!r}: it has {_listed(known)}: choose one by #field=")


def not_text(kind: str, field: str, texts: list[str], where: str) -> ArchlabError:
    """The error for a field of another type."""
    return ArchlabError(f"{where}: field {field!r} holds {kind}, not text: choose another one by #field=: {_listed(texts)}")


def _listed(names: list[str]) -> str:
    return ", ".join(map(str, names[:20])) + (", ..." if len(names) > 20 else "") or "none"


def optional_module(name: str, what: str, *, package: str = "") -> Any:
    """A module of the ``hf`` extra; an ArchlabError says what needs one that is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        needed = package or name.partition(".")[0]
        raise ArchlabError(f"{what} needs the package {needed}: pip install 'archlab[hf]'") from None
