"""Preparation and reading of corpora."""

import gzip
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from archlab.corpora import Corpus, prepare
from archlab.corpora import preparation as preparing
from archlab.errors import ArchlabError

TEXTS = [f"document number {n}\n" * (n % 7 + 1) for n in range(60)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A corpus of small files."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for n, text in enumerate(TEXTS):
        (folder / f"{n:02}.txt").write_text(text)
    return folder


@pytest.fixture
def corpus(folder: Path, tmp_path: Path) -> Corpus:
    return prepare(str(folder), folder=tmp_path / "cache")


def documents(corpus: Corpus, split: str) -> list[bytes]:
    return bytes(corpus.tokens(split)).split(b"\0")[:-1]


def test_splits_share_no_document_and_lose_none(corpus: Corpus):
    train, held = documents(corpus, "train"), documents(corpus, "validation")
    assert sorted(train + held) == sorted(text.encode() for text in TEXTS)
    assert not set(train) & set(held)
    assert 1 <= len(held) <= 1 + 2 * 0.05 * len(TEXTS)
    assert corpus.num_tokens("train") == len(corpus.tokens("train")) == corpus.num_bytes("train") + len(train)
    assert (corpus.vocab_size, corpus.tokenizer) == (256, "bytes")


def test_equal_documents_stay_together(folder: Path, tmp_path: Path, corpus: Corpus):
    for path in sorted(folder.iterdir()):
        path.with_stem(f"{path.stem}-again").write_bytes(path.read_bytes())
    twice = prepare(str(folder), folder=tmp_path / "cache")
    assert twice.hash != corpus.hash
    assert not set(documents(twice, "train")) & set(documents(twice, "validation"))
    assert len(documents(twice, "train") + documents(twice, "validation")) == 2 * len(TEXTS)


def test_the_same_data_has_the_same_hash_wherever_it_lies(folder: Path, corpus: Corpus, tmp_path: Path):
    moved = folder.rename(tmp_path / "elsewhere")
    assert prepare(str(moved), folder=tmp_path / "other").hash == corpus.hash
    assert prepare(str(moved), "ascii", folder=tmp_path / "other").hash != corpus.hash


def test_it_is_prepared_once_and_again_when_files_change(folder: Path, corpus: Corpus, tmp_path: Path, monkeypatch):
    with monkeypatch.context() as context:
        context.setattr(preparing, "_write", None)
        assert prepare(str(folder), folder=tmp_path / "cache") == corpus
    (folder / "00.txt").write_text("something else")
    assert prepare(str(folder), folder=tmp_path / "cache").hash != corpus.hash


def test_a_corpus_of_an_earlier_version_is_prepared_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as context:
        context.setattr(preparing, "_FORMAT", preparing._FORMAT - 1)
        earlier = prepare(str(folder), folder=tmp_path / "cache")
    (earlier.folder / "train.bin").write_bytes(bytes(earlier.num_tokens("train")))
    now = prepare(str(folder), folder=tmp_path / "cache")
    assert now.folder != earlier.folder
    assert any(now.tokens("train"))


def test_damaged_tokens_are_noticed_before_a_training_and_prepared_again(folder: Path, corpus: Corpus, tmp_path: Path):
    tokens = bytearray((corpus.folder / "train.bin").read_bytes())
    tokens[7] ^= 1
    (corpus.folder / "train.bin").write_bytes(tokens)
    again = prepare(str(folder), folder=tmp_path / "cache", verify=True)
    assert again == corpus
    assert (corpus.folder / "train.bin").read_bytes() != tokens


@pytest.mark.parametrize("number", [1, 59, 61])
def test_a_folder_that_changes_while_it_is_read_is_refused(number: int, folder: Path, tmp_path: Path, monkeypatch):
    split = preparing._split

    def change(*args):
        found = split(*args)
        monkeypatch.setattr(preparing.Source, "_local_documents", lambda self, notes: (("x", b"another") for _ in range(number)))
        return found

    monkeypatch.setattr(preparing, "_split", change)
    with pytest.raises(ArchlabError, match="changed while it was read: try again"):
        prepare(str(folder), folder=tmp_path / "cache")
    assert [left for left in (tmp_path / "cache").glob("*") if left.suffix != ".lock"] == []


def test_names_of_files_may_be_any_bytes(folder: Path, tmp_path: Path):
    with open(os.fsencode(folder) + b"/\xff.txt", "w") as file:
        file.write("one more\n" * 9)
    assert len(documents(prepare(str(folder), folder=tmp_path / "cache"), "train")) > len(TEXTS) / 2


def test_an_epoch_reads_every_sequence_once(corpus: Corpus):
    length, size = 16, 8
    number = corpus.num_sequences("train", length)
    steps = -(-number // size)
    read = np.concatenate([corpus.batch(step, size, length, seed=3) for step in range(steps)])[:number]
    assert read.shape == (number, length + 1)
    assert read.dtype == np.int64
    stream = np.asarray(corpus.tokens("train"), dtype=np.int64)
    expected = np.stack([stream[n * length : n * length + length + 1] for n in range(number)])
    assert sorted(map(tuple, read)) == sorted(map(tuple, expected))
    assert not np.array_equal(read, expected)
    later = np.concatenate([corpus.batch(step, size, length, seed=3) for step in range(2 * steps)])[number : 2 * number]
    assert sorted(map(tuple, later)) == sorted(map(tuple, read))
    assert not np.array_equal(later, read)
    assert corpus.epochs(number * length * 1.5, length) == 1.5


def test_a_batch_follows_from_its_step_alone(corpus: Corpus):
    halves = [corpus.batch(step, 4, 16, seed=1) for step in (6, 7)]  # 8 sequences a step are two steps of 4
    assert np.array_equal(corpus.batch(3, 8, 16, seed=1), np.concatenate(halves))
    assert not np.array_equal(corpus.batch(3, 8, 16, seed=2), np.concatenate(halves))


def test_validation_reads_the_same_sequences_each_time(corpus: Corpus):
    number = corpus.num_sequences("validation", 16)
    rows = np.concatenate(list(corpus.validation_batches(4, 16)))
    assert np.array_equal(rows[:, 1:].ravel(), corpus.tokens("validation")[1 : number * 16 + 1])
    some = list(corpus.validation_batches(2, 8, limit=3))
    assert [len(batch) for batch in some] == [2, 1]
    assert np.array_equal(np.concatenate(some), np.concatenate(list(corpus.validation_batches(3, 8, limit=3))))


def test_a_single_text_is_cut_at_line_ends(tmp_path: Path):
    path = tmp_path / "text.txt"
    path.write_text("".join(f"line {n}\n" for n in range(20_000)))
    corpus = prepare(str(path), folder=tmp_path / "cache")
    pieces = documents(corpus, "train") + documents(corpus, "validation")
    assert len(pieces) > 10
    assert all(piece.startswith(b"line ") and piece.endswith(b"\n") for piece in pieces)
    assert sum(map(len, pieces)) == path.stat().st_size


@pytest.mark.parametrize("packed", [False, True])
def test_json_lines(tmp_path: Path, packed: bool):
    lines = "\n".join(json.dumps({"story": text, "n": 0}) for text in TEXTS)
    path = tmp_path / ("texts.jsonl.gz" if packed else "texts.jsonl")
    path.write_bytes(gzip.compress(lines.encode()) if packed else lines.encode())
    corpus = prepare(f"{path}#field=story", folder=tmp_path / "cache")
    assert sorted(documents(corpus, "train") + documents(corpus, "validation")) == sorted(text.encode() for text in TEXTS)
    short = prepare(f"{path}#field=story,max_bytes=100", folder=tmp_path / "cache")
    assert short.num_bytes("train") + short.num_bytes("validation") == 100


def test_fasta_is_read_by_record_in_four_letters(tmp_path: Path):
    rng = np.random.default_rng(0)
    records = ["".join(rng.choice(list("ACGT"), 200)) for _ in range(30)]
    folded = [f">record {n}\n{r[:70]}\n{r[70:140].lower()}\n{r[140:]}\n" for n, r in enumerate(records)]
    path = tmp_path / "genome.fa"
    path.write_text("".join(folded) + ">gap\nACGNNNNTT\n")
    corpus = prepare(str(path), folder=tmp_path / "cache")
    assert (corpus.tokenizer, corpus.vocab_size) == ("dna", 5)
    streams = ["".join("|ACGT"[t] for t in corpus.tokens(split)) for split in ("train", "validation")]
    train, held = (stream.split("|")[:-1] for stream in streams)
    assert sorted(train + held) == sorted([*records, "ACG", "TT"])
    assert held


def fasta(records: list[str], end: str = "\n") -> bytes:
    return "".join(f">record {n}{end}{record[:70]}{end}{record[70:]}{end}" for n, record in enumerate(records)).encode()


def drawn(letters: str, number: int = 20) -> list[str]:
    rng = np.random.default_rng(0)
    return ["".join(rng.choice(list(letters), 120)) for _ in range(number)]


PROTEINS, RNA = drawn("ACDEFGHIKLMNPQRSTVWY"), drawn("ACGU")


def test_proteins_are_read_in_bytes(tmp_path: Path):
    path = tmp_path / "proteins.faa"
    path.write_bytes(fasta(PROTEINS))
    corpus = prepare(str(path), folder=tmp_path / "cache")
    assert corpus.tokenizer == "bytes"
    assert sorted(documents(corpus, "train") + documents(corpus, "validation")) == sorted(x.encode() for x in PROTEINS)


@pytest.mark.parametrize(
    ("records", "share"), [(PROTEINS, r"7[0-9]\.[0-9]%"), (RNA, r"2[0-9]\.[0-9]%"), ([x.lower() for x in RNA], r"2[0-9]\.[0-9]%")]
)
@pytest.mark.parametrize("tokenizer", [None, "dna"])
def test_what_is_no_dna_is_not_read_as_dna(records: list[str], share: str, tokenizer: str | None, tmp_path: Path):
    path = tmp_path / "genome.fa"
    path.write_bytes(fasta(records))
    message = rf"^tokenizer dna: {share} of the letters are not A, C, G, T or N.*--tokenizer bytes"
    with pytest.raises(ArchlabError, match=message):
        prepare(str(path), tokenizer, folder=tmp_path / "cache")
    assert [left for left in (tmp_path / "cache").glob("*") if left.suffix != ".lock"] == []
    assert prepare(str(path), "bytes", folder=tmp_path / "cache").tokenizer == "bytes"


@pytest.mark.parametrize(("strange", "refused"), [(20, False), (21, True)])
def test_a_tenth_of_the_letters_may_be_ambiguous_and_any_number_unknown(strange: int, refused: bool, tmp_path: Path):
    path = tmp_path / "genome.fa"
    path.write_bytes(fasta(["N" * 60 + "R" * strange + "A" * (40 - strange), "C" * 100, "Y" * 10 + "G" * 90]))
    if refused:
        with pytest.raises(ArchlabError, match=r"^tokenizer dna: 10\.3% of the letters"):
            prepare(str(path), folder=tmp_path / "cache")
    else:
        prepare(str(path), folder=tmp_path / "cache")


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_lines_of_fasta_end_as_they_like(end: str, tmp_path: Path):
    path = tmp_path / "genome.fa"
    path.write_bytes(fasta(drawn("ACGT"), end))
    corpus = prepare(str(path), "bytes", folder=tmp_path / "cache")
    assert sorted(documents(corpus, "train") + documents(corpus, "validation")) == sorted(x.encode() for x in drawn("ACGT"))


@pytest.mark.parametrize("name", ["TEXTS.JSONL.GZ", "texts.jsonl.Gz"])
def test_compression_is_known_in_capitals_too(name: str, tmp_path: Path):
    (tmp_path / name).write_bytes(gzip.compress("\n".join(json.dumps({"text": text}) for text in TEXTS).encode()))
    corpus = prepare(str(tmp_path / name), folder=tmp_path / "cache")
    assert sorted(documents(corpus, "train") + documents(corpus, "validation")) == sorted(text.encode() for text in TEXTS)


@pytest.mark.parametrize("name", ["no#1.jsonl", "no#1/a#field=x.jsonl"])
def test_a_path_may_hold_what_begins_options(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text("\n".join(json.dumps({"text": text, "story": text[::-1]}) for text in TEXTS))
    for source, step in ((name, 1), (f"{name}#field=story", -1)):
        corpus = prepare(source, folder=tmp_path / "cache")
        assert sorted(documents(corpus, "train") + documents(corpus, "validation")) == sorted(t[::step].encode() for t in TEXTS)


def test_half_of_a_surrogate_pair_is_replaced(tmp_path: Path):
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "a\\ud800b"}\n{"text": "cde"}\n')
    corpus = prepare(str(path), folder=tmp_path / "cache")
    assert sorted(documents(corpus, "train") + documents(corpus, "validation")) == [b"a?b", b"cde"]


@pytest.mark.parametrize(
    "harm", [lambda data: data[:-20], lambda data: b"x" + data[1:], lambda data: data[:40] + b"\0" * 40 + data[80:]]
)
def test_a_damaged_archive_is_refused_by_name(harm, tmp_path: Path):
    path = tmp_path / "texts.txt.gz"
    path.write_bytes(harm(gzip.compress("".join(map(str, range(10_000))).encode())))
    with pytest.raises(ArchlabError, match=r"texts\.txt\.gz cannot be read"):
        prepare(str(path), folder=tmp_path / "cache")


def test_ascii_keeps_what_it_can_say(tmp_path: Path):
    (tmp_path / "a.txt").write_text("x = 1\t\n~")
    (tmp_path / "b.txt").write_text("é" * 4)
    corpus = prepare(str(tmp_path), "ascii", folder=tmp_path / ".cache")
    table = ["|", "\n", "\t", *map(chr, range(32, 127)), "?"]
    assert len(table) == corpus.vocab_size == 99
    texts = {"".join(table[t] for t in corpus.tokens(split)) for split in ("train", "validation")}
    assert texts == {"x = 1\t\n~|", "????????|"}


def test_byte_pair_encoding_is_trained_on_the_training_documents(folder: Path, tmp_path: Path):
    pytest.importorskip("tokenizers")
    corpus = prepare(str(folder), "bpe:300", folder=tmp_path / "cache")
    plain = prepare(str(folder), folder=tmp_path / "cache")
    assert 257 < corpus.vocab_size <= 300
    assert corpus.num_tokens("train") < plain.num_tokens("train") / 4
    assert corpus.num_bytes("train") == plain.num_bytes("train")
    assert corpus.dtype == "uint16"


def test_a_tokenizer_from_elsewhere_neither_pads_nor_cuts_nor_reads_ends_in_text(tmp_path: Path):
    tokenizers = pytest.importorskip("tokenizers")
    letters = {letter: number for number, letter in enumerate("abcdefghijklmnopqrstuvwxyz <>|/")}
    made = tokenizers.Tokenizer(tokenizers.models.BPE({**letters, "</s>": 300}, []))  # ids with a gap
    made.add_special_tokens(["</s>"])
    made.enable_truncation(8)
    made.enable_padding(length=64)
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "texts").mkdir()
    texts = ["one </s> two", "x", "a text of more than eight", "y z one two three"]
    for number, text in enumerate(texts):
        (tmp_path / "texts" / str(number)).write_text(text)
    corpus = prepare(str(tmp_path / "texts"), f"hf:{tmp_path / 'tokenizer.json'}", tmp_path / "cache")
    assert corpus.vocab_size == 301
    assert corpus.num_tokens("train") + corpus.num_tokens("validation") == sum(len(text) + 1 for text in texts)
    assert sum(int((corpus.tokens(split) == 300).sum()) for split in ("train", "validation")) == len(texts)


def test_parquet(tmp_path: Path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"text": TEXTS, "id": list(range(60))}), tmp_path / "texts.parquet")
    corpus = prepare(str(tmp_path / "texts.parquet"), folder=tmp_path / "cache")
    assert sorted(documents(corpus, "train") + documents(corpus, "validation")) == sorted(text.encode() for text in TEXTS)
    with pytest.raises(ArchlabError, match=r"no field 'txt': it has text, id: choose one by #field="):
        prepare(f"{tmp_path / 'texts.parquet'}#field=txt", folder=tmp_path / "cache")


@pytest.mark.parametrize(
    ("source", "tokenizer", "message"),
    [
        ("nowhere.txt", None, "corpus nowhere.txt: no such file or folder"),
        ("", None, "give stdlib, a file, a folder, or hf:NAME"),
        ("empty", None, "the folder has no files"),
        ("blank.txt", None, "corpus blank.txt is empty"),
        ("one.txt", None, "corpus one.txt has one document only"),
        ("one.jsonl", None, r"one.jsonl, line 2: not JSON"),
        ("one.jsonl#field=txt", None, "one.jsonl, line 1: no field 'txt': it has text: choose"),
        ("one.fa", None, "one.fa: not FASTA"),
        ("deep.jsonl", None, "deep.jsonl, line 1: not JSON that can be read: maximum recursion depth"),
        ("x" * 5000, None, "x: no such file or folder"),
        ("~nobody-of-that-name/x", None, "x: no such file or folder"),
        ("one#two.txt", None, "unknown option of corpus one: 'two.txt'"),
        ("two", "hf:" + "x" * 5000, "tokenizer hf:x"),
        ("one.txt#fields=x", None, "unknown option of corpus one.txt: 'fields': did you mean 'field'"),
        ("one.txt#field", None, "field has no value"),
        ("one.txt#max_bytes=many", None, "max_bytes=many: give a positive number"),
        ("two", "byte", "unknown tokenizer 'byte': did you mean 'bytes'"),
        ("blank.txt", "hf:", "unknown tokenizer 'hf:'"),
    ],
)
def test_what_cannot_be_read_is_refused_and_leaves_nothing(
    source: str, tokenizer: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("two").mkdir()
    for name, text in {
        "blank.txt": "",
        "one.txt": "x",
        "one.jsonl": '{"text": "x"}\n{',
        "one.fa": "ACGT\n",
        "deep.jsonl": "[" * 100_000,
        "two/a": "a",
        "two/b": "b",
    }.items():
        Path(name).write_text(text)
    with pytest.raises(ArchlabError, match=message):
        prepare(source, tokenizer, folder=Path("cache"))
    assert [path for path in Path("cache").glob("*") if path.suffix != ".lock"] == []


@pytest.mark.parametrize("name", ["datasets", "tokenizers", "pyarrow.parquet"])
def test_a_missing_package_is_named_with_what_brings_it(name: str, folder: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, name, None)
    (tmp_path / "x.parquet").write_bytes(b"")
    request = {
        "datasets": ("hf:someone/something", None),
        "tokenizers": (str(folder), "bpe:300"),
        "pyarrow.parquet": (str(tmp_path / "x.parquet"), None),
    }
    with pytest.raises(ArchlabError, match=rf"needs the package {name.partition('.')[0]}: pip install 'archlab\[hf\]'"):
        prepare(*request[name], folder=tmp_path / "cache")


def test_a_dataset_is_streamed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    class Datasets:
        @staticmethod
        def load_dataset(name, config, *, split, streaming):
            asked.append((name, config, split, streaming))
            return ({"story": text} for text in TEXTS)

    monkeypatch.setitem(__import__("sys").modules, "datasets", Datasets)
    corpus = prepare("hf:someone/stories#field=story,config=en,split=test", folder=tmp_path)
    assert asked == [("someone/stories", "en", "test", True)]
    assert sorted(documents(corpus, "train") + documents(corpus, "validation")) == sorted(text.encode() for text in TEXTS)


def test_a_text_without_line_ends_is_cut_too(tmp_path: Path):
    (tmp_path / "text.txt").write_text("x" * 200_000)
    with pytest.raises(ArchlabError, match="has one document only"):  # all its pieces are equal
        prepare(str(tmp_path / "text.txt#max_bytes=65536"), folder=tmp_path / "cache")
    (tmp_path / "text.txt").write_text("".join(map(str, range(40_000))))
    corpus = prepare(str(tmp_path / "text.txt"), folder=tmp_path / "cache")
    assert max(map(len, documents(corpus, "train"))) <= 32 << 10


def test_a_folder_that_cannot_be_written_is_named(folder: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArchlabError, match=r"corpora folder .*file/cache cannot be written"):
        prepare(str(folder), folder=tmp_path / "file" / "cache")


def test_a_corpus_smaller_than_a_sequence_is_refused(corpus: Corpus):
    with pytest.raises(ArchlabError, match="train tokens are less than one sequence of 100000 and its target"):
        corpus.batch(0, 1, 100_000, seed=0)
    with pytest.raises(ArchlabError, match="validation tokens are less than one sequence of 4096"):
        next(corpus.validation_batches(1, 4096))


def test_a_killed_preparation_is_not_taken_for_whole(folder: Path, tmp_path: Path):
    cache = tmp_path / "cache"
    process = multiprocessing.get_context("fork").Process(target=_prepare_slowly, args=(folder, cache))
    process.start()
    deadline = time.monotonic() + 30
    while not any(path.stat().st_size for path in cache.glob("*.unfinished/train.bin")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    whole = prepare(str(folder), folder=cache)
    assert len(documents(whole, "train") + documents(whole, "validation")) == len(TEXTS)
    assert list(cache.glob("*.unfinished")) == []


def _prepare_slowly(folder: Path, cache: Path) -> None:
    write = preparing._Stream.add

    def add(self, tokens, num_bytes):
        write(self, tokens, num_bytes)
        self.file.flush()
        time.sleep(0.2)

    preparing._Stream.add = add
    prepare(str(folder), folder=cache)


def test_a_cut_stream_is_prepared_again(folder: Path, tmp_path: Path, corpus: Corpus):
    stream = corpus.folder / "train.bin"
    stream.write_bytes(stream.read_bytes()[:-1])
    assert prepare(str(folder), folder=tmp_path / "cache").hash == corpus.hash
    assert stream.stat().st_size == corpus.num_tokens("train")


def test_the_standard_library_is_a_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    corpus = prepare("stdlib#max_bytes=1e6", "ascii")
    assert corpus.num_bytes("train") + corpus.num_bytes("validation") == 10**6
    assert corpus.folder.is_relative_to(tmp_path / "archlab" / "corpora")
    assert corpus.batch(0, 2, 128, seed=0).max() < corpus.vocab_size
