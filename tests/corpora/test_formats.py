"""Formats of files, and what is no text."""

import csv
import gzip
import io
import itertools
import json
import random
import sys
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from archlab.corpora import formats, prepare
from archlab.corpora.documents import Source
from archlab.corpora.notes import Notes
from archlab.errors import ArchlabError

TEXTS = [f"text {n}, of several\n\"lines\" and 'marks'\n" * (n % 3 + 1) for n in range(30)]


def read(source: Path | str) -> tuple[list[bytes], list[str]]:
    """Documents and notes."""
    notes = Notes()
    return list(Source.parse(str(source)).documents(notes)), notes.lines()


def rows_of_json(indent: int | None = None) -> bytes:
    return json.dumps([{"id": n, "text": text} for n, text in enumerate(TEXTS)], indent=indent).encode()


def table(delimiter: str) -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([("id", "text"), *enumerate(TEXTS)])
    return text.getvalue().encode()


LINES = b"\n".join(json.dumps({"id": n, "text": text}).encode() for n, text in enumerate(TEXTS))
FORMATS = {
    "x.jsonl": LINES,
    "x.ndjson": LINES,
    "lines.json": LINES,  # as in C4
    "array.json": rows_of_json(),
    "indented.json": rows_of_json(indent=1),
    "object.json": b'{"version": 1, "rows": ' + rows_of_json() + b"}",
    "x.csv": table(","),
    "marked.csv": b"\xef\xbb\xbf" + table(","),
    "x.tsv": table("\t"),
}


def zstd_module():
    return pytest.importorskip("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
def test_rows_of_every_format_are_documents(name: str, packing: str, tmp_path: Path):
    pack: Callable[[bytes], bytes] = {"": bytes, ".gz": gzip.compress}.get(packing) or zstd_module().compress
    (tmp_path / f"{name}{packing}").write_bytes(pack(FORMATS[name]))
    assert read(tmp_path / f"{name}{packing}") == ([text.encode() for text in TEXTS], [])


def test_an_object_may_be_a_row(tmp_path: Path):
    (tmp_path / "x.json").write_text('{\n"text": "alone", "tags": [{"a": 1}]}')
    assert read(tmp_path / "x.json")[0] == [b"alone"]


@pytest.mark.parametrize("packing", [".gz", ".zst"])
def test_a_cut_archive_is_named(packing: str, tmp_path: Path):
    whole = (gzip.compress if packing == ".gz" else zstd_module().compress)(random.Random(0).randbytes(10**5).hex().encode())
    (tmp_path / f"x.txt{packing}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArchlabError, match=rf"x\.txt{packing} cannot be read"):
        read(tmp_path / f"x.txt{packing}")


def test_a_damaged_archive_of_zstd_is_named(tmp_path: Path):
    whole = bytearray(zstd_module().compress(LINES))
    whole[20:60] = bytes(40)
    (tmp_path / "x.jsonl.zst").write_bytes(whole)
    with pytest.raises(ArchlabError, match=r"x\.jsonl\.zst cannot be read"):
        read(tmp_path / "x.jsonl.zst")


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python has a module for it")
def test_the_package_for_zstd_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "backports.zstd", None)
    (tmp_path / "x.jsonl.zst").write_bytes(b"")
    with pytest.raises(ArchlabError, match=r"needs the package backports\.zstd: pip install 'archlab\[hf\]'"):
        read(tmp_path / "x.jsonl.zst")


def archive(kind: str) -> bytes:
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as made:
            made.writestr("a.txt", "a")
    else:
        with tarfile.open(fileobj=file, mode="w") as made:
            made.add(__file__, "a.txt")
    return file.getvalue()


BINARY = {
    "a.zip": (archive("zip"), "archives left out (unpack them)"),
    "a.tar.gz": (gzip.compress(archive("tar")), "archives left out (unpack them)"),
    "a.txt.bz2": (b"BZh91AY&SYxxx", "archives left out (unpack them)"),
    "a.xlsx": (archive("zip"), "office documents left out (save them as text, tables as .csv)"),
    "a.png": (b"\x89PNG\r\n\x1a\nxxx", "images left out (give their text)"),
    "a.pdf": (b"%PDF-1.7\n", "PDF files left out (convert them to text)"),
    "a.bin": (bytes(range(256)) * 40, "binary files left out (save them as text)"),
    "a": (b"PAR1xxx", "Parquet files under another name left out (name them .parquet)"),
    "a.json": (b'{"name": "x", "version": 1}', "JSON files without rows of field 'text' left out"),
}


@pytest.mark.parametrize("name", BINARY)
def test_what_is_no_text_is_left_out_of_a_folder_and_refused_alone(name: str, tmp_path: Path):
    data, note = BINARY[name]
    (tmp_path / name).write_bytes(data)
    kind = note[: note.index(" left out")]
    for source in (tmp_path, tmp_path / name):
        with pytest.raises(ArchlabError, match=f"has no text: {kind} are not read"):
            read(source)
    (tmp_path / "b.txt").write_text("text")
    documents, notes = read(tmp_path)
    assert documents == [b"text"]
    assert len(notes) == 1
    assert notes[0].startswith(note)
    assert notes[0].endswith(f": 1, first {tmp_path / name}")


def test_a_null_row_is_left_out_and_counted_in_every_format(tmp_path: Path):
    lines = ['{"text": "a"}', '{"text": null}', '{"text": "b"}']
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    (tmp_path / "x.json").write_text(f"[{','.join(lines)}]")
    (tmp_path / "x.csv").write_text("id,text\n1,a\n2\n3,b\n")
    for name, place in (("x.jsonl", "line 2"), ("x.json", "row 2"), ("x.csv", "line 3")):
        path = tmp_path / name
        assert read(path) == ([b"a", b"b"], [f"rows left out whose field 'text' is null: 1, first {path}, {place}"])


def test_columns_of_parquet_are_checked_before_rows_are_read(tmp_path: Path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "x.parquet"
    parquet.write_table(pyarrow.table({"text": ["a", None, "b"], "id": [1, 2, 3], "more": ["x", "y", "z"]}), path)
    assert read(path) == ([b"a", b"b"], [f"rows left out whose field 'text' is null: 1, first {path}"])
    with pytest.raises(ArchlabError, match="field 'id' holds int64, not text: choose another one by #field=: text, more"):
        read(f"{path}#field=id")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ArchlabError, match=r"x\.parquet: not Parquet"):
        read(path)


def test_a_text_that_rows_of_parquet_share_is_in_memory_once_and_has_a_limit(tmp_path: Path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path, text = tmp_path / "x.parquet", "y" * 1_000_000
    shared = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 200, pyarrow.int32()), pyarrow.array([text]))
    parquet.write_table(pyarrow.table({"text": shared}), path, compression="zstd")
    tracemalloc.start()
    before = pyarrow.total_allocated_bytes()
    documents = formats.file_documents(path, "text", Notes(), alone=True)
    assert next(documents) == text.encode()
    assert tracemalloc.get_traced_memory()[1] + pyarrow.total_allocated_bytes() - before < 20_000_000
    tracemalloc.stop()
    monkeypatch.setattr(formats, "LONGEST", len(text) - 1)
    with pytest.raises(ArchlabError, match=r"x.parquet: a row is longer than 0 MiB: cut its text into several rows$"):
        read(path)


@pytest.mark.parametrize("name", ["x.jsonl", "array.json", "x.csv"])
def test_a_missing_field_is_refused_with_those_there_are(name: str, tmp_path: Path):
    (tmp_path / name).write_bytes(FORMATS[name])
    with pytest.raises(ArchlabError, match=r": no field 'body': it has id, text: choose one by #field="):
        read(f"{tmp_path / name}#field=body")


def test_a_field_of_numbers_is_refused_with_those_that_hold_text(tmp_path: Path):
    (tmp_path / "x.jsonl").write_bytes(LINES)
    with pytest.raises(ArchlabError, match=r"line 1: field 'id' holds int, not text: choose another one by #field=: text"):
        read(f"{tmp_path / 'x.jsonl'}#field=id")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("name", ["x.txt", "x.jsonl", "x.csv"])
def test_wide_encodings_are_translated_with_a_note(encoding: str, name: str, tmp_path: Path):
    text = FORMATS.get(name, "a “text” in café\n".encode() * 100).decode()
    (tmp_path / name).write_bytes(text.encode())
    expected, _ = read(tmp_path / name)
    (tmp_path / name).write_bytes(text.encode(encoding))
    documents, notes = read(tmp_path / name)
    assert documents == expected
    assert notes == [f"texts in {encoding[:6].upper()}, translated to UTF-8: 1, first {tmp_path / name}"]
    assert set(documents[0]) <= set(text.encode())


def test_text_that_is_cut_in_a_character_of_utf_16_is_named(tmp_path: Path):
    (tmp_path / "x.txt").write_bytes("some text".encode("utf-16")[:-1])
    with pytest.raises(ArchlabError, match=r"x\.txt: not UTF-16, though it begins so"):
        read(tmp_path / "x.txt")


def test_the_first_byte_that_is_not_utf_8_is_named(tmp_path: Path):
    (tmp_path / "x.txt").write_bytes(b"a" * 20_000 + b"\n" + b"b" * 100 + b"\xe9 c\n")
    documents, notes = read(tmp_path / "x.txt")
    assert b"".join(documents) == (tmp_path / "x.txt").read_bytes()
    assert notes == [f"{formats.NOT_UTF8}: 1, first {tmp_path / 'x.txt'}, byte 20101"]
    (tmp_path / "x.csv").write_bytes(b"text\nb\xe9\n")
    with pytest.raises(ArchlabError, match=r"x\.csv, line 2, byte 1: not UTF-8: convert it"):
        read(tmp_path / "x.csv")


def test_a_text_without_line_ends_is_not_cut_inside_a_character(tmp_path: Path):
    text = "a" + "é€😀" * 20_000
    (tmp_path / "x.txt").write_text(text)
    documents, notes = read(tmp_path / "x.txt")
    assert notes == []
    assert "".join(document.decode() for document in documents) == text


def test_a_document_with_nul_bytes_is_left_out_for_they_end_documents(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in ("one\0two", "abc", "def")))
    corpus = prepare(str(path), folder=tmp_path / "cache")
    assert sum(corpus.splits[split]["documents"] for split in ("train", "validation")) == 2
    assert read(path)[1] == [f"documents with NUL bytes left out: 1, first {path}"]


def test_a_long_record_of_fasta_is_cut(tmp_path: Path):
    rng = random.Random(0)
    genome = "".join(rng.choices("acgt", k=2_500_123))
    for line in (80, 10**7):
        lines = "\n".join(genome[start : start + line] for start in range(0, len(genome), line))
        (tmp_path / "x.fna").write_text(f">one record\n{lines}\n>short\nACGT\n")
        documents, _ = read(tmp_path / "x.fna")
        assert list(map(len, documents)) == [*[100_000] * 25, 123, 4]
        assert b"".join(documents[:-1]).decode() == genome.upper()
    corpus = prepare(str(tmp_path / "x.fna"), folder=tmp_path / "cache")
    assert corpus.splits["validation"]["documents"] >= 1
    assert 0 < corpus.num_bytes("validation") <= 400_000


@pytest.mark.parametrize("chunk", range(1, 12))
def test_chunks_of_fasta_do_not_matter(chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(formats, "_CHUNK", chunk)
    (tmp_path / "x.faa").write_bytes(b"\n >one > two\r\nac gt\r\n\r\nAC\n>\n>three\rTTTT\r  GG\n")
    assert read(tmp_path / "x.faa")[0] == [b"ACGTAC", b"TTTTGG"]


@pytest.mark.parametrize("name", ["x.txt", "x.fa", "x.jsonl", "x.csv", "x.json"])
@pytest.mark.parametrize("packing", [".gz", ".zst"])
def test_a_bomb_is_read_in_pieces(name: str, packing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(formats, "LONGEST", 1 << 20)
    monkeypatch.setattr(formats, "_LARGEST_JSON", 1 << 20)
    path = tmp_path / f"{name}{packing}"
    with gzip.open(path, "wb", compresslevel=1) if packing == ".gz" else zstd_module().open(path, "wb") as file:
        file.write({"x.fa": b">x\n", "x.csv": b"text\n"}.get(name, b'{"text": "'))
        for _ in range(64):
            file.write(b"A" * (1 << 20))
    tracemalloc.start()
    if name in ("x.txt", "x.fa"):
        assert sum(map(len, read(f"{path}#max_bytes=1e6")[0])) == 10**6
        assert sum(map(len, Source.parse(str(path)).documents())) >= 64 << 20
    else:
        with pytest.raises(ArchlabError, match=rf"{name}{packing}.*: longer than 1 MiB"):
            read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 << 20


def test_a_long_file_of_a_folder_is_cut_and_every_byte_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(formats, "LONGEST", 1000)
    for name in "ab":
        (tmp_path / name).write_text("".join(map(str, range(2000))))
    documents, _ = read(tmp_path)
    assert max(map(len, documents)) <= 2000
    assert b"".join(documents).decode() == "".join(map(str, range(2000))) * 2


def test_hidden_files_and_links_to_folders_are_said(tmp_path: Path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside / ".git", inside / "deep", outside):
        folder.mkdir(parents=True)
        (folder / "a.txt").write_text(f"text in {folder.name}")
    (inside / ".hidden").write_text("x")
    (inside / "linked").symlink_to(outside)
    (inside / "loop").symlink_to(inside)
    (inside / "nowhere").symlink_to(tmp_path / "missing")
    (inside / "file.txt").symlink_to(outside / "a.txt")
    documents, notes = read(inside)
    assert documents == [b"text in deep", b"text in out"]
    assert notes == [
        f"hidden files and folders left out: 2, first {inside / '.git'}, {inside / '.hidden'}",
        f"links to folders left out (give the folder itself): 2, first {inside / 'linked'}, {inside / 'loop'}",
        f"links that lead nowhere left out: 1, first {inside / 'nowhere'}",
    ]


def test_notes_are_said_once_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "texts"
    folder.mkdir()
    for number, text in enumerate(TEXTS):
        (folder / f"{number}.txt").write_text(text)
        (folder / f"{number}.png").write_bytes(b"\x89PNG\r\n")
    corpus = prepare(str(folder), folder=tmp_path / "cache")
    said = capsys.readouterr().err
    assert said.startswith(f"corpus {folder}: images left out (give their text): 30, first {folder / '0.png'}, ")
    assert f"corpus {folder}: {json.loads((corpus.folder / 'manifest.json').read_text())['notes'][0]}\n" == said
    assert prepare(str(folder), folder=tmp_path / "cache") == corpus
    assert capsys.readouterr().err == ""


def test_every_reader_takes_an_empty_file(tmp_path: Path):
    for suffix in itertools.chain(formats.READERS, ["", ".txt"]):
        if suffix != ".parquet":
            (tmp_path / f"x{suffix}").write_bytes(b"")
            assert read(tmp_path / f"x{suffix}") == ([], [])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("lists.json", "[" + "{}," * 1_000_000 + "{}]", "more than 1,000,000 lists and objects"),
        ("lists.jsonl", '{"text": "x", "a": [' + "[]," * 1_000_000 + "[]]}", "lists.jsonl.gz, line 1: more than 1,000,000 lists"),
        ("values.json", "[" + "1," * 8_000_001 + "1]", "or 8,000,000 values: cut it"),
        ("cells.csv", "," * 100_001, "cells.csv.gz, line 1: more than 100,000 cells"),
    ],
)
def test_what_needs_far_more_memory_than_its_text_is_refused_before(tmp_path: Path, name: str, text: str, reason: str):
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode(), 1))
    tracemalloc.start()
    try:
        with pytest.raises(ArchlabError, match=reason):
            read(tmp_path / f"{name}.gz")
        assert tracemalloc.get_traced_memory()[1] < 320 << 20  # the buffer of a whole file is most of it
    finally:
        tracemalloc.stop()
