import csv
import math
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


def test_a_column_that_may_name_architectures_is_told_where_none_is_found(tmp_path):
    some = [row | {"Arch. Name": row.pop("model"), "run": f"r{place}", "state": "finished"} for place, row in enumerate(rows())]
    for row in some[28:]:
        row["params"] *= 1.01
    table = write(tmp_path / "t.csv", some)
    (note,) = import_runs(table, tmp_path / "a.db")["notes"]
    assert note.startswith("no column of architectures, so all training runs are of one, t: ")
    assert note.endswith("the table also has Arch. Name")
    assert import_runs(table, tmp_path / "b.db", {"architecture": "Arch. Name"})["notes"] == []


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


@pytest.mark.parametrize(
    ("params", "tokens", "scale"),
    [
        ("Params (M)", "Tokens (B)", (1e6, 1e9)),
        ("params_millions", "tokens_b", (1e6, 1e9)),
        ("Parameters (in billions)", "training tokens [x10^9]", (1e9, 1e9)),
        ("N (1e6)", "D (billion tokens)", (1e6, 1e9)),
    ],
)
def test_units_in_the_heads_of_columns(tmp_path, params, tokens, scale):
    some = [
        {"model": r["model"], params: r["params"] / scale[0], tokens: r["tokens"] / scale[1], "loss": r["val_loss"]}
        for r in rows()
    ]
    table = scaling.read_runs(write(tmp_path / "a.csv", some)).tables["x"]
    expected = scaling.read_runs(write(tmp_path / "b.csv", list(rows()))).tables["x"]
    np.testing.assert_allclose(table.N, expected.N)
    np.testing.assert_allclose(table.D, expected.D)


def test_counts_in_billions_that_nothing_says_are_refused_until_a_factor_says_so(tmp_path):
    some = [row | {"tokens": row["tokens"] / 1e9} for row in rows()]
    table = write(tmp_path / "a.csv", some)
    with pytest.raises(ArchlabError, match=r"N=params, D=tokens: .* tokens a parameter in the median: .*D=tokens\*1e9"):
        scaling.read_runs(table)
    assert import_runs(table, tmp_path / "a.db", {"D": "tokens*1e9"})["columns"]["D"] == "tokens*1e9"
    scaling.read_runs(table, {"D": "tokens*1"})
    for millions in ({"params": 1e6}, {"params": 1e6, "tokens": 1e9}, {"params": 1e9, "tokens": 1e9}):
        with pytest.raises(ArchlabError, match="millions or billions"):
            scaling.read_runs(write(table, [row | {name: row[name] / by for name, by in millions.items()} for row in rows()]))
    with pytest.raises(ArchlabError, match=r"C is 1e-18 times 6 N D"):
        scaling.read_runs(write(table, [row | {"C": 6e-18 * row["params"] * row["tokens"]} for row in rows()]))
    with pytest.raises(ArchlabError, match="'many' is no factor"):
        scaling.read_runs(table, {"D": "tokens*many"})


@pytest.mark.parametrize(
    ("head", "unit", "convert"),
    [
        ("val_ppl", "perplexity", math.exp),
        ("Perplexity", "perplexity", math.exp),
        ("loss (bits)", "bits", lambda x: x / math.log(2)),
    ],
)
def test_the_unit_of_losses_that_a_name_says(tmp_path, head, unit, convert):
    some = [{name: row[name] for name in ("model", "params", "tokens")} | {head: convert(row["val_loss"])} for row in rows()]
    table = write(tmp_path / "a.csv", some)
    found = import_runs(table, tmp_path / "a.db")
    assert (found["loss_unit"], found["notes"]) == (unit, [])
    np.testing.assert_allclose(scaling.read_runs(table).tables["x"].loss[0], next(rows())["val_loss"], rtol=1e-12)
    if unit == "bits":
        np.testing.assert_allclose(scaling.read_runs(table, loss_unit="nats").tables["x"].loss[0], some[0][head], rtol=1e-12)


@pytest.mark.parametrize("value", ["NaN", "N/A", "-", "inf", "diverged", "null", "OOM", "#N/A"])
def test_words_for_no_loss(tmp_path, value):
    some = list(rows())
    some[3]["val_loss"] = value
    assert len(scaling.read_runs(write(tmp_path / "a.csv", some)).tables["x"].censored) == 1


def test_sizes_in_the_names_of_models_are_left_out(tmp_path):
    some = [row | {"model": f"{row['model']}-{row['params'] / 1e6:.0f}m"} for row in rows()]
    found = import_runs(write(tmp_path / "a.csv", some), tmp_path / "a.db")
    assert found["architectures"] == {"x": 28, "y": 28}
    assert found["notes"] == ["column model names sizes too: architectures are x, y; architecture=model takes it whole"]


def test_doubts_about_names_losses_and_states_are_told(tmp_path):
    some = [row | {"model": row["model"].upper() if i % 2 else row["model"], "State": "finished"} for i, row in enumerate(rows())]
    some[0]["State"], some[1]["State"], some[1]["val_loss"] = "crashed", "crashed", ""
    notes = import_runs(write(tmp_path / "a.csv", some), tmp_path / "a.db")["notes"]
    assert "x and X are taken for different architectures" in notes
    assert notes[-1].startswith("column State has 1 crashed with losses")
    poor = [row | {"val_loss": row["val_loss"] + 6} for row in rows()]
    assert "is the unit" in import_runs(write(tmp_path / "b.csv", poor), tmp_path / "b.db")["notes"][0]


def test_a_column_of_budgets_must_hold_flops(tmp_path):
    some = [row | {"budget": i % 28 // 7 + 1, "b": "small"} for i, row in enumerate(rows())]
    table = write(tmp_path / "a.csv", some)
    found = import_runs(table, tmp_path / "a.db")
    assert len(found["budgets"]) == 4
    assert found["notes"] == [
        "column budget is 3.44e-19 times the FLOPs of the runs in the median, so it is not taken for budgets"
    ]
    with pytest.raises(ArchlabError, match="budget=budget: column budget is"):
        scaling.read_runs(table, {"budget": "budget"})


def test_plainer_names_are_taken_before_single_letters_and_validation_before_other_losses(tmp_path):
    some = [row | {"n": 12, "d": 512, "c": "red", "budget": "small", "loss": row["val_loss"] - 0.1} for row in rows()]
    found = import_runs(write(tmp_path / "a.csv", some), tmp_path / "a.db")
    assert found["columns"] == {"N": "params", "D": "tokens", "loss": "val_loss", "architecture": "model"}
    assert found["notes"] == [
        f"column {name} has no numbers, so it is not taken for {x}" for name, x in (("c", "C"), ("budget", "budget"))
    ]


def test_losses_by_byte_are_told(tmp_path):
    some = [{name: row[name] for name in ("model", "params", "tokens")} | {"bpb": row["val_loss"] / 3} for row in rows()]
    found = import_runs(write(tmp_path / "a.csv", some), tmp_path / "a.db")
    assert (found["loss_unit"], found["notes"]) == (
        "bits",
        ["column bpb counts bytes: losses are in nats a byte, where tables say nats a token"],
    )


@pytest.mark.parametrize("seed", ["1.5", "", "x", "inf"])
def test_a_seed_is_a_whole_number(tmp_path, seed):
    with pytest.raises(ArchlabError, match=f"row 1: seed={seed}: a seed is a whole number"):
        scaling.read_runs(write(tmp_path / "a.csv", [row | {"seed": seed} for row in rows()]))


def test_one_column_is_not_two_numbers_and_every_architecture_has_a_name(tmp_path):
    with pytest.raises(ArchlabError, match="N=params and D=params: give each"):
        scaling.read_runs(write(tmp_path / "a.csv", list(rows())), {"N": "params", "D": "params"})
    some = list(rows())
    some[4]["model"] = " "
    with pytest.raises(ArchlabError, match="row 5: model is empty"):
        scaling.read_runs(write(tmp_path / "a.csv", some))


def test_runs_within_five_percent_of_their_budget_share_it_and_budgets_that_run_on_are_divided():
    rng = np.random.default_rng(0)
    nominal = np.repeat([1e18, 1.3e18, 4e18], 6)
    for _ in range(20):
        found = group_budgets(nominal * rng.uniform(0.95, 1.05, nominal.size))
        assert len(np.unique(found)) == 3
    running_on = np.sort(rng.uniform(1e18, 1e19, 300))
    found = group_budgets(running_on)
    np.testing.assert_allclose(found, running_on, rtol=0.11)


def test_nearly_equal_flops_are_of_one_budget():
    np.testing.assert_allclose(group_budgets(np.array([1.0, 1.02, 4.0, 1.01])), [1.01, 1.01, 4.0, 1.01])


@pytest.mark.skipif(not VALIDATION.is_dir(), reason="the data of others are not beside this checkout")
def test_a_published_table_gives_its_published_law(tmp_path):
    fit = scaling.fit(scaling.read_runs(VALIDATION / "kyo-takano" / "df.csv"), resamples=0).laws[0].by_method["huber"].fit
    assert (fit.E, fit.A, fit.B, fit.alpha, fit.beta) == pytest.approx((1.78389, 442.16, 1271.81, 0.342626, 0.342002), rel=1e-4)
