"""`archlab.reproduce`: train, measure, judge."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

import archlab
from archlab.designs.finding import finding_names
from archlab.designs.verdict import UNKNOWN
from archlab.findings import Reproduction
from archlab.jobs.executor import EXECUTORS

CHEAP = "negative-eigenvalues"


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings run in this process."""
    monkeypatch.setitem(EXECUTORS, "threads", "tests.jobs.thread_executor:ThreadExecutor")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Corpora are prepared once."""
    with pytest.MonkeyPatch.context() as context:
        context.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def reproduce(name: str, store: Path, **options: Any) -> Reproduction:
    options = {"size": "smoke", "executor": "threads", "workers": 1, "listeners": []} | options
    return archlab.reproduce(name, store=store, **options)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == CHEAP else pytest.mark.slow) for name in finding_names()]
)
def test_a_finding_runs_at_smoke_size_where_it_tells_nothing(name: str, tmp_path: Path):
    found = reproduce(name, tmp_path / "findings.db")
    assert found.verdict == UNKNOWN
    assert found.trials + found.training_runs > 0
    assert found.cpu_seconds > 0
    document = found.to_dict()
    assert (document["name"], document["size"], document["verdict"]) == (name, "smoke", UNKNOWN)
    assert len(found.to_frame()) == len(document["quantities"]) == len(found.quantities) > 0
    assert UNKNOWN in found._repr_html_()


def test_a_second_call_trains_nothing(tmp_path: Path):
    first = reproduce(CHEAP, tmp_path / "findings.db")
    events: list[Any] = []
    assert reproduce(CHEAP, tmp_path / "findings.db", listeners=[events.append]) == first
    assert not [event for event in events if isinstance(event, archlab.JobFinished)]


@pytest.mark.slow
def test_language_models_are_read_under_the_labels_of_the_finding_that_asks(tmp_path: Path):
    first = Path(archlab.__file__).parent / "designs" / "findings" / "off-optimal-gap.yaml"
    renamed = tmp_path / "renamed.yaml"
    renamed.write_text(first.read_text().replace("attention:", "all-attention:").replace("25, attention", "25, all-attention"))
    reproduce("off-optimal-gap", tmp_path / "findings.db")
    events: list[Any] = []
    found = reproduce(str(renamed), tmp_path / "findings.db", listeners=[events.append])
    assert not [event for event in events if isinstance(event, archlab.JobFinished)]
    assert "all-attention" in found.quantities[0].name


def test_a_wrong_name_is_refused_and_nothing_is_written(tmp_path: Path):
    with pytest.raises(archlab.ArchlabError, match="unknown finding"):
        reproduce("perpetual-motion", tmp_path / "findings.db")
    assert not list(tmp_path.iterdir())


def test_a_wrong_ladder_or_recipe_is_refused_before_any_trial(tmp_path: Path):
    for part, reason in (("ladder", "unknown field of a ladder: 'widht'"), ("recipe", "recipe: unknown field 'widht'")):
        values = yaml.safe_load(files("archlab.designs").joinpath("findings", "scores-predict-loss.yaml").read_text())
        values["experiments"]["smoke"].setdefault(part, {})["widht"] = 4
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
        with pytest.raises(archlab.ArchlabError, match=rf"finding .*mine\.yaml: experiments\.smoke: {reason}"):
            reproduce(str(tmp_path / "mine.yaml"), tmp_path / "findings.db")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]
