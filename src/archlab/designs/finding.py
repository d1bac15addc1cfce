"""Findings: published claims, each in a YAML file with the experiment that tests it, see docs/findings.md.

::

    claim: Hybrids of attention and Hyena score higher than both.
    source: arXiv 2403.17844, section 4
    notes: how the experiment differs from the source's      # by default nothing
    architectures: {hyena: hyena, attention: transformer++, striped: striped-hyena}
    test: scores                      # a function of archlab.designs.measures
    compare: [[striped, hyena], [striped, attention]]        # the claimed better one first
    above: 1                          # the claimed region, in the unit of the test; or below, or both
    experiments:
      smoke: {protocol: smoke, seeds: 2}
      laptop: {protocol: quick, tasks: [recall], seeds: 3, set: {recipe.steps: 800}}
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal

from archlab.architectures import Architecture, architecture
from archlab.designs.verdict import Region
from archlab.errors import ArchlabError, unknown
from archlab.fields import Count, check_fields, naming, not_empty, read_fields, read_yaml
from archlab.files import is_yaml, read_text
from archlab.mad.protocol import Protocol, load_protocol

_FOLDER = files(__package__) / "findings"

Test = Literal["scores", "longest", "losses", "off-optimal", "state-exponent", "correlation"]
SizeName = Literal["smoke", "laptop"]
USES: Mapping[Test, tuple[str, ...]] = {
    "scores": ("protocol",),
    "longest": ("protocol",),
    "losses": ("ladder",),
    "off-optimal": ("ladder",),
    "state-exponent": ("ladder",),
    "correlation": ("protocol", "ladder"),
}
"""The parts of an experiment that a test measures."""
FEWEST_CORRELATED = 4
"""Architectures from which a rank correlation has an interval."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The training at a size: trials of a protocol, language models of a ladder, or both."""

    seeds: Count
    protocol: str = ""
    """Name of a protocol; empty for no trials."""
    suite: str = "mad"
    tasks: list[str] | None = None
    """By default all of the suite."""
    set: Mapping[str, Any] = field(default_factory=dict)
    """Changes of the protocol, as ``--set`` makes them."""
    ladder: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the ladder that change, beside its ``name``; empty for no language models."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the language models' recipe that change."""

    def __post_init__(self) -> None:
        check_fields(self)
        if misplaced := self.ladder.keys() & {"specs", "ladder", "seeds", "tuned"}:
            raise ArchlabError(f"ladder: {min(misplaced)} is not taken: name, architectures and seeds have fields of their own")

    def chosen(self) -> Protocol:
        """The protocol, narrowed and changed."""
        protocol = load_protocol(self.protocol, self.suite)
        if self.tasks is not None:
            protocol = protocol.with_tasks(self.tasks)
        for key, value in self.set.items():
            protocol = protocol.with_value(key, value)
        return protocol.with_seeds(range(self.seeds))


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A published claim, and how it is tested."""

    name: str
    claim: str
    source: str
    notes: str = ""
    architectures: Annotated[Mapping[str, str], not_empty]
    """Specs by label."""
    test: Test
    compare: list[list[str]] = field(default_factory=list)
    """Pairs of labels, the better one first."""
    above: float | None = None
    below: float | None = None
    experiments: Mapping[str, Mapping[str, Any]]
    """By size."""

    def __post_init__(self) -> None:
        """Check the fields, the specs and the experiments; refusals name the field."""
        check_fields(self)
        if self.above is None and self.below is None:
            raise ArchlabError("above is missing: give the least value that the claim means, or below, the largest")
        if self.above is not None and self.below is not None and self.above >= self.below:
            raise ArchlabError(
                f"above={self.above:g}: no value is above it and below {self.below:g}: give less, or leave one out"
            )
        if (self.test in ("scores", "longest", "losses", "off-optimal")) != bool(self.compare):
            number = "no pair" if self.compare else "at least one pair"
            raise ArchlabError(f"compare={self.compare}: the test {self.test} takes {number}")
        if self.test == "correlation" and len(self.architectures) < FEWEST_CORRELATED:
            raise ArchlabError(f"architectures: the test correlation takes at least {FEWEST_CORRELATED} of them")
        for pair in self.compare:
            if len(pair) != 2 or pair[0] == pair[1]:
                raise ArchlabError(f"compare={pair}: give two labels, the better one first")
            for label in pair:
                if label not in self.architectures:
                    raise unknown("architecture of compare:", label, self.architectures)
        for label, spec in self.architectures.items():
            with naming(f"architectures.{label}"):
                architecture(spec)
        if self.experiments.keys() != {"smoke", "laptop"}:
            raise ArchlabError(f"experiments={sorted(self.experiments)}: give smoke and laptop")
        for size, experiment in self._experiments.items():
            for part in USES[self.test]:
                if not getattr(experiment, part):
                    raise ArchlabError(f"experiments.{size}: {part} is missing: the test {self.test} needs it")
            if "protocol" in USES[self.test]:
                with naming(f"experiments.{size}"):
                    recipes = [one.recipe for one in experiment.chosen().tasks.values()]
                if self.test == "longest" and not all(one.test_lengths for one in recipes):
                    raise ArchlabError(f"experiments.{size}: set: recipe.test_lengths is missing: the test longest needs it")

    @property
    def region(self) -> Region:
        """The claimed region."""
        return Region(-inf if self.above is None else self.above, inf if self.below is None else self.below)

    def experiment(self, size: SizeName) -> Experiment:
        """The training at a size."""
        return self._experiments[size]

    def labelled(self, protocol: Protocol) -> list[Architecture]:
        """The architectures under their labels, with the knobs that the protocol sets."""
        return [
            Architecture(architecture(spec, layer_defaults=protocol.layer_defaults).layers, name=label)
            for label, spec in self.architectures.items()
        ]

    @cached_property
    def _experiments(self) -> dict[str, Experiment]:
        found = {}
        for size, values in self.experiments.items():
            with naming(f"experiments.{size}"):
                found[size] = read_fields(Experiment, values)
        return found


def finding_names() -> list[str]:
    """The findings of the package."""
    return sorted(path.name.removesuffix(".yaml") for path in _FOLDER.iterdir() if path.name.endswith(".yaml"))


def load_finding(name: str) -> Finding:
    """A finding of the package by name, or of a YAML file by path; refuses one that is not there, and wrong fields."""
    if is_yaml(name):
        text = read_text(Path(name), "finding")
    elif name in finding_names():
        text = (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    else:
        raise unknown("finding", name, finding_names())
    with naming(f"finding {name}"):
        values = read_yaml(text)
        return read_fields(Finding, {"name": Path(name).stem, **values} if isinstance(values, dict) else values)
