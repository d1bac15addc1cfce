"""Ladders and their rules."""

import json
from pathlib import Path

import pytest

from archlab.errors import ArchlabError
from archlab.scaling.ladder import (
    HIGHEST_LEARNING_RATE,
    Ladder,
    central_params,
    default_batch_size,
    default_learning_rate,
    load_ladder,
    measured_utilisations,
)


def ladder(**values) -> Ladder:
    return Ladder(**{"name": "test", "budgets": (2e11,), "vocab_size": 99} | values)


def test_rules_pass_through_what_is_known():
    assert central_params(2e11) == pytest.approx(13_000)
    params = central_params(4e18)
    assert 15 < 4e18 / (6 * params) / params < 25  # tokens a parameter
    assert default_learning_rate(108e6, 1e3) == 4.7e-3
    assert default_learning_rate(13_000, 1e3) == HIGHEST_LEARNING_RATE
    assert default_learning_rate(1e9, 108e6, "olmo-core") == 2.4e-3  # half of 4.7e-3
    assert default_batch_size(108e6, 2048) * 2048 == pytest.approx(2048 * 160, rel=0.3)
    assert default_batch_size(13_000, 128) * 128 == 2048


def test_an_own_ladder_is_read(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("budgets: [2e11, 400000000000]\nsizes: 3\nseeds: [0, 1]\nvocab_size: 99\n")
    loaded = load_ladder(str(path))
    assert (loaded.name, loaded.budgets, loaded.sizes, loaded.seeds) == ("mine", (2e11, 4e11), 3, (0, 1))
    assert loaded.to_dict() == {"name": "mine", "budgets": [2e11, 4e11], "sizes": 3, "seeds": [0, 1], "vocab_size": 99}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sizes: 3", "budgets is missing"),
        ("budgets: 2e11", "budgets=200000000000.0: give a list"),
        ("budgets: []", "budgets is missing"),
        ("tokens_per_param: [20]", "params is missing: tokens_per_param trains the sizes that it gives"),
        ("budgets: [2e11]\nallow: [sise]", "allow='sise': give one of corpus"),
        ("budgets: [-1]", "budgets=-1: give a number above 0"),
        ("budgets: [2e11]\nsize: 3", "unknown field 'size': did you mean 'sizes'"),
        ("budgets: [2e11]\nsizes: many", "sizes='many': give a whole number of at least 1"),
        ("budgets: [2e11]\nspread: 1", "spread=1: give a number above 1"),
        ("budgets: [2e11]\nconvention: exat", "convention='exat': give one of exact, paper, 6nd"),
        ("budgets: [2e11]\nutilisation: 40", "utilisation=40: give a number above 0 and of at most 1"),
        ("budgets: [2e11]\narchitectures: {a: 3}", "architectures.a=3: give text"),
    ],
)
def test_a_wrong_ladder_is_refused(tmp_path: Path, text: str, message: str):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ArchlabError, match=message):
        load_ladder(str(path))


def test_an_unknown_ladder_or_field_is_named():
    with pytest.raises(ArchlabError, match="unknown ladder 'quik': did you mean 'quick'"):
        load_ladder("quik")
    with pytest.raises(ArchlabError, match="unknown field of a ladder: 'lenght': did you mean 'length'"):
        ladder().with_values(lenght=3)


def test_a_shape_is_positive():
    with pytest.raises(ArchlabError, match="aspect=0: give a number above 0"):
        ladder(aspect=0)


def test_measured_speeds_are_utilisations(tmp_path: Path):
    file = tmp_path / "bench.json"
    steps = [{"architecture": "mamba", "flops_per_second": speed} for speed in (1e14, 2e14, 4e14)]
    file.write_text(json.dumps({"device": "cuda", "steps": steps}))
    assert measured_utilisations(str(file), 1e15) == {"mamba": 0.2}
    ladder = load_ladder("paper").with_values(utilisations=measured_utilisations(str(file), 1e15), peak_flops=1e15)
    assert [ladder.flops_per_second(label) for label in ("mamba", "hyena")] == [2e14, 4e14]
    with pytest.raises(ArchlabError, match="peak_flops is missing"):
        measured_utilisations(str(file), None)
    file.write_text(json.dumps({"device": "cpu", "steps": steps}))
    with pytest.raises(ArchlabError, match="measured a cpu: run `archlab bench --device cuda --json`"):
        measured_utilisations(str(file), 1e15)
    file.write_text("{}")
    with pytest.raises(ArchlabError, match="cannot be read: KeyError: 'steps': give what `archlab bench"):
        measured_utilisations(str(file), 1e15)
