"""Published tables of MAD scores and of losses, one YAML file a source."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Literal

from archlab.errors import unknown
from archlab.fields import check_fields, read_fields, read_yaml

_FOLDER = files(__package__) / "published"


@dataclass(frozen=True, kw_only=True)
class PublishedScores:
    """The MAD scores of a published table, in percent."""

    where: str
    """The table of the source."""
    percent: Mapping[str, Mapping[str, float]]
    """By architecture: the score of each task, and the ``mean`` as the table states it."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A column of a table: one number for each architecture, of models trained alike."""

    metric: str
    better: Literal["lower", "higher"]
    values: Mapping[str, float]
    size: str = ""
    """Parameters, as the source states them: ``1B``."""
    tokens: str = ""
    """Tokens of the training."""
    data: str = ""
    where: str = ""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def name(self) -> str:
        """Metric, size and tokens in one line."""
        return ", ".join(part for part in (self.metric, self.size, self.tokens and f"{self.tokens} tokens") if part)


@dataclass(frozen=True, kw_only=True)
class Published:
    """The tables of a source."""

    title: str
    source: str
    """Where they were published: a paper or a repository."""
    outcomes: list[Outcome]
    scores: PublishedScores | None = None
    notes: tuple[str, ...] = ()
    """Limits of a comparison."""
    names: Mapping[str, str] = field(default_factory=dict)
    """archlab's names for the source's architectures, where they differ by more than case and punctuation."""

    def __post_init__(self) -> None:
        check_fields(self)


def published_names() -> list[str]:
    """Names of the sources that archlab comes with."""
    return sorted(file.name.removesuffix(".yaml") for file in _FOLDER.iterdir() if file.name.endswith(".yaml"))


@cache
def load_published(name: str) -> Published:
    """The tables of a source; refuses a name that is not known."""
    if name not in published_names():
        raise unknown("published tables", name, published_names())
    values = read_yaml((_FOLDER / f"{name}.yaml").read_text())
    if values.get("scores"):
        values["scores"] = read_fields(PublishedScores, values["scores"], name)
    values["outcomes"] = [read_fields(Outcome, outcome, name) for outcome in values["outcomes"]]
    return read_fields(Published, values, name)
