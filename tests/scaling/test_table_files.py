import gzip
import json
import math
import time
from decimal import Decimal

import pandas as pd
import pytest

from archlab.errors import ArchlabError
from archlab.scaling import table_files
from archlab.scaling.imports import read_runs
from archlab.scaling.table_files import comma_of, number_of, read_table

ROWS = [{"model": "a, b", "N": "1", "loss": "3.5"}, {"model": "c", "N": "2", "loss": "3.25"}]
CSV = 'model,N,loss\n"a, b",1,3.5\nc,2,3.25\n'


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", CSV),
        ("A.CSV", CSV),
        ("a.csv", "\ufeff" + CSV),
        ("a.csv", CSV.encode("utf-16")),
        ("a.csv.gz", gzip.compress(CSV.encode(), mtime=0)),
        ("a.csv", CSV.replace("\n", "\r\n").encode()),
        ("a.csv", "# exported\n\n# model, N and loss of, say, two\n" + CSV),
        ("a.csv", "# " + CSV),
        ("a.csv", CSV + ",,\n\n"),
        ("a.csv", "\n".join(line + "," for line in CSV.splitlines())),
        ("a.csv", "sep=;\nmodel;N;loss\na, b;1;3.5\nc;2;3.25\n"),
        ("a.tsv", "model\tN\tloss\na, b\t1\t3.5\nc\t2\t3.25\n"),
        ("a.csv", "model|N | loss\na, b|1|3.5\nc|2|3.25\n"),
        ("a.json", json.dumps(ROWS)),
        ("a.json", json.dumps({"runs": ROWS, "note": "two"})),
        ("a.json", json.dumps({name: [row[name] for row in ROWS] for name in ROWS[0]})),
        ("a.json", json.dumps({name: {str(i): row[name] for i, row in enumerate(ROWS)} for name in ROWS[0]})),
        ("a.json", json.dumps({"columns": list(ROWS[0]), "index": [0, 1], "data": [list(row.values()) for row in ROWS]})),
        ("a.jsonl", "\n\n".join(map(json.dumps, ROWS))),
        ("a.ndjson", "\n".join(map(json.dumps, ROWS))),
    ],
)
def test_a_table_in_every_form(tmp_path, name, data):
    (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    assert read_table(tmp_path / name).to_dict("records") == ROWS


def test_columns_between_spaces_with_a_head_behind_a_mark(tmp_path):
    (tmp_path / "a.csv").write_text("# N   D  loss\n1e6 2e7   3.5\n 2e6  2e7 3.4\n")
    rows = read_table(tmp_path / "a.csv").to_dict("records")
    assert rows == [{"N": "1e6", "D": "2e7", "loss": "3.5"}, {"N": "2e6", "D": "2e7", "loss": "3.4"}]


def test_nested_objects_have_dotted_names_and_what_a_row_lacks_is_none(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"config": {"params": 100000000000000000001}, "loss": NaN}\n{"config": {"model": "x"}, "loss": 2}\n'
    )
    first, second = read_table(tmp_path / "a.jsonl").to_dict("records")
    assert first == {"config.params": 100000000000000000001, "loss": None, "config.model": None}
    assert second == {"config.params": None, "loss": 2, "config.model": "x"}


def test_columns_that_are_called_alike_are_told_apart(tmp_path):
    (tmp_path / "a.csv").write_text("loss,,loss\n1,2,3\n")
    assert read_table(tmp_path / "a.csv").to_dict("records") == [{"loss": "1", "column 2": "2", "loss (2)": "3"}]


def test_parquet_with_categories_an_index_and_missing_numbers(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(
        {"arch": pd.Categorical(["x", "y"]), "N": pd.array([1, None], dtype="Int64"), "loss": [Decimal("2.5"), None]}
    )
    frame.set_index("arch").to_parquet(tmp_path / "a.parquet")
    rows = read_table(tmp_path / "a.parquet").to_dict("records")
    assert rows == [{"arch": "x", "N": 1, "loss": Decimal("2.5")}, {"arch": "y", "N": None, "loss": None}]


@pytest.mark.parametrize(
    "columns", [{"loss": [1.0] * 100_000}, {"model": ["a"] * 100_000}, {"model": [f"{'a' * 1000}{i}" for i in range(900)]}]
)
def test_parquet_that_is_large_once_unpacked_is_refused(tmp_path, monkeypatch, columns):
    pytest.importorskip("pyarrow")
    pd.DataFrame(columns).to_parquet(tmp_path / "a.parquet", compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 1 << 17
    monkeypatch.setattr(table_files, "_LARGEST", 1 << 18)
    with pytest.raises(ArchlabError, match=r"a.parquet: longer than 0 MiB: leave out what are no training runs"):
        read_table(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", "a,b\n1,2\n1,2,3\n", "line 3 has 3 cells, the head 2: put cells with ',' in quotes"),
        ("a.csv", 'a,b\n"1,2\n', "unexpected end of data"),
        ("a.csv", "a,b\nü,2\n".encode("latin-1"), "byte 5 is no text in UTF-8: save the table as UTF-8"),
        ("a.csv", b"PK\x03\x04\x00", "it is no text"),
        ("a.csv", "# nothing\n", "no rows"),
        ("a.json", "[[1], [2]]", "a list of objects"),
        ("a.jsonl", '{"a": 1}\n{"a": \n', "line 2 is no JSON"),
        ("a.csv.gz", "a,b\n", "cannot be read: not a gzipped file"),
        ("a.xlsx", "", "give a table as .csv, .tsv, .json, .jsonl, .ndjson or .parquet"),
    ],
)
def test_files_that_are_refused(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(ArchlabError) as refused:
        read_table(tmp_path / name)
    assert message in str(refused.value).replace("Not a", "not a")


@pytest.mark.parametrize(
    "cell",
    [1_400_000, 1.4e6, Decimal(1400000), "1400000", " 1.4e6 ", "1.4M", "1.4 million", "0.0014B params", "1,400,000", "1 400 000",
     "1\u202f400\u202f000", "1'400'000", "1_400_000", "1.4x10^6", "1.4 × 10**6", "14·10^5 tokens", "1.400.000"],
)  # fmt: skip
def test_ways_to_write_a_number(cell):
    assert number_of(cell) == pytest.approx(1.4e6, rel=1e-12)


@pytest.mark.parametrize(("cell", "number"), [("3,215", 3.215), ("1.400.000", 1.4e6), ("1.400,5", 1400.5), ("2.5e9", 2.5e9)])
def test_numbers_with_a_decimal_comma(cell, number):
    assert number_of(cell, "decimal") == pytest.approx(number)


@pytest.mark.parametrize("cell", [None, True, "", "3 of 4", "12%", "1,23,4", "nan", [1], "1.2.3", "5 apples"])
def test_what_is_no_number(cell):
    assert math.isnan(number_of(cell))


def test_powers_alone_and_beyond_the_range_of_numbers():
    assert number_of("10^18") == 1e18
    assert math.isinf(number_of("1e400"))
    assert math.isinf(number_of("2x10^999"))


@pytest.mark.parametrize(
    ("counts", "losses", "comma"),
    [
        (["70,000"], ["3.21"], "thousands"),
        (["70000"], ["3,215"], "decimal"),
        (["70,5"], [3.2], "decimal"),
        (["1.400.000,5"], [], "decimal"),
        (["1,400,000"], ["3.2"], "thousands"),
        ([1e6], [2.5], "thousands"),
    ],
)
def test_what_a_comma_stands_for(counts, losses, comma):
    assert comma_of(counts, losses) == comma


def test_a_comma_that_stands_for_both_is_refused():
    with pytest.raises(ArchlabError, match="decimal in 3,21 and separates thousands in 1,400,000"):
        comma_of(["1,400,000"], ["3,21"])


HOSTILE = {
    "[" * 50_000: "RecursionError|recursion",
    '{"a":' * 3000 + "1" + "}" * 3000: "recursion",
    '[{"params": 1' + "0" * 400 + ', "tokens": 1e7, "val_loss": 3}]': "params=1000.*takes positive numbers",
    '{"columns": 5, "data": 6}': "cannot be read",
    '{"columns": ["a"], "data": [5]}': "cannot be read",
    '{"columns": [["a"]], "data": [[5]]}': "cannot be read",
}


@pytest.mark.parametrize(("text", "reason"), HOSTILE.items(), ids=range(len(HOSTILE)))
def test_hostile_json_is_refused_in_one_line(tmp_path, text, reason):
    (tmp_path / "runs.json").write_text(text)
    with pytest.raises(ArchlabError, match=reason) as refusal:
        read_runs(tmp_path / "runs.json")
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 500


def test_the_time_for_long_cells_and_equal_names_stays_small(tmp_path):
    started = time.process_time()
    assert math.isnan(number_of("1" * 30_000 + "!"))
    (tmp_path / "wide.csv").write_text("c," * 20_000 + "c\n" + "1," * 20_000 + "1\n")
    assert len(read_table(tmp_path / "wide.csv").columns) == 20_001
    assert time.process_time() - started < 20  # it was minutes


def test_a_table_that_unpacks_to_more_than_any_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "_LARGEST", 1 << 20)
    (tmp_path / "bomb.csv.gz").write_bytes(gzip.compress(b"a" * (2 << 20)))
    (tmp_path / "endless.csv").symlink_to("/dev/zero")
    for name in ("bomb.csv.gz", "endless.csv"):
        with pytest.raises(ArchlabError, match="longer than 1 MiB"):
            read_table(tmp_path / name)
