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


def experiment(**changes: Any) -> dict[str, Any]:
    """A change of the experiment of the laptop."""
    sizes = VALUES["experiments"]
    return {"experiments": sizes | {"laptop": sizes["laptop"] | changes}}


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
        ({"above": 2, "below": 1}, "above=2: no value is above it and below 1"),
        ({"test": "longest"}, "experiments.laptop: set: recipe.test_lengths is missing"),
        ({"test": "correlation", "compare": []}, "architectures: the test correlation takes at least 4"),
        (experiment(tasks=["copying"]), "experiments.laptop: unknown task of protocol quick: 'copying'"),
        (experiment(protocol="quik"), "experiments.laptop: unknown protocol 'quik': did you mean 'quick'"),
        (experiment(set={"recipe.step": 7}), "experiments.laptop: recipe: unknown field 'step'"),
        (experiment(seeds=0), "experiments.laptop: seeds=0: give a whole number of at least 1"),
        (experiment(ladder={"seeds": 3}), "experiments.laptop: ladder: seeds is not taken"),
        (experiment(ladder={"specs": ["mlp"]}), "experiments.laptop: ladder: specs is not taken"),
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


def test_the_finding_of_the_documentation_is_read(tmp_path: Path):
    text = (Path(__file__).parents[2] / "docs" / "findings.md").read_text()
    (tmp_path / "mine.yaml").write_text(text.split("```yaml\n")[1].split("```")[0])
    assert load_finding(str(tmp_path / "mine.yaml")).compare == [["mamba", "mlp"]]
