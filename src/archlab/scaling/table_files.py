"""Tables in files: CSV and its relatives, JSON, Parquet; and numbers as people write them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from decimal import Decimal
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from archlab.errors import ArchlabError

if TYPE_CHECKING:
    import pandas as pd

Comma = Literal["decimal", "thousands"]
ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
_LARGEST = 64 << 20
_LONGEST_NUMBER = 100
DELIMITERS = ",;\t|"
MULTIPLES = {
    word: factor
    for words, factor in (
        ("k thousand thousands 1e3", 1e3),
        ("m mn million millions 1e6", 1e6),
        ("b bn g billion billions 1e9", 1e9),
        ("t tn trillion trillions 1e12", 1e12),
        ("pflop pflops petaflop petaflops", 1e15),
        ("eflop eflops exaflop exaflops", 1e18),
        ("zflop zflops zettaflop zettaflops", 1e21),
    )
    for word in words.split()
}
"""Factors of a number by the word behind it, or by that in the head of its column."""
_NO_VALUE = "- -- – — ? na n/a #n/a nan null none inf +inf -inf infinity diverged failed crashed oom"
NO_VALUE = {"", *_NO_VALUE.split()}
"""Cells that stand for no value, in lower case."""
UNITS = {"", "flop", "flops", "param", "params", "parameters", "tokens", "nats"}
"""Words behind a number that change nothing."""
_POWER = r"10\s*(?:\^|\*\*)\s*(?P<power>[+-]?\d+)"
_NUMBER = re.compile(
    rf"(?:(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)(?:\s*[x×*·]\s*{_POWER})?|{_POWER.replace('power', 'alone')})"
    r"\s*(?P<multiple>[a-z]*)\s*(?P<unit>[a-z]*)",
    re.IGNORECASE,
)


def read_table(path: Path) -> pd.DataFrame:
    """Read a table of strings, numbers and None, with columns of different names and at least one row; empty rows are left out.

    CSV may have any usual delimiter, a byte order mark, and comments before its head; JSON is rows, a row a line, or columns.
    ``.gz`` may follow the ending. An ArchlabError names the file and what is wrong with it.
    """
    import pandas as pd

    endings = [ending.lower() for ending in path.suffixes]
    packed = endings[-1:] == [".gz"]
    ending = next(iter(endings[-2:-1] if packed else endings[-1:]), "")
    if ending not in ENDINGS:
        raise ArchlabError(f"{path}: give a table as {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    try:
        if ending == ".parquet":
            frame = _parquet(path)
            frame = frame.reset_index() if any(name is not None for name in frame.index.names) else frame
        else:
            with gzip.open(path) if packed else path.open("rb") as file:
                data = file.read(_LARGEST + 1)
            if len(data) > _LARGEST:
                raise _too_large(path)
            read = _delimited if ending in (".csv", ".tsv") else _json
            frame = pd.DataFrame(read(_decoded(data)), dtype=object)
    except ImportError:
        raise ArchlabError(f"{path}: Parquet needs pyarrow: pip install 'archlab[hf]', or save the table as CSV") from None
    except ArchlabError:
        raise
    except Exception as error:  # whatever a file of somebody else makes its readers do
        reason = (error.strerror or "").lower() if isinstance(error, OSError) else ""
        raise ArchlabError(f"{path}: cannot be read: {reason or ' '.join(str(error).split())[:200]}") from None
    frame = frame.astype(object).where(frame.notna(), None)
    frame.columns = pd.Index(_different([" ".join(str(name).split()) for name in frame.columns]))
    frame = frame[~frame.map(lambda cell: cell is None or str(cell).strip() == "").all(axis=1)].reset_index(drop=True)
    if frame.empty:
        raise ArchlabError(f"{path}: the table has no rows")
    return frame


def _too_large(path: Path) -> ArchlabError:
    return ArchlabError(f"{path}: longer than {_LARGEST >> 20} MiB: leave out what are no training runs")


def _parquet(path: Path) -> pd.DataFrame:
    """A table in Parquet: a value that many rows share is in memory once, as it is in the file."""
    from pyarrow import parquet, types  # type: ignore[import-not-found,unused-ignore]

    with parquet.ParquetFile(path) as file:
        schema, size = file.schema_arrow, sum(file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups))
        if max(size, 8 * file.metadata.num_rows * len(schema)) > _LARGEST:
            raise _too_large(path)
        texts = [field.name for field in schema if types.is_string(field.type) or types.is_binary(field.type)]
    with parquet.ParquetFile(path, read_dictionary=texts) as file:
        frame: pd.DataFrame = file.read().to_pandas()
        return frame


def _decoded(data: bytes) -> str:
    coded = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(coded)
    except UnicodeDecodeError as error:
        coded = coded.removesuffix("-sig").upper()
        raise ValueError(f"byte {error.start + 1} is no text in {coded}: save the table as UTF-8") from None
    if "\0" in text:
        raise ValueError("it is no text: save the table as CSV")
    return text


def _delimited(text: str) -> dict[str, list[str]]:
    """The columns of a CSV file, by name."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    start, comment = 0, ""
    while start < len(lines) and (not lines[start].strip() or re.match(r"\s*#|sep=.$", lines[start])):
        comment = lines[start].strip().removeprefix("# ") or comment
        start += 1
    body = lines[start:]
    if not body:
        return {}

    def split(line: str, delimiter: str) -> list[str]:
        return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])

    delimiter = max(DELIMITERS, key=lambda one: len(split(body[0], one)))
    if len(split(body[0], delimiter)) == 1 and '"' not in text:  # columns of text, as numpy writes them
        body, comment, delimiter = ["\t".join(line.split()) for line in body], "\t".join(comment.split()), "\t"
    named, first = split(comment, delimiter), split(body[0], delimiter)
    if len(named) == len(first) > 1 and any(not math.isnan(number_of(cell)) for cell in first):
        body.insert(0, comment)  # a head behind #, as numpy writes it
        start -= 1
    rows = csv.reader(io.StringIO("\n".join(body)), delimiter=delimiter, skipinitialspace=True, strict=True)
    head = next(rows)
    while len(head) > 1 and not head[-1].strip():  # a delimiter at the end of every line
        head.pop()
    names = _different([name.strip() or f"column {place}" for place, name in enumerate(head, start=1)])
    columns: dict[str, list[str]] = {name: [] for name in names}
    for row in rows:
        if any(cell.strip() for cell in row[len(head) :]):
            raise ValueError(
                f"line {start + rows.line_num} has {len(row)} cells, the head {len(head)}: put cells with {delimiter!r} in quotes"
            )
        for cell, column in zip(row + [""] * (len(head) - len(row)), columns.values(), strict=False):
            column.append(cell.strip())
    return columns


def _different(names: list[str]) -> list[str]:
    """The names, with a number behind those that come again."""
    found: dict[str, None] = {}
    last: dict[str, int] = {}
    for name in names:
        number = last.get(name, 0) + 1
        while (new := name if number == 1 else f"{name} ({number})") in found:
            number += 1
        last[name] = number
        found[new] = None
    return [*found]


def _json(text: str) -> list[dict[str, Any]] | dict[str, Any]:
    """Rows with dotted names for what is nested, or columns by name."""
    try:
        document = json.loads(text)
    except ValueError:
        document = [_line(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if isinstance(document, dict):
        lists = [value for value in document.values() if isinstance(value, list)]
        tables = [value for value in lists if value and all(isinstance(row, dict) for row in value)]
        if {"columns", "data"} <= document.keys():
            return [dict(zip(document["columns"], row, strict=True)) for row in document["data"]]
        if len(tables) == 1:
            document = tables[0]
        elif len(lists) == len(document):
            return document
        elif all(isinstance(column, dict) for column in document.values()):
            return {name: list(column.values()) for name, column in document.items()}
        else:
            document = [document]
    if not (isinstance(document, list) and all(isinstance(row, dict) for row in document)):
        raise ValueError("give a list of objects, or an object a line")
    return [dict(_flat(row)) for row in document]


def _line(number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise ValueError(f"line {number} is no JSON: {error}") from None


def _flat(row: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _is_short(cell: Any) -> bool:
    """Whether a cell is text that may be a number: patterns take forever on text of pages."""
    return isinstance(cell, str) and len(cell) <= _LONGEST_NUMBER


def comma_of(counts: Iterable[Any], losses: Iterable[Any]) -> Comma:
    """Return what commas in the numbers of a table stand for; an ArchlabError says that they stand for both.

    A comma in a loss is decimal, for none is in the thousands.
    """

    def first(pattern: str, cells: Iterable[Any]) -> str | None:
        return next((cell for cell in cells if _is_short(cell) and re.fullmatch(pattern, cell.strip(), re.IGNORECASE)), None)

    counts = list(counts)
    decimal = first(r"[+-]?\d*,\d+(?:e[+-]?\d+)?", losses) or first(
        r"[+-]?(?:0|\d{4,})?,\d+|[+-]?\d+,(?!\d{3}$)\d+(?:e[+-]?\d+)?|[+-]?\d{1,3}(?:\.\d{3})+,\d+", counts
    )
    thousands = first(r"[+-]?\d{1,3}(?:,\d{3}){2,}(?:\.\d*)?|[+-]?\d{1,3},\d{3}\.\d*", counts)
    if decimal and thousands:
        raise ArchlabError(f"a comma is decimal in {decimal} and separates thousands in {thousands}: write numbers with a point")
    return "decimal" if decimal else "thousands"


def number_of(cell: Any, comma: Comma = "thousands") -> float:
    """Return a cell as a number: 1,400,000 and 1.4M and 1.4e6 and 1.4 x 10^6 are equal; NaN for what is none."""
    if not isinstance(cell, str):
        with suppress(OverflowError):
            return math.nan if isinstance(cell, bool) or not isinstance(cell, Real | Decimal) else float(cell)
        return math.inf
    if not _is_short(cell):
        return math.nan
    text = re.sub(r"(?<=\d)[\s_'’](?=\d{3})", "", cell.strip())
    mark, other = (",", ".") if comma == "decimal" else (".", ",")
    if re.match(rf"[+-]?\d{{1,3}}(?:\{other}\d{{3}})+(?!\d)", text) and (
        mark in text or comma == "thousands" or text.count(other) > 1
    ):
        text = text.replace(other, "")
    elif re.match(r"[+-]?\d{1,3}(?:\.\d{3}){2,}(?!\d)", text):
        text = text.replace(".", "")
    found = _NUMBER.fullmatch(text.replace(",", ".") if comma == "decimal" else text)
    multiple = found and (MULTIPLES.get(found["multiple"].lower()) or (1.0 if found["multiple"].lower() in UNITS else None))
    if found is None or multiple is None or found["unit"].lower() not in UNITS:
        return math.nan
    with suppress(OverflowError):
        return float(found["number"] or 1) * 10.0 ** int(found["power"] or found["alone"] or 0) * multiple
    return math.inf
