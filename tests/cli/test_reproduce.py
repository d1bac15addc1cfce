"""archlab reproduce."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.cli.command_line import CommandLine

from archlab.designs.finding import finding_names, load_finding
from archlab.designs.verdict import Quantity, Region, over_seeds
from archlab.findings import Reproduction
from archlab.reports.findings_table import claimed, with_interval

FOUND = Reproduction(
    finding=load_finding("negative-eigenvalues"),
    size="laptop",
    quantities=(over_seeds("score of one − other", [20.0, 21.0, 22.0], Region(1.0), unit="points"),),
    trials=6,
    training_runs=0,
    cpu_seconds=120.0,
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The calls of `archlab.reproduce`, which trains nothing here."""
    calls: list[tuple[str, dict[str, Any]]] = []

    def reproduce(name: str, **options: Any) -> Reproduction:
        calls.append((name, options))
        return FOUND

    monkeypatch.setattr("archlab.reproduce", reproduce, raising=False)
    monkeypatch.chdir(tmp_path)
    return calls


def test_without_a_name_all_findings_are_listed_with_claim_and_source(archlab: CommandLine):
    rows = json.loads(archlab("reproduce", "--json").out)
    assert [row["finding"] for row in rows] == finding_names()
    assert all(row["claim"] and row["source"] for row in rows)
    listed = archlab("reproduce")
    assert "striped" in listed.out
    assert "archlab reproduce NAME" in listed.err


def test_claim_source_interval_cost_and_verdict_are_printed(archlab: CommandLine, asked: list[Any]):
    shown = " ".join(archlab("reproduce", "negative-eigenvalues", "--store", "mine.db", "--workers", "1").out.split())
    for part in ("tracks parity", "arXiv 2411.12537", "+21.0 points [18.5, 23.5]", "claimed above 1.0 points", "over 3 seeds"):
        assert part in shown
    assert shown.endswith("cost 2 min of processor time for 6 trials, size laptop verdict supported")
    assert asked == [
        ("negative-eigenvalues", {"size": "laptop", "store": "mine.db", "workers": 1, "executor": "local"}),
    ]


def test_json_has_everything(archlab: CommandLine, asked: list[Any]):
    document = json.loads(archlab("reproduce", "negative-eigenvalues", "--size", "smoke", "--json").out)
    assert (document["verdict"], document["source"]) == ("supported", "Grazzi et al., arXiv 2411.12537")
    quantity = document["quantities"][0]
    assert (quantity["above"], quantity["below"], quantity["by_seed"]) == (1.0, None, [20.0, 21.0, 22.0])
    assert asked[0][1]["size"] == "smoke"


def test_an_unknown_finding_is_refused_in_a_line(archlab: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    refused = archlab("reproduce", "negative-eigenvalue")
    assert (refused.status, refused.err) == (
        2,
        "error: unknown finding 'negative-eigenvalue': did you mean 'negative-eigenvalues'?\n",
    )
    assert not list(tmp_path.iterdir())


def test_ctrl_c_says_where_results_are(archlab: CommandLine, monkeypatch: pytest.MonkeyPatch):
    def interrupted(name: str, **options: Any) -> Reproduction:
        raise KeyboardInterrupt

    monkeypatch.setattr("archlab.reproduce", interrupted, raising=False)
    stopped = archlab("reproduce", "striped")
    assert stopped.status == 130
    assert "findings.db; the same command does the rest" in stopped.err


def test_numbers_have_the_digits_of_their_unit():
    exponent = Quantity(name="", unit="", value=-0.28, low=-0.3, high=-0.26, region=Region(-0.42, -0.14))
    assert with_interval(exponent) == "−0.280 [−0.300, −0.260]"
    assert claimed(exponent) == "from −0.420 to −0.140"
    assert claimed(replace(exponent, region=Region(below=-0.14), unit="nats")) == "below −0.140 nats"
    assert with_interval(replace(exponent, value=None)) == "–"
