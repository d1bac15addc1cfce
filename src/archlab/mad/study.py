"""A study in a file that can be committed: architectures with labels, the protocol and the seeds.

::

    protocol: quick            # a protocol of the package, or the path of a YAML file beside this one
    suite: all                 # mad, recall, state or all; by default mad
    seeds: 3                   # how many, or a list; by default the protocol's
    tasks: [in-context-recall, selective-copying]   # by default all of the protocol
    settings: base             # base or all, the default
    set: {recipe.steps: 2000}  # as --set
    architectures:             # a mapping of labels to specs, or a list of specs
      wide: 2*[mamba(d_state=32) swiglu]
      baseline: transformer++
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from typing import Annotated, Any, Literal

from archlab.architectures import Architecture, architecture
from archlab.architectures.catalogue import CATALOGUE
from archlab.errors import ArchlabError
from archlab.fields import Natural, SeedCount, check_fields, naming, not_empty, read_fields, read_yaml
from archlab.files import is_yaml, read_text
from archlab.layers import registry as layers
from archlab.mad.protocol import Protocol, load_protocol
from archlab.tasks import registry as tasks_by_name


@dataclass(frozen=True, kw_only=True)
class _StudyFile:
    """A study as its file has it."""

    protocol: str
    suite: str = "mad"
    seeds: SeedCount | list[Natural] | None = None
    tasks: list[str] | None = None
    settings: Literal["all", "base"] = "all"
    set: Mapping[str, Any] = field(default_factory=dict)
    architectures: Annotated[Mapping[str, str] | list[str], not_empty]

    def __post_init__(self) -> None:
        check_fields(self)


def read_specs(
    specs: str | PathLike[str] | Architecture | Sequence[str | Architecture],
    protocol: str | PathLike[str] | Protocol | None = None,
    suite: str | None = None,
) -> tuple[Protocol, list[str | Architecture]]:
    """The protocol and the architectures that a run is asked for.

    ``specs`` are one or several specs or values, or the path of a study's file, which names the protocol too; else ``protocol``
    is a name, the path of a YAML file or a value, by default ``quick``. Refuses files that are wrong, and two protocols.
    """
    alone = fspath(specs) if isinstance(specs, PathLike) else specs
    given: list[str | Architecture] = [alone] if isinstance(alone, str | Architecture) else list(alone)
    tasks = {name for task in tasks_by_name().values() for name in (task.name, task.short)}
    for one in given:
        if one in tasks and one not in layers():
            raise ArchlabError(f"{one} is a task, not an architecture: write tasks=[{one!r}] (--tasks {one})")
    path = next((one for one in given if isinstance(one, str) and (isinstance(specs, PathLike) or is_yaml(one))), None)
    if path is not None:
        if len(given) > 1:
            raise ArchlabError(f"study {path}: stands alone, it names its architectures: add yours to the file")
        for name, value in (("protocol", protocol), ("suite", suite)):
            if value is not None:
                raise ArchlabError(f"{name}: the study {path} names its own: change it there")
        chosen, architectures = read_study(path)
        return chosen, [*architectures]
    if isinstance(protocol, Protocol):
        if suite is not None:
            raise ArchlabError(f"suite={suite!r}: the protocol {protocol.name} is given with its tasks: load it with the suite")
        return protocol, given
    return load_protocol("quick" if protocol is None else fspath(protocol), "mad" if suite is None else suite), given


def read_study(path: str | Path) -> tuple[Protocol, list[Architecture]]:
    """The protocol and the labelled architectures of a study's file; refusals name the file and the field."""
    path = Path(path)
    text = read_text(path, "study")
    with naming(f"study {path}"):
        file = read_fields(_StudyFile, read_yaml(text))
        beside = path.parent / file.protocol
        is_beside = is_yaml(beside) and beside.exists()
        protocol = load_protocol(str(beside) if is_beside else file.protocol, file.suite)
        if file.tasks is not None:
            protocol = protocol.with_tasks(file.tasks)
        protocol = protocol.with_settings(file.settings)
        if file.seeds is not None:
            protocol = protocol.with_seeds(range(file.seeds) if isinstance(file.seeds, int) else file.seeds)
        for key, value in file.set.items():
            protocol = protocol.with_value(key, value)
        given = file.architectures
        specs = given.values() if isinstance(given, Mapping) else given
        found = [architecture(spec, layer_defaults=protocol.layer_defaults) for spec in specs]
        if isinstance(given, Mapping):
            _check_labels(dict(zip(given, found, strict=True)), protocol.layer_defaults)
            found = [value.named(label) for label, value in zip(given, found, strict=True)]
    return protocol, found


def _check_labels(named: Mapping[str, Architecture], layer_defaults: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse labels that cannot be printed or are the name of another architecture, and architectures with two labels."""
    first: dict[Architecture, str] = {}
    specs = {str(value): value for value in named.values()}
    for label, value in named.items():
        if not label.strip() or not label.isprintable():
            raise ArchlabError(f"architectures: label {label!r} of {value}: give it a name that can be printed")
        if label != label.strip():
            raise ArchlabError(f"architectures: label {label!r} of {value}: it begins or ends with a space: leave that out")
        if specs.get(label, value) != value:
            raise ArchlabError(f"architectures: label {label!r} is the spec of another architecture: give another")
        if label in CATALOGUE and value != architecture(label, layer_defaults=layer_defaults):
            raise ArchlabError(f"architectures: label {label!r} is the catalogue's name of another architecture: give another")
        if value in first:
            raise ArchlabError(f"architectures: {first[value]} and {label} are the same, {value}: leave one out")
        first[value] = label
