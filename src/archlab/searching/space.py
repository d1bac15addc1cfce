"""Spaces of architectures: a grammar of specs, and limits on costs, from a YAML file.

A file of the package or the user's own::

    summary: one line
    spec: "{block:4}"                      # see archlab.searching.grammar
    rules:
      block: ["{mixer} {channel}"]
      mixer: [mh-attention, "mamba(d_state={8|16})", "parallel(mamba, mh-attention)"]
    once:                                  # rules that are chosen once for the whole stack
      channel: [swiglu, mlp]
    at_most: {params: 2.0e+6, attention: 0.5}   # limits on costs, see archlab.searching.costs
    at_least: {attention: 0.1}
    state: 4096                            # first give every architecture this matrix state, as `archlab normalise` does
    dim: 64                                # width and length at which costs are counted, and knobs are set;
    length: 128                            # by default those of the protocol
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeGuard

import numpy as np

from archlab.architectures import Architecture, architecture
from archlab.architectures.normalise import normalise
from archlab.architectures.parser import LayerDefaults
from archlab.errors import ArchlabError, unknown
from archlab.fields import Count, NonNegative, check_fields, naming, not_empty, read_fields, read_yaml
from archlab.files import is_yaml, read_text
from archlab.layers import Composite, LayerConfig
from archlab.mad.protocol import Protocol
from archlab.searching.costs import COSTS
from archlab.searching.grammar import Ask, Choices, Grammar

ENUMERABLE = 10_000
"""Derivations up to which a space is walked to count its architectures."""
_CHECKS = 20
"""Derivations with an alternative that give no spec, after which it is refused."""
_TRIES = 1000
"""Derivations that are tried for a member within the limits."""


class Member(NamedTuple):
    """An architecture of a space, with the choices that gave it."""

    architecture: Architecture
    choices: Choices


class Size(NamedTuple):
    """The number of architectures of a space."""

    number: int
    exact: bool
    """Whether all derivations were walked; else the number is an upper bound, that of derivations without limits."""


@dataclass(frozen=True, kw_only=True)
class _SpaceFile:
    """A space as its file has it."""

    summary: str
    spec: str
    rules: Mapping[str, Annotated[list[str], not_empty]] = field(default_factory=dict)
    once: Mapping[str, Annotated[list[str], not_empty]] = field(default_factory=dict)
    at_most: Mapping[str, NonNegative] = field(default_factory=dict)
    at_least: Mapping[str, NonNegative] = field(default_factory=dict)
    state: Count | None = None
    dim: Count | None = None
    length: Count | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        for name in (*self.at_most, *self.at_least):
            if name not in COSTS:
                raise unknown("cost", name, COSTS)
        for name, least in self.at_least.items():
            if (most := self.at_most.get(name, least)) < least:
                raise ArchlabError(f"at_least.{name}={least:g}: is more than at_most.{name}={most:g}: give less")


@dataclass(frozen=True, kw_only=True)
class Space:
    """A grammar of specs under limits, at a width and a length. Only architectures within the limits are its members."""

    name: str
    summary: str
    grammar: Grammar
    at_most: Mapping[str, float]
    at_least: Mapping[str, float]
    state: int | None
    dim: int
    length: int
    widths: tuple[int, ...]
    """Widths that every member fits."""
    layer_defaults: LayerDefaults

    def derive(self, ask: Ask) -> Member | None:
        """The member that the choices lead to; None if they do not go together, or it is beyond the limits or fits no width."""
        choices: dict[str, str] = {}

        def noted(name: str, alternatives: tuple[str, ...]) -> str:
            choices[name] = ask(name, alternatives)
            return choices[name]

        found = self._admitted(self.grammar.derive(noted))
        return None if found is None else Member(found, choices)

    def _admitted(self, text: str) -> Architecture | None:
        if text not in self._known:
            try:
                value = architecture(text, layer_defaults=self.layer_defaults)
            except ArchlabError:  # knobs that do not go together, or no layer at all
                self._known[text] = None
            else:
                self._known[text] = self._within(value)
        return self._known[text]

    def check_alternatives(self) -> None:
        """Check that every alternative stands in a spec, by derivations in which a choice is the same at all of its places.

        Raises:
            ArchlabError: an alternative gave no spec, whatever stood beside it.
        """
        rng = np.random.default_rng(0)
        tried: Counter[tuple[str, str]] = Counter()
        reasons: dict[tuple[str, str], ArchlabError] = {}
        waiting = {("", self.grammar.spec): None}
        while any(tried[one] < _CHECKS for one in waiting):
            picked = {"": self.grammar.spec}

            def ask(name: str, alternatives: tuple[str, ...], picked: dict[str, str] = picked) -> str:
                kind = _kind(name)
                for one in alternatives:
                    if not tried[kind, one]:
                        waiting[kind, one] = None
                if picked.get(kind) not in alternatives:
                    picked[kind] = min(alternatives, key=lambda one: (tried[kind, one], rng.random()))
                return picked[kind]

            text = self.grammar.derive(ask)
            tried.update(picked.items())
            try:
                architecture(text, layer_defaults=self.layer_defaults)
            except ArchlabError as error:
                for one in picked.items():
                    reasons.setdefault(one, error)
            else:
                for one in picked.items():
                    waiting.pop(one, None)
        if waiting:
            raise reasons[next(iter(waiting))]

    @cached_property
    def _known(self) -> dict[str, Architecture | None]:
        return {}

    def _within(self, value: Architecture) -> Architecture | None:
        try:
            if self.state is not None:
                value = normalise(value, state=self.state, dim=self.dim, length=self.length).architecture
        except ArchlabError:
            return None
        return canonical(value) if self.admits(value) else None

    def admits(self, value: Architecture) -> bool:
        """Whether an architecture fits the widths and is within the limits."""
        try:
            for dim in self.widths:
                value.validate(dim)
        except ArchlabError:
            return False
        for limits, sign in ((self.at_most, 1), (self.at_least, -1)):
            for name, limit in limits.items():
                cost = COSTS[name].of(value, self.dim, self.length)
                if cost is None or sign * cost > sign * limit:
                    return False
        return True

    @property
    def size(self) -> Size:
        """Number of members."""
        if self.grammar.num_derivations > ENUMERABLE:
            return Size(self.grammar.num_derivations, exact=False)
        return Size(len(self.members), exact=True)

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """Every member once, in the order of the grammar.

        Raises:
            ArchlabError: the space is too large to be walked.
        """
        if self.grammar.num_derivations > ENUMERABLE:
            largest = f"more than {ENUMERABLE:,} derivations cannot be walked"
            raise ArchlabError(f"space {self.name}: {largest}: choose another proposer than exhaustive")
        found: dict[Architecture, Member] = {}
        for choices, text in self.grammar.derivations():
            if (value := self._admitted(text)) is not None:
                found.setdefault(value, Member(value, choices))
        return tuple(found.values())

    def sample(self, rng: np.random.Generator) -> Member:
        """A member, each of its choices drawn evenly.

        Raises:
            ArchlabError: no derivation that was tried is within the limits.
        """
        return self._tried(lambda: self.derive(lambda _, alternatives: alternatives[rng.integers(len(alternatives))]))

    def mutate(self, member: Member, rng: np.random.Generator) -> Member | None:
        """A member that differs in one choice, or has the choices of two places exchanged; None if none was found.

        Choices that come with a new alternative are drawn evenly.
        """

        def once() -> Member | None:
            names = list(member.choices)
            if not names:
                return None
            name = names[rng.integers(len(names))]
            forced = {name: ""}
            kind = _kind(name)
            places = [other for other in names if _kind(other) == kind and member.choices[other] != member.choices[name]]
            if places and rng.random() < 0.5:
                other = places[rng.integers(len(places))]
                forced = {name: member.choices[other], other: member.choices[name]}

            def ask(asked: str, alternatives: tuple[str, ...]) -> str:
                known = forced.get(asked, member.choices.get(asked, ""))
                others = [one for one in alternatives if asked not in forced or one != member.choices[asked]]
                return known if known in alternatives else others[rng.integers(len(others))]

            found = self.derive(ask)
            return None if found is None or found.architecture == member.architecture else found

        return self._perhaps(once)

    def cross(self, first: Member, second: Member, rng: np.random.Generator) -> Member | None:
        """A member whose choices come from both: from the second between two places, else from the first; None if none was
        found that differs from both."""

        def once() -> Member | None:
            names = list(dict.fromkeys([*first.choices, *second.choices]))
            start, end = sorted(rng.integers(len(names) + 1, size=2))
            middle = set(names[start:end])

            def ask(asked: str, alternatives: tuple[str, ...]) -> str:
                order = (second, first) if asked in middle else (first, second)
                known = [one.choices[asked] for one in order if one.choices.get(asked) in alternatives]
                return known[0] if known else alternatives[rng.integers(len(alternatives))]

            found = self.derive(ask)
            differs = found is not None and found.architecture not in (first.architecture, second.architecture)
            return found if differs else None

        return self._perhaps(once)

    def _perhaps(self, make: Callable[[], Member | None], tries: int = 20) -> Member | None:
        return next((found for _ in range(tries) if (found := make()) is not None), None)

    def _tried(self, make: Callable[[], Member | None]) -> Member:
        if (found := self._perhaps(make, _TRIES)) is None:
            raise ArchlabError(f"space {self.name}: none of {_TRIES} samples is within the limits: widen at_most or at_least")
        return found


def _kind(name: str) -> str:
    """The name of a choice without the numbers of its places: choices of one kind can be exchanged."""
    return ".".join(part for part in name.split(".") if not part.isdecimal())


def canonical(value: Architecture) -> Architecture:
    """The one form of architectures that compute the same: branches that are added are flattened and in alphabetical order."""
    layers = tuple(map(_canonical, value.layers))
    return Architecture(layers) if layers != value.layers or value.name else value


def _canonical(config: LayerConfig) -> LayerConfig:
    if not isinstance(config, Composite):
        return config
    parts = [_canonical(part) for part in config.layers]
    if config.name == "parallel":
        if not config.knobs()["gate"]:
            parts = [leaf for part in parts for leaf in (part.layers if _is_sum(part) else (part,))]
        parts.sort(key=str)
    return replace(config, layers=tuple(parts))


def _is_sum(config: LayerConfig) -> TypeGuard[Composite]:
    return isinstance(config, Composite) and config.name == "parallel" and not config.knobs()["gate"]


def space_names() -> list[str]:
    """The spaces of the package."""
    return sorted(path.name.removesuffix(".yaml") for path in _folder().iterdir() if path.name.endswith(".yaml"))


def space_text(name: str) -> str:
    """The YAML of a space of the package, or of the user's file; refuses one that is not there."""
    if is_yaml(name):
        return read_text(Path(name), "space")
    if name not in space_names():
        raise unknown("space", name, space_names())
    return str((_folder() / f"{name}.yaml").read_text(encoding="utf-8"))


def load_space(name: str, protocol: Protocol, further: Sequence[Protocol] = ()) -> Space:
    """A space of the package by name, or of the user's file by path, for a protocol: with its width, length and knobs.

    Members also fit the widths of the ``further`` protocols. Refuses wrong fields and rules, and texts that are no specs.
    """
    text = space_text(name)
    with naming(f"space {Path(name).stem}"):
        file = read_fields(_SpaceFile, read_yaml(text))
        rules = {rule: tuple(dict.fromkeys(alternatives)) for rule, alternatives in file.rules.items()}
        once = {rule: tuple(dict.fromkeys(alternatives)) for rule, alternatives in file.once.items()}
        grammar = Grammar(file.spec, rules, once)
    space = Space(
        name=Path(name).stem,
        summary=file.summary,
        grammar=grammar,
        at_most=file.at_most,
        at_least=file.at_least,
        state=file.state,
        dim=file.dim or protocol.dim,
        length=file.length or protocol.max_length,
        widths=tuple(dict.fromkeys(one.dim for one in (protocol, *further))),
        layer_defaults=protocol.layer_defaults,
    )
    with naming(f"space {space.name}"):
        space.check_alternatives()
    return space


def _folder() -> Any:
    return resources.files("archlab.searching") / "spaces"
