"""Grammars of specs: a text with references in braces, and rules that say what may stand for each.

::

    {layer}            one of the alternatives of the rule `layer`
    {layer:6}          six of them, each chosen by itself
    {8|16|32}          one of these, chosen in place
    {depth}*[{block}]  what is chosen for `block` is repeated, so it is the same each time

A rule of `once` is chosen once for the whole text. What is derived is a spec, which :mod:`archlab.architectures.parser` reads.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from archlab.errors import ArchlabError, unknown

Choices = Mapping[str, str]
"""The alternative that was chosen, by the name of the choice."""
Ask = Callable[[str, tuple[str, ...]], str]
"""Chooses one of the alternatives for the name of a choice."""
_REFERENCE = re.compile(r"\{([^{}]*)\}")
_MOST_TIMES = 1000
"""Largest number of choices in one reference."""
_MOST_CHOICES = 1000
"""Largest number of references in one derivation."""
_DEEPEST = 50
"""Rules within rules."""
_NAME = re.compile(r"[\w -]+")


class _Reference(NamedTuple):
    """A reference at its place in a text."""

    start: int
    end: int
    name: str
    """By which its choices are known: the rule's, or that of the knob before alternatives in place."""
    rule: str | None
    """None: the alternatives stand in place."""
    alternatives: tuple[str, ...]
    times: int


@dataclass(frozen=True)
class Grammar:
    """A text and the rules for its references."""

    spec: str
    rules: Mapping[str, tuple[str, ...]]
    once: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        """Refuse references to no rule, rules that refer to themselves or are not used, and braces that stand alone."""
        if both := self.rules.keys() & self.once.keys():
            raise ArchlabError(f"{min(both)} is in rules and in once: leave one out")
        for name in (*self.rules, *self.once):
            if not _NAME.fullmatch(name):
                raise ArchlabError(f"rule {name!r}: give a name of letters, digits, _ and -")
        reached: dict[str, int] = {}
        self._check(self.spec, (), reached)
        if self._most_choices(self.spec, {}) > _MOST_CHOICES:
            raise ArchlabError(f"{self.spec!r}: more than {_MOST_CHOICES:,} choices in one spec: give smaller numbers")
        if unused := [name for name in (*self.rules, *self.once) if name not in reached]:
            raise ArchlabError(f"rule {unused[0]} is used nowhere: refer to it as {{{unused[0]}}}, or leave it out")

    def _check(self, text: str, within: tuple[str, ...], reached: dict[str, int]) -> int:
        """Check a text and, once each, the rules that it refers to; returns how many of them stand within each other."""
        if "{" in _REFERENCE.sub("", text) or "}" in _REFERENCE.sub("", text):
            raise ArchlabError(f"{text!r}: a brace stands alone: write {{rule}}, {{rule:6}} or {{8|16}}")
        deepest = 0
        for reference in self._references(text):
            rule = reference.rule
            if rule is None:
                continue
            if rule in within:
                raise ArchlabError(f"rule {rule} refers to itself: give the depths as alternatives, as in {{2|4|8}}*[...]")
            if len(within) == _DEEPEST or len(within) + reached.get(rule, 0) > _DEEPEST:
                raise ArchlabError(f"rule {rule}: more than {_DEEPEST} rules stand within each other: write some as one")
            if rule not in reached:
                reached[rule] = 1 + max(self._check(one, (*within, rule), reached) for one in reference.alternatives)
            deepest = max(deepest, reached[rule])
        return deepest

    def _references(self, text: str) -> list[_Reference]:
        if text not in self._parsed:
            self._parsed[text] = [self._reference(text, found) for found in _REFERENCE.finditer(text)]
        return self._parsed[text]

    @cached_property
    def _parsed(self) -> dict[str, list[_Reference]]:
        return {}

    def _reference(self, text: str, found: re.Match[str]) -> _Reference:
        inside = found[1].strip()
        if "|" in inside:
            knob = re.search(r"(?<!\w)(\w+)\s*=\s*$", text[: found.start()])
            alternatives = tuple(dict.fromkeys(part.strip() for part in inside.split("|")))
            return _Reference(*found.span(), knob[1] if knob else "choice", None, alternatives, 1)
        name, colon, number = (part.strip() for part in inside.partition(":"))
        if name not in self.rules and name not in self.once:
            raise unknown("rule", name, (*self.rules, *self.once))
        if colon and not (number.isdecimal() and 1 <= int(number) <= _MOST_TIMES):
            raise ArchlabError(f"{{{inside}}}: give a number from 1 to {_MOST_TIMES}, as in {{{name}:6}}")
        alternatives = self.rules[name] if name in self.rules else self.once[name]
        return _Reference(*found.span(), name, name, alternatives, int(number) if colon else 1)

    def derive(self, ask: Ask) -> str:
        """A text without references; ``ask`` chooses wherever there is more than one alternative.

        The name of a choice is that of its rule, with a number where there are several beside each other, behind the
        choice within which it stands: ``block.2.mixer`` or ``mixer=mamba.d_state``.
        """
        chosen_once: dict[str, str] = {}

        def expand(text: str, within: str) -> str:
            references = self._references(text)
            several = {name for name, times in _times(references).items() if times > 1}
            numbers: Counter[str] = Counter()
            parts, at = [], 0
            for one in references:
                texts = []
                for _ in range(one.times):
                    numbers[one.name] += 1
                    name = f"{within}{one.name}" + (f".{numbers[one.name]}" if one.name in several else "")
                    texts.append(choose(one, name))
                parts += [text[at : one.start], " ".join(texts)]
                at = one.end
            return "".join([*parts, text[at:]])

        def choose(one: _Reference, name: str) -> str:
            if one.rule in self.once and one.rule in chosen_once:
                return chosen_once[one.rule]
            name = one.rule if one.rule in self.once and one.rule else name
            alternatives = one.alternatives
            chosen = alternatives[0] if len(alternatives) == 1 else ask(name, alternatives)
            behind = f"{name}." if len(alternatives) == 1 else f"{name}={_head(chosen, alternatives)}."
            text = expand(chosen, behind)
            if one.rule in self.once and one.rule:
                chosen_once[one.rule] = text
            return text

        return expand(self.spec, "")

    @cached_property
    def num_derivations(self) -> int:
        """Number of ways to choose; of texts that leave some rule of `once` out an upper bound."""
        return self._count(self.spec) * math.prod(
            sum(self._count(text) for text in alternatives) for alternatives in self.once.values()
        )

    def _count(self, text: str) -> int:
        if text not in self._counts:
            self._counts[text] = math.prod(
                sum(self._count(alternative) for alternative in one.alternatives) ** one.times
                for one in self._references(text)
                if one.rule not in self.once
            )
        return self._counts[text]

    @cached_property
    def _counts(self) -> dict[str, int]:
        return {}

    def _most_choices(self, text: str, known: dict[str, int]) -> int:
        """The most references that a derivation of a text has; ``known`` holds those of others."""
        if text not in known:
            known[text] = sum(
                one.times * (1 + max(self._most_choices(inner, known) for inner in one.alternatives))
                for one in self._references(text)
            )
        return known[text]

    def derivations(self) -> Iterator[tuple[dict[str, str], str]]:
        """Every way to choose, with the text that it gives."""
        forced: list[int] = []
        while True:
            made: list[tuple[str, int, tuple[str, ...]]] = []

            def ask(
                name: str,
                alternatives: tuple[str, ...],
                forced: list[int] = forced,
                made: list[tuple[str, int, tuple[str, ...]]] = made,
            ) -> str:
                index = forced[len(made)] if len(made) < len(forced) else 0
                made.append((name, index, alternatives))
                return alternatives[index]

            text = self.derive(ask)
            yield {name: alternatives[index] for name, index, alternatives in made}, text
            while made and made[-1][1] + 1 == len(made[-1][2]):
                made.pop()
            if not made:
                return
            forced = [index for _, index, _ in made]
            forced[-1] += 1


def _times(references: list[_Reference]) -> Counter[str]:
    times: Counter[str] = Counter()
    for one in references:
        times[one.name] += one.times
    return times


def _head(chosen: str, alternatives: tuple[str, ...]) -> str:
    """A short name for an alternative: its first word, with its number where others begin alike."""
    heads = [re.split(r"[\s({]", text, maxsplit=1)[0] for text in alternatives]
    index = alternatives.index(chosen)
    return heads[index] if heads[index] and heads.count(heads[index]) == 1 else f"{heads[index]}#{index + 1}"
