from pathlib import Path

import pytest

from archlab.architectures import CATALOGUE, architecture
from archlab.layers import registry

PROMISED = {
    "transformer++",
    "hyena",
    "mh-hyena",
    "mamba",
    "gla",
    "linear-attention",
    "striped-hyena",
    "striped-mh-hyena",
    "striped-mamba",
}


def test_the_promised_architectures_are_there():
    assert set(CATALOGUE) >= PROMISED


@pytest.mark.parametrize("name", CATALOGUE)
def test_entries_are_architectures(name):
    value = architecture(name)
    assert value.name == name
    assert value == architecture(CATALOGUE[name].spec)
    assert architecture(str(value)) == value
    assert CATALOGUE[name].summary
    for dim in (64, 128):
        value.validate(dim)


@pytest.mark.parametrize("name", sorted(set(CATALOGUE) & set(registry())))
def test_a_name_alone_is_the_catalogues_and_a_layer_once_repeated(name):
    assert len(architecture(name).layers) > 1
    assert [x.name for x in architecture(f"1*{name}").layers] == [name]
    assert [x.name for x in architecture(f"{name} swiglu").layers] == [name, "swiglu"]


def test_no_two_entries_are_equal():
    own = [name for name in CATALOGUE if not name.startswith("mad-lab/")]
    assert len({architecture(name) for name in own}) == len(own)


def test_the_states_of_the_references_configurations_are_as_documented():
    text = (Path(__file__).parents[2] / "docs" / "architectures.md").read_text(encoding="utf-8")
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in text.splitlines() if "| `mad-lab/" in line]
    documented = {row[0]: [int(cell.replace(",", "")) for cell in row[-2:]] for row in rows}
    counted = {
        name: [architecture(name).matrix_state(length=128), architecture(name).state_size(length=128)]
        for name in CATALOGUE
        if name.startswith("mad-lab/")
    }
    assert documented == counted


def test_the_stripes_hold_a_quarter_attention():
    for name in ("striped-hyena", "striped-mh-hyena", "striped-mamba", "striped-gla"):
        layers = [x.name for x in architecture(name).layers]
        assert layers.count("mh-attention") / len(layers) == 0.25
