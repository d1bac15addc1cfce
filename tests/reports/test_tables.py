import io

import pandas as pd
import pytest
from rich.console import Console, RenderableType
from tests.synthetic_records import plan, record, score, simulate

from archlab.architectures import Architecture, architecture
from archlab.architectures.stored import UnavailableLayers
from archlab.format import csv_text, human, percent, points, probability
from archlab.mad.protocol import load_protocol
from archlab.mad.scores import Scores
from archlab.mad.trial import Trial
from archlab.reports.scaling_tables import _memory
from archlab.reports.tables import (
    architecture_dict,
    architecture_table,
    differences_table,
    leaderboard,
    learning_table,
    plain_table,
)
from archlab.tasks import setting

CATALOGUE = ["transformer++", "hyena", "mamba", "striped-mh-hyena", "gla", "mh-hyena"]
TASKS = tuple(load_protocol("paper").tasks)
SETTINGS = [setting(task) for task in TASKS]


def _truth(trial: Trial) -> float:
    return 0.2 + 0.1 * CATALOGUE.index(trial.architecture.label)


@pytest.fixture(scope="module")
def scores() -> Scores:
    trials = plan(CATALOGUE, SETTINGS)
    return score(trials, simulate(trials, _truth))


def text(table: RenderableType, width: int = 100, *, style: bool = False) -> str:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=style, color_system="truecolor" if style else None).print(table)
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 100])
def test_six_architectures_take_a_line_each(scores: Scores, width: int) -> None:
    lines = text(leaderboard(scores, width), width).splitlines()
    rows = [line.rstrip() for line in lines[1:7]]
    assert [row.split()[0] for row in rows] == CATALOGUE[::-1]
    assert max(len(row) for row in rows) <= width
    found = scores.architectures[0]
    assert rows[0].split()[1:7] == [percent(task.score) for task in found.tasks]
    assert rows[0].split()[-3:] == [human(found.costs.num_params), human(found.costs.state_size), human(found.costs.flops)]


def test_best_of_each_column_is_bold(scores: Scores) -> None:
    lines = text(leaderboard(scores), style=True).splitlines()
    assert lines[1].count("\x1b[1m") == 7  # leads on every task and in the mean
    assert all("\x1b[1m" not in line for line in lines[2:7])


def test_what_is_missing_is_marked_and_explained() -> None:
    trials = plan(CATALOGUE[:2], SETTINGS, seeds=(0,))
    records = simulate(trials, _truth)
    records[trials[0].key] = record(trials[0], None, status="failed", error="a [bracket]")
    found = text(leaderboard(score(trials, records)))
    row = next(line for line in found.splitlines() if line.startswith("transformer++"))
    assert row.split()[1] == "–"
    assert row.split()[7].endswith("*")
    assert "transformer++ 5 of 6" in found
    assert "seed 0: 1 of 1 trials failed (a [bracket])" in found
    assert "one seed" in found


def test_specs_are_not_read_as_markup() -> None:
    trials = plan(["2*[mlp swiglu]"], SETTINGS[:1], seeds=(0,))
    scores = score(trials, simulate(trials, lambda _: 0.5))
    for table in (leaderboard(scores), learning_table(scores), architecture_table(architecture("2*[mlp swiglu]"), 16, 128)):
        assert "mlp" in text(table)
    assert "2*[mlp swiglu]" in text(leaderboard(scores))


def test_learning_speed() -> None:
    trials = plan(CATALOGUE[:1], SETTINGS[:1])
    scores = score(trials, simulate(trials, lambda _: 1.0, spread=0.0))
    (task,) = scores.architectures[0].tasks
    steps = task.settings[0].steps_to_solve
    assert steps is not None
    assert f"{percent(task.learning_curve_area)} / {steps:,.0f}" in text(learning_table(scores))


def test_differences(scores: Scores) -> None:
    rows = text(differences_table(scores)).splitlines()[1:6]
    assert [row.split()[0] for row in rows] == CATALOGUE[-2::-1]
    assert rows[0].split()[1].startswith("−")
    assert rows[0].split()[-1] == "<0.01"


@pytest.mark.parametrize("spec", CATALOGUE)
def test_the_parts_of_an_architecture_sum_to_its_totals(spec: str) -> None:
    value = architecture(spec)
    found = architecture_dict(value, vocab_size=16, length=96, dim=64)
    parts = [*found["layers"], *found["around"]]
    assert found["total"]["parameters"] == value.num_params(vocab_size=16, length=96, dim=64)
    for what in ("parameters", "state", "flops"):
        assert found["total"][what] == sum(part[what] for part in parts)
    assert all(part["flops"] >= part["active_flops"] >= 0 for part in parts)
    assert len(found["layers"]) == len(value.layers)
    table = text(architecture_table(value, vocab_size=16, length=96, dim=64))
    assert f"{found['total']['parameters']:,}" in table


def test_plain_table() -> None:
    found = text(plain_table([{"name": "a[b]", "number": 1234567}, {"name": "c", "number": 2}]))
    assert "a[b]" in found
    assert "1,234,567" in found
    assert plain_table([]).row_count == 0


@pytest.mark.parametrize(
    ("number", "written"),
    [(0, "0"), (98, "98"), (999, "999"), (1000, "1k"), (407184, "407k"), (999_600, "1M"), (1.23e9, "1.23G"), (4e17, "400P")],
)
def test_human(number: float, written: str) -> None:
    assert human(number) == written


def test_what_is_not_known_is_a_question_mark() -> None:
    assert human(None) == "?"
    assert "?" in text(architecture_table(architecture("torch.nn.Linear(out_features=64) mlp"), vocab_size=16, length=96, dim=64))


def test_numbers_as_written() -> None:
    assert [percent(x) for x in (0.1234, 0.9994, 0.9996, 1.0, None)] == ["12.3", "99.9", "100", "100", "–"]
    assert [points(x) for x in (0.012, -0.345)] == ["+1.2", "−34.5"]
    assert [probability(x) for x in (0.0, 0.5, 1.0)] == ["<0.01", "0.50", ">0.99"]


def test_chance_is_the_last_row(scores: Scores) -> None:
    row = text(leaderboard(scores)).splitlines()[7].split()
    assert row[:7] == ["chance", *(percent(setting(task).chance) for task in scores.tasks)]
    assert float(row[7]) == pytest.approx(100 * sum(task.chance for task in SETTINGS) / 6, abs=0.05)


@pytest.mark.parametrize(
    ("width", "heads"), [(80, ["comp.", "memo.", "MAD", "±"]), (120, ["compression", "memorization", "MAD", "score"])]
)
def test_heads_fit_the_terminal(scores: Scores, width: int, heads: list[str]) -> None:
    assert text(leaderboard(scores, width), width).splitlines()[0].split()[5:9] == heads


def test_one_seed_gives_differences_without_probability() -> None:
    trials = plan(CATALOGUE[:2], SETTINGS[:1], seeds=(0,))
    one = text(differences_table(score(trials, simulate(trials, _truth))))
    assert "P(better)" not in one
    assert "one seed: order not established" in " ".join(one.split())


def test_a_layer_that_is_not_available_is_marked() -> None:
    gone = Architecture((UnavailableLayers("gone swiglu", "unknown"),))
    trials = plan([CATALOGUE[0], gone], SETTINGS[:1])
    scores = score(trials, simulate(trials, lambda _: 0.5))
    found = text(leaderboard(scores, 120), 120)
    (row,) = [line for line in found.splitlines() if line.startswith("gone swiglu")]
    assert row.startswith("gone swiglu (layer not available)")
    assert row.split()[-3:] == ["?", "?", "?"]


@pytest.mark.parametrize(
    ("size", "text"), [(300_000, "293 KiB"), (1_500_000, "1.4 MiB"), (50_000_000, "48 MiB"), (8e10, "74.5 GiB")]
)
def test_memory_that_is_small_is_not_rounded_to_nothing(size: float, text: str):
    assert _memory(int(size)) == text


def test_text_that_a_spreadsheet_would_take_for_a_formula_is_quoted():
    frame = pd.DataFrame({"label": ["=1+1", "@a", " -x", "plain", None], "score": [-1.5, 2.0, 3.0, 4.0, 5.0]})
    assert csv_text(frame) == "label,score\n'=1+1,-1.5\n'@a,2.0\n' -x,3.0\nplain,4.0\n,5.0\n"
