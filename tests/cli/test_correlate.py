"""archlab correlate and check-table as a reader of papers uses them."""

import json
from pathlib import Path

from tests.cli.command_line import CommandLine


def test_a_published_table_is_correlated(archlab: CommandLine, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = archlab("correlate", "--published", "mesanet", "--size", "1B", "--tokens", "50B", "-o", "page.html")
    assert outcome.status == 0, outcome.err
    first = next(line for line in outcome.out.splitlines() if line.startswith("mean"))
    assert first.split()[:6] == ["mean", "0.65", "0.21", "to", "0.97", "29/36"]
    assert "29 of 36 pairs ordered right" in outcome.err
    page = (tmp_path / "page.html").read_text()
    assert "MAD scores order 29 of 36 pairs of 9 architectures" in page


def test_json_is_one_document(archlab: CommandLine):
    document = json.loads(archlab("correlate", "--published", "mad", "--json").out)
    assert round(document["rows"][0]["spearman"], 9) == -1
    assert "5 points say little" in document["headline"]


def test_wrong_input_is_refused(archlab: CommandLine, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words, reason in [
        ((), "no MAD scores"),
        (("--published", "x"), "unknown published tables 'x'"),
        (("--published", "mad", "--match", "a"), "--match a: write LOSSES=SCORES"),
        (("--store", "none.db", "--published", "mad"), "store none.db does not exist"),
        (("--published", "mad", "-o", "no/page.html"), "there is no directory"),
    ]:
        outcome = archlab("correlate", *words)
        assert outcome.status == 2
        assert reason in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_table_is_checked(archlab: CommandLine, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("model,recall,copy,mean\na,90,80,85\nb,95,70,90\n")
    outcome = archlab("check-table", "a.csv")
    assert outcome.status == 1
    assert "b 90 (columns give 82.5)" in outcome.out
    assert json.loads(archlab("check-table", "a.csv", "--json").out)[0]["kind"] == "mean"
    Path("b.csv").write_text("model,recall,copy,mean\na,90,80,85\nb,95,70,82.5\n")
    assert archlab("check-table", "b.csv").status == 0
