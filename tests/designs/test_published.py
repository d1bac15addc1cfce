"""The published tables are whole, and say where they are from."""

import csv
from pathlib import Path

import pytest

from archlab.designs.published import load_published, published_names
from archlab.errors import ArchlabError
from archlab.mad.protocol import load_protocol

SHARED = Path(__file__).parents[3] / "shared" / "published" / "mad_and_scale.csv"
TASKS = {"compression": "mad_compress", "selective-copying": "mad_copy", "memorization": "mad_memorize", "mean": "mad_mean"}


@pytest.mark.parametrize("name", published_names())
def test_a_source_has_tables_and_says_where_they_are_from(name: str):
    found = load_published(name)
    assert found.title
    assert "arXiv" in found.source or "github.com" in found.source
    assert all(len(outcome.values) >= 3 or outcome.where == "Table 5" for outcome in found.outcomes)
    names = [outcome.name for outcome in found.outcomes]
    assert len(set(zip(names, (outcome.where for outcome in found.outcomes), strict=True))) == len(names)
    if found.scores is not None:
        known = {*load_protocol("paper").tasks, "mean"}
        assert all(row.keys() <= known for row in found.scores.percent.values())
        assert found.names.keys() <= found.scores.percent.keys() | found.outcomes[0].values.keys()


def test_an_unknown_source_is_refused():
    with pytest.raises(ArchlabError, match="unknown published tables 'mesa': did you mean 'mesanet'"):
        load_published("mesa")


@pytest.mark.skipif(not SHARED.exists(), reason="the collected tables are not beside this checkout")
@pytest.mark.parametrize(("name", "start"), [("mesanet", "MesaNet"), ("lin-attn-bench", "lin-attn"), ("mad", "MAD,")])
def test_the_figures_are_those_that_were_collected(name: str, start: str):
    with SHARED.open() as file:
        rows = [row for row in csv.DictReader(file) if row["source"].startswith(start)]
    published = load_published(name)
    assert published.scores is not None
    for row in rows:
        scores = published.scores.percent.get(row["architecture"], {})
        if row["mad_mean"]:
            assert {task: scores[task] for task in TASKS if task in scores} == {
                task: float(row[column]) for task, column in TASKS.items() if row[column]
            }
        if row["value"]:
            of_row = [outcome for outcome in published.outcomes if outcome.metric == row["metric"]]
            assert float(row["value"]) in [outcome.values.get(row["architecture"]) for outcome in of_row]
