"""Findings are read from files, and wrong ones are refused in a line that names the field."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from archlab.designs.finding import USES, finding_names, load_finding
from archlab.errors import ArchlabError

VALUES: dict[str, Any] = {
    "claim": "Mamba compresses more than an MLP.",
    "source": "nobody",
    "architectures": {"with": "mamba", "without": "mlp"},
    "test": "scores",
    "compare": [["with", "without"]],
    "above": 1,
    "experiments": {
        "smoke": {"protocol": "smoke", "tasks": ["compression"], "seeds": 2},
        "laptop": {"protocol": "quick", "tasks": ["compression"], "seeds": 3, "set": {"recipe.steps": 7}},
    },
}


def write(folder: Path, **changes: Any) -> str:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(VALUES | changes))
    return str(path)


def test_a_file_of_ones_own_is_read(tmp_path: Path):
    found = load_finding(write(tmp_path))
    assert (found.name, found.region) == ("mine", (1.0, float("inf")))
    protocol = found.experiment("laptop").chosen()
    assert protocol.seeds == (0, 1, 2)
    assert [(name, plan.recipe.steps) for name, plan in protocol.tasks.items()] == [("compression", 7)]
    assert [one.label for one in found.labelled(protocol)] == ["with", "without"]


@pytest.mark.parametrize("name", finding_names())
def test_each_finding_of_the_package_can_be_planned_at_both_sizes(name: str):
    found = load_finding(name)
    for size in ("smoke", "laptop"):
        experiment = found.experiment(size)
        if "protocol" in USES[found.test]:
            assert experiment.chosen().trials(found.labelled(experiment.chosen()))
    assert found.experiment("laptop").seeds >= 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"above": None}, "above is missing"),
        ({"test": "taste"}, "test='taste': give"),
        ({"compare": []}, "compare=[]: the test scores takes at least one pair"),
        ({"compare": [["with"]]}, "give two labels, the better one first"),
        ({"compare": [["with", "wihtout"]]}, "did you mean 'without'?"),
        ({"test": "correlation"}, "the test correlation takes no pair"),
        ({"test": "losses"}, "experiments.laptop: ladder is missing"),
        ({"architectures": {"with": "mambo", "without": "mlp"}}, "architectures.with: unknown layer 'mambo'"),
        ({"experiments": {"smoke": VALUES["experiments"]["smoke"]}}, "experiments=['smoke']: give smoke and laptop"),
        ({"experiments": VALUES["experiments"] | {"laptop": {"protocol": "quick"}}}, "experiments.laptop: seeds is missing"),
        ({"colour": "red"}, "unknown field 'colour'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], message: str):
    with pytest.raises(ArchlabError, match=r"^finding .*mine\.yaml: ") as refused:
        load_finding(write(tmp_path, **changes))
    assert message in str(refused.value)


def test_an_unknown_finding_is_refused_with_the_nearest_name():
    with pytest.raises(ArchlabError, match="unknown finding 'stripes': did you mean 'striped'"):
        load_finding("stripes")
