"""Training runs of others go into a store by a command, and every command that reads stores can read that one."""

import builtins
import csv
import json
from pathlib import Path

import numpy as np
import pytest
from tests.cli.command_line import CommandLine

VALIDATION = Path(__file__).parents[3] / "shared" / "validation"


@pytest.fixture
def archlab(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> CommandLine:
    monkeypatch.chdir(tmp_path)
    return CommandLine(monkeypatch, capsys)


@pytest.fixture
def table(tmp_path: Path) -> str:
    """Two architectures by two laws, with FLOPs that are a tenth more than 6 N D."""
    path = tmp_path / "runs.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "size", "tokens", "flops", "val_loss"])
        for model, floor in (("one", 1.69), ("other", 1.75)):
            for flops in (1e18, 4e18, 1.6e19, 6.4e19):
                for size in 3.3e8 * (flops / 1e19) ** 0.45 * 4 ** np.linspace(-1, 1, 7):
                    tokens = flops / 6.6 / size
                    writer.writerow([model, size, tokens, flops, floor + 406.4 * size**-0.34 + 410.7 * tokens**-0.28])
    return str(path)


@pytest.mark.slow
def test_a_table_is_imported_fitted_predicted_and_reported(archlab: CommandLine, table: str, tmp_path: Path):
    shown = archlab("scale", "import", table, "--columns", "N=size", "-o", "study.db")
    assert (shown.status, shown.out) == (0, "")
    assert "N=size" in shown.err
    assert "FLOPs: column flops; the column is 1.1 to 1.1 times 6 N D, in the middle 1.1; `--flops 6nd` takes 6 N D" in shown.err
    assert "56 training runs in study.db, 0 without a loss" in shown.err
    fitted = archlab("scale", "fit", "--store", "study.db", "--resamples", "30", "--json")
    document = json.loads(fitted.out)
    assert document["architectures"]["one"]["cost"]["source"] == "6.6 N"
    assert not [one for one in document["warnings"] if "disagree" in one["cause"]]
    told = archlab("scale", "predict", "--flops", "1e21", "--store", "study.db", "--resamples", "0", "--json")
    huber = next(row for row in json.loads(told.out) if (row["architecture"], row["method"]) == ("one", "huber"))
    assert huber["size"]["value"] * huber["tokens"]["value"] == pytest.approx(1e21 / 6.6, rel=1e-6)
    back = archlab("scale", "predict", "--loss", str(huber["loss"]["value"]), "--store", "study.db", "--resamples", "0", "--json")
    again = next(row for row in json.loads(back.out) if (row["architecture"], row["method"]) == ("one", "huber"))
    assert again["flops"]["value"] == pytest.approx(1e21, rel=1e-6)
    assert "envelope" not in archlab("scale", "fit", "--store", "study.db", "--resamples", "0").err
    assert "envelope" not in archlab("scale", "predict", "--flops", "1e21", "--store", "study.db", "--resamples", "0").err
    reported = archlab("scale", "report", "--store", "study.db", "--resamples", "0", "-o", "page.html")
    assert (reported.status, "<html" in (tmp_path / "page.html").read_text()[:300]) == (0, True)
    assert json.loads(archlab("scale", "import", "page.csv", "-o", "back.db", "--json").out)["runs"] == 56


def test_six_nd_in_place_of_the_column_needs_a_store_of_its_own(archlab: CommandLine, table: str):
    options = ("scale", "import", table, "--columns", "N=size")
    first = json.loads(archlab(*options, "-o", "6nd.db", "--flops", "6nd", "--json").out)
    assert (first["flops"], first["runs"]) == ("6 N D", 56)
    assert first["flops_over_6nd"] == pytest.approx([1.1, 1.1, 1.1])
    assert archlab(*options, "-o", "6nd.db", "--flops", "6nd").status == 0
    refused = archlab(*options, "-o", "6nd.db")
    assert (refused.status, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert "give another store" in refused.err
    document = json.loads(archlab("scale", "fit", "--store", "6nd.db", "--resamples", "0", "--json").out)
    assert {one["cost"]["source"] for one in document["architectures"].values()} == {"6 N"}
    assert len(document["architectures"]["one"]["training_runs"]) == 28


def test_commands_that_read_stores_read_this_one(archlab: CommandLine, table: str, tmp_path: Path):
    assert archlab("scale", "import", table, "--columns", "N=size", "-o", "study.db").status == 0
    checked = archlab("store", "check", "--store", "study.db", "--json")
    assert (checked.status, json.loads(checked.out)["unreadable"]) == (0, [])
    merged = archlab("store", "merge", "study.db", "--store", "merged.db")
    assert (merged.status, "56 imported runs" in merged.err) == (0, True)
    assert archlab("scale", "fit", "--store", "merged.db", "--resamples", "0").status == 0
    exported = archlab("store", "export", "--store", "study.db", "-o", "trials.csv")
    listed, ran = archlab("trials", "--store", "study.db"), archlab("runs", "--store", "study.db")
    assert (exported.status, listed.status, ran.status) == (0, 0, 0)
    assert "wrote 0 trials" in exported.err
    assert "no runs" in ran.err
    for told in (exported, listed, ran):
        assert "has no trials, but 56 imported training runs, for `archlab scale fit --store study.db`, `compare`" in told.err


def test_names_with_marks_and_of_any_length_leave_tables_whole(archlab: CommandLine, tmp_path: Path):
    names = ["[red]one[/red]", "x" * 120]
    with (tmp_path / "runs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arch", "params", "tokens", "loss"])
        for floor, name in enumerate(names):
            for flops in (1e18, 4e18, 1.6e19):
                for size in 3.3e8 * (flops / 1e19) ** 0.45 * 4 ** np.linspace(-1, 1, 5):
                    tokens = flops / 6 / size
                    writer.writerow([name, size, tokens, 1.7 + floor / 50 + 406.4 * size**-0.34 + 410.7 * tokens**-0.28])
    assert archlab("scale", "import", "runs.csv", "-o", "study.db").status == 0
    told = archlab("scale", "compare", "--store", "study.db", "--resamples", "0")
    lines = told.out.splitlines()
    assert any("1.6e+19" in line and "0.0" in line for line in lines)
    assert f"beside {names[0]}; intervals of" in " ".join(told.out.split())
    assert max(map(len, lines)) > 90  # the note below the table is as wide as the page


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--columns", "N=width"), "columns: N=width: the table has model, size"),
        (("--columns", "width=size"), "columns: width=size: give N, D, C"),
        ((), "row 1: val_loss"),
        (("--columns", "loss=model"), "row 1: model=one"),
        (("--columns", "N=#W"), "columns: N=#W: the table has model"),
        (("--columns", "N=loss, val,D=tokens"), "columns: N=loss, val: the table has model"),
        (("--columns", "N"), "--columns N: write NAME=COLUMN, as in N=params"),
        (("--columns", "N="), "--columns N=: write NAME=COLUMN"),
        (("--columns", "=size"), "--columns =size: write NAME=COLUMN"),
        (("--columns", "N=size,N=tokens"), "--columns N=tokens: N is given twice"),
    ],
)
def test_what_is_wrong_is_refused_in_one_line_and_nothing_is_written(archlab, table, arguments, named, tmp_path):
    unit = ("--loss-unit", "perplexity") if not arguments else ()
    if unit:
        Path(table).write_text("N,D,val_loss\n1e9,1e10,1.0\n")
    outcome = archlab("scale", "import", table, *arguments, *unit, "-o", "study.db")
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert named in outcome.err
    assert not (tmp_path / "study.db").exists()


def test_columns_with_signs_in_their_names(archlab: CommandLine, tmp_path: Path):
    (tmp_path / "runs.csv").write_text('#W,"tokens, all",val loss: yes,loss [ppl]\n1e9,1e10,2,20\n2e9,1e10,2,18\n')
    shown = archlab("scale", "import", "runs.csv", "--columns", "N=#W,D=tokens, all,loss=loss [ppl]", "-o", "study.db")
    assert (shown.status, shown.err.splitlines()[:2]) == (
        0,
        ["columns: N=#W, D=tokens, all, loss=loss [ppl]", "losses: from perplexity to nats"],
    )


def test_parquet_without_pyarrow_is_refused_with_the_extra_to_install(archlab, tmp_path, monkeypatch):
    (tmp_path / "runs.parquet").write_bytes(b"PAR1")
    real = builtins.__import__

    def without(name, *rest, **values):
        if name.partition(".")[0] in ("pyarrow", "fastparquet"):
            raise ImportError(name)
        return real(name, *rest, **values)

    monkeypatch.setattr(builtins, "__import__", without)
    refused = archlab("scale", "import", "runs.parquet", "-o", "study.db")
    assert (refused.status, refused.err.count("\n")) == (2, 1)
    assert "pip install 'archlab[hf]'" in refused.err


@pytest.mark.skipif(not VALIDATION.is_dir(), reason="the data of others are not beside this checkout")
@pytest.mark.slow
def test_a_published_table_gives_its_published_law(archlab: CommandLine):
    assert archlab("scale", "import", str(VALIDATION / "kyo-takano" / "df.csv"), "-o", "study.db").status == 0
    document = json.loads(archlab("scale", "fit", "--store", "study.db", "--resamples", "0", "--asymmetric", "--json").out)
    methods = document["architectures"]["df"]["methods"]
    expected = {"E": 1.78389, "A": 442.16, "B": 1271.81, "alpha": 0.342626, "beta": 0.342002}
    assert {name: methods["huber"]["fit"][name] for name in expected} == pytest.approx(expected, rel=1e-4)
    expected = {"E": 1.7004, "alpha": 0.28923, "beta": 0.35560}  # A and B were published further from the least error
    assert {name: methods["asymmetric"]["fit"][name] for name in expected} == pytest.approx(expected, rel=1e-3)
