import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import archlab
from archlab import scaling
from archlab.errors import ArchlabError
from archlab.scaling.imports import group_budgets, import_runs
from archlab.scaling.study import open_study

LAWS = {"x": (1.69, 406.4, 410.7, 0.34, 0.28), "y": (1.6, 500.0, 450.0, 0.36, 0.29)}
VALIDATION = Path(__file__).parents[3] / "shared" / "validation"


def rows():
    for model, (floor, a, b, alpha, beta) in LAWS.items():
        for flops in (1e18, 4e18, 1.6e19, 6.4e19):
            for size in 3.3e8 * (flops / 1e19) ** 0.45 * 4 ** np.linspace(-1, 1, 7):
                tokens = flops / 6 / size
                loss = floor + a * size**-alpha + b * tokens**-beta
                yield {"model": model, "params": float(size), "tokens": float(tokens), "val_loss": float(loss)}


def write(path, some):
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(some[0]))
        table.writeheader()
        table.writerows(some)
    return path


def test_a_known_law_comes_back_from_a_table(tmp_path):
    study = scaling.read_runs(write(tmp_path / "a.csv", list(rows())))
    fitted = scaling.fit(study, resamples=0)
    for laws in fitted.laws:
        fit = laws.by_method["huber"].fit
        assert (fit.E, fit.A, fit.B, fit.alpha, fit.beta) == pytest.approx(LAWS[laws.runs.label], rel=1e-3)
        assert "envelope" in laws.refused
    assert fitted.to_dict()["architectures"].keys() == LAWS.keys()


def test_the_store_of_a_table_gives_the_same_study_and_its_report_reads_back(tmp_path):
    table, store = write(tmp_path / "a.csv", list(rows())), tmp_path / "a.db"
    assert import_runs(table, store)["runs"] == import_runs(table, store)["runs"] == 56
    study = open_study(store)
    np.testing.assert_array_equal(study.tables["y"].loss, scaling.read_runs(table).tables["y"].loss)
    back = scaling.read_runs(scaling.report(scaling.fit(study, resamples=0), tmp_path / "r.html"))
    np.testing.assert_array_equal(back.tables["y"].budget, study.tables["y"].budget)
    counts = archlab.check_store(store)
    assert counts.tables[-1]["finished"] == 56
    assert not counts.unreadable
    assert archlab.rekey_store(store)["current"] == 56
    assert archlab.merge_stores(store, tmp_path / "b.db")["imported_runs"] == 56


def test_columns_are_found_by_usual_names_however_they_are_spelt(tmp_path):
    spelt = {"params": "Num Params", "tokens": "train/tokens", "val_loss": "Validation-Loss"}
    some = [{spelt.get(name, name): value for name, value in row.items()} for row in rows()]
    found = import_runs(write(tmp_path / "a.csv", some), tmp_path / "a.db")
    assert found["columns"] == {"N": "Num Params", "D": "train/tokens", "loss": "Validation-Loss", "architecture": "model"}
    assert (found["architectures"], found["notes"]) == ({"x": 28, "y": 28}, [])


def test_a_column_that_names_sizes_is_no_architecture_unless_it_is_given(tmp_path):
    some = [row | {"model": f"{row['params']:.3g}"} for row in rows() if row["model"] == "x"]
    table = write(tmp_path / "a.csv", some)
    found = import_runs(table, tmp_path / "a.db")
    assert found["architectures"] == {"a": 28}
    assert found["notes"] == ["column model names sizes, so all runs are of one architecture; architecture=model takes it"]
    assert len(scaling.read_runs(table, {"architecture": "model"}).tables) == 28


def test_studies_that_were_mixed_are_told_and_columns_together_name_an_architecture(tmp_path):
    some = [row | {"width": row.pop("model"), "corpus": place} for place in "ab" for row in rows()]
    for row in some[56:]:
        row["val_loss"] += 0.1
    table = write(tmp_path / "t.csv", some)
    (note,) = import_runs(table, tmp_path / "a.db")["notes"]
    assert note.startswith("84 training runs have the architecture, parameters and tokens of another one")
    assert note.endswith("the table also has width, corpus")
    assert set(scaling.read_runs(table, {"architecture": "width+corpus"}).tables) == {"x a", "x b", "y a", "y b"}
    with pytest.raises(ArchlabError, match=r"architecture=width\+other: the table has params"):
        scaling.read_runs(table, {"architecture": "width+other"})


def test_rows_without_a_loss_are_kept_apart(tmp_path):
    some = list(rows())
    some[0]["val_loss"] = ""
    study = scaling.read_runs(write(tmp_path / "a.csv", some))
    assert (len(study.tables["x"].loss), len(study.tables["x"].censored)) == (27, 1)
    warnings = scaling.fit(study, resamples=0).warnings
    assert [len(one.cases) for one in warnings if one.cause == "training runs without a loss, left out"] == [1]


def test_whole_numbers_beyond_64_bits(tmp_path):
    (tmp_path / "b.csv").write_text("C,N,loss\n100000000000000000000,1000000,3.0\n")
    assert pytest.approx([1e20 / 6e6]) == scaling.read_runs(tmp_path / "b.csv").tables["b"].D


def test_a_column_of_flops_or_6nd(tmp_path):
    table = tmp_path / "a.csv"
    table.write_text("N,D,C,loss\n1e6,2e7,2.4e14,3.0\n2e6,2e7,3.6e14,2.9\n")
    by_column, by_6nd = (scaling.read_runs(table, flops=flops).tables["a"] for flops in ("column", "6nd"))
    np.testing.assert_allclose(by_column.C, [2.4e14, 3.6e14])
    np.testing.assert_allclose(by_6nd.C, [1.2e14, 2.4e14])
    found = import_runs(table, tmp_path / "a.db")
    assert found["flops"] == "column C"
    assert found["flops_over_6nd"] == pytest.approx((1.5, 1.75, 2.0))
    with pytest.raises(ArchlabError, match="give another store"):
        import_runs(table, tmp_path / "a.db", flops="6nd")
    with pytest.raises(ArchlabError, match="flops='mine'"):
        scaling.read_runs(table, flops="mine")


def test_jsonl_and_parquet(tmp_path):
    frame = pd.DataFrame(rows())
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True, double_precision=15)
    pytest.importorskip("pyarrow")
    frame.to_parquet(tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        assert len(scaling.read_runs(tmp_path / name).tables["x"].loss) == 28


@pytest.mark.parametrize("value", ["-1", "0", "many", "nan", "inf", ""])
def test_what_is_no_positive_number_is_named_by_row_and_column(tmp_path, value):
    (tmp_path / "a.csv").write_text(f"N,tokens,loss\n1,1,3\n2,{value},3\n")
    with pytest.raises(ArchlabError, match=f"row 2: tokens={value}"):
        scaling.read_runs(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("N,loss\n1,2\n", "two of N"),
        ("N,D\n1,2\n", "no column of losses"),
        ("N,D,loss\n1,2,3\n1,2,3\n", "rows 1 and 2 are the same run"),
        ("N,D,loss\n1,2,300\n", "is the unit"),
        ("N,D,loss,seed\n1,2,3,a\n", "seed=a"),
        ("N,D,loss\n", "no rows"),
    ],
)
def test_tables_that_are_refused(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ArchlabError, match=message):
        scaling.read_runs(tmp_path / "a.csv")


def test_nearly_equal_flops_are_of_one_budget():
    np.testing.assert_allclose(group_budgets(np.array([1.0, 1.02, 4.0, 1.01])), [1.01, 1.01, 4.0, 1.01])


@pytest.mark.skipif(not VALIDATION.is_dir(), reason="the data of others are not beside this checkout")
def test_a_published_table_gives_its_published_law(tmp_path):
    fit = scaling.fit(scaling.read_runs(VALIDATION / "kyo-takano" / "df.csv"), resamples=0).laws[0].by_method["huber"].fit
    assert (fit.E, fit.A, fit.B, fit.alpha, fit.beta) == pytest.approx((1.78389, 442.16, 1271.81, 0.342626, 0.342002), rel=1e-4)
