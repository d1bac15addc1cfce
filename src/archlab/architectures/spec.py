"""The architecture as a value, and its text form.

A spec is what a person types::

    mh-attention swiglu mh-attention swiglu             layers in order
    mamba(d_state=8, expand=2)                          knobs
    3*[mh-hyena swiglu] mh-attention swiglu             repetition
    striped-hyena                                       a name from the catalogue

A spec that is one name alone means the catalogue's architecture of that name where there is one
(``mamba`` is the paper's four Mamba layers; ``1*mamba`` is one layer).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from archlab.architectures.catalogue import CATALOGUE
from archlab.errors import ArchlabError, unknown
from archlab.layers import LayerConfig, layer, registry

if TYPE_CHECKING:
    from archlab.architectures.backbones import Backbone

BackboneName = Literal["language-model", "auto-encoder"]
LayerDefaults = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Architecture:
    """An ordered stack of layers, each with a pre-norm and a residual around it. Hashable, comparable.

    ``str()`` gives a spec that reads back as an equal value.
    """

    layers: tuple[LayerConfig, ...]
    name: str | None = field(default=None, compare=False)
    """Its name in the catalogue, if it was asked for by that name."""

    def __post_init__(self) -> None:
        """Refuse an empty stack.

        Raises:
            ArchlabError: there is no layer.
        """
        if not self.layers:
            raise ArchlabError("an architecture needs at least one layer, for example 'mh-attention swiglu'")

    def __str__(self) -> str:
        """The spec, with the shortest repeating unit of a purely periodic stack written once."""
        texts = [str(x) for x in self.unit]
        times = len(self.layers) // len(texts)
        if len(self.layers) == 1 and texts[0] in CATALOGUE:
            return f"1*{texts[0]}"
        unit = " ".join(texts)
        if times == 1:
            return unit
        return f"{times}*{unit}" if len(texts) == 1 else f"{times}*[{unit}]"

    @property
    def unit(self) -> tuple[LayerConfig, ...]:
        """The shortest run of layers that the stack repeats; a stack without a period is its own."""
        n = len(self.layers)
        period = next(p for p in range(1, n + 1) if n % p == 0 and self.layers == self.layers[:p] * (n // p))
        return self.layers[:period]

    @property
    def num_mixing(self) -> int:
        """Layers up to the last one that mixes positions; those behind it act on each position by itself."""
        return max((place for place, config in enumerate(self.layers, start=1) if config.kind == "sequence"), default=0)

    @property
    def label(self) -> str:
        """What tables call it: its catalogue name, else its spec."""
        return self.name or str(self)

    def validate(self, dim: int) -> None:
        """Check that every layer fits the width.

        Raises:
            ArchlabError: naming the layer, the knob, the width and what would fit.
        """
        if dim < 1:
            raise ArchlabError(f"width {dim}: must be at least 1")
        for config in self.layers:
            config.validate(dim)

    def build(
        self,
        *,
        vocab_size: int,
        max_length: int,
        dim: int = 128,
        backbone: BackboneName = "language-model",
        norm: Literal["rmsnorm", "layernorm"] = "rmsnorm",
        embedding_std: float = 0.02,
    ) -> "Backbone":
        """An initialised model: token ids ``(batch, length)`` to logits ``(batch, length, vocab_size)``.

        Initialisation draws from torch's global generator: seed it for a reproducible model.

        Raises:
            ArchlabError: a layer does not fit the width.
        """
        from archlab.architectures.backbones import BACKBONES

        self.validate(dim)
        return BACKBONES[backbone](
            self, vocab_size=vocab_size, max_length=max_length, dim=dim, norm=norm, embedding_std=embedding_std
        )

    def num_params(
        self,
        *,
        vocab_size: int,
        length: int,
        dim: int = 128,
        backbone: BackboneName = "language-model",
        norm: Literal["rmsnorm", "layernorm"] = "rmsnorm",
    ) -> int:
        """Trainable scalars of the model :meth:`build` gives at ``max_length=length``, embeddings included."""
        per_norm = dim if norm == "rmsnorm" else 2 * dim
        layers = sum(config.num_params(dim, length) + per_norm for config in self.layers)
        decoder = 2 * (per_norm + dim * dim + dim) if backbone == "auto-encoder" else 0
        return vocab_size * dim + layers + decoder + per_norm + dim * vocab_size + vocab_size

    def state_size(self, *, length: int, dim: int = 128) -> int:
        """Scalars carried from token to token at inference once ``length`` tokens can be held."""
        return sum(config.state_size(dim, length) for config in self.layers)

    def flops(self, *, length: int, dim: int = 128, vocab_size: int = 0, backbone: BackboneName = "language-model") -> int:
        """FLOPs of one forward pass over one sequence; a multiply-add is 2.

        With ``vocab_size`` the unembedding is counted too (and the auto-encoder's decoder, always).
        Norms, activations and the embedding's look-up are not.
        """
        mixing, rest = self.layers[: self.num_mixing], self.layers[self.num_mixing :]
        # Of the auto-encoder, what follows the last sequence mixer sees the last position only.
        behind, decoder = (1, 4 * length * dim * dim) if backbone == "auto-encoder" else (length, 0)
        layers = sum(config.flops(dim, length) for config in mixing) + sum(config.flops(dim, behind) for config in rest)
        return layers + decoder + 2 * length * dim * vocab_size


class _Token(NamedTuple):
    text: str
    position: int  # of the first character, from 1


_TOKENS = re.compile(r"\s*([A-Za-z_][\w.+/:-]*|-?\.?\d[\w.+-]*|\"[^\"]*\"|'[^']*'|[()\[\]*=,])")

_LARGEST = 10_000
"""Layers of a stack: beyond any model, and far below what would fill the memory."""
_DEEPEST = 100
"""Brackets within brackets."""


def architecture(spec: str, *, layer_defaults: LayerDefaults | None = None) -> Architecture:
    """Read a spec: ``architecture("3*[mh-hyena swiglu] mh-attention swiglu")``.

    Args:
        spec: the text; see the module's description for the form.
        layer_defaults: values for knobs that the text does not give, by layer name and knob.

    Raises:
        ArchlabError: the text is malformed (with the position), or a layer or knob is unknown.
    """
    name = spec.strip()
    if name in CATALOGUE:
        return Architecture(_Parser(CATALOGUE[name].spec, layer_defaults or {}).parse(), name=name)
    return Architecture(_Parser(spec, layer_defaults or {}).parse())


class _Parser:
    """Recursive descent over ``items := item+``, ``item := [INT '*'] ('[' items ']' | layer)``."""

    def __init__(self, spec: str, layer_defaults: LayerDefaults) -> None:
        self.spec = spec
        self.layer_defaults = layer_defaults
        self.tokens: list[_Token] = []
        self.depth = 0
        position = 0
        while spec[position:].strip():
            match = _TOKENS.match(spec, position)
            if match is None:
                at = position + len(spec[position:]) - len(spec[position:].lstrip())
                raise self._error(f"{spec[at]!r} at character {at + 1} has no meaning here")
            self.tokens.append(_Token(match[1], match.start(1) + 1))
            position = match.end()

    def parse(self) -> tuple[LayerConfig, ...]:
        layers = self._items(opened=None)
        if not layers:
            raise ArchlabError("an architecture needs at least one layer, for example 'mh-attention swiglu'")
        return tuple(layers)

    def _items(self, opened: _Token | None) -> list[LayerConfig]:
        layers: list[LayerConfig] = []
        while self.tokens:
            if self.tokens[0].text == "]":
                closing = self.tokens.pop(0)
                if opened is None:
                    raise self._error(f"']' at character {closing.position} closes nothing: remove it")
                if not layers:
                    raise self._error(f"'[' at character {opened.position} holds no layer")
                return layers
            layers += self._item()
            if len(layers) > _LARGEST:
                raise self._error(f"more than {_LARGEST} layers")
        if opened is not None:
            raise self._error(f"'[' at character {opened.position} is never closed: add ']'")
        return layers

    def _item(self) -> list[LayerConfig]:
        token = self.tokens.pop(0)
        times = 1
        if token.text.isdecimal():
            times = int(token.text[:10])  # the first digits tell that a number is too large
            if times < 1 or times > _LARGEST:
                raise self._error(f"{token.text} at character {token.position}: repeat from 1 to {_LARGEST} times")
            self._take("*", f"after {token.text}, as in {token.text}*[...]")
            if not self.tokens:
                raise self._error(f"nothing to repeat after {token.text}*: add a layer or [layers]")
            token = self.tokens.pop(0)
        layers = self._bracketed(token) if token.text == "[" else self._named(token)
        if times * len(layers) > _LARGEST:
            raise self._error(f"more than {_LARGEST} layers")
        return times * layers

    def _bracketed(self, opened: _Token) -> list[LayerConfig]:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self._error(f"'[' at character {opened.position}: more than {_DEEPEST} brackets within brackets")
        layers = self._items(opened)
        self.depth -= 1
        return layers

    def _named(self, token: _Token) -> list[LayerConfig]:
        if not token.text[0].isalpha():
            raise self._error(f"{token.text!r} at character {token.position}: a layer's name was expected")
        if token.text not in registry():
            if token.text in CATALOGUE:
                return list(_Parser(CATALOGUE[token.text].spec, self.layer_defaults).parse())
            raise unknown("layer", token.text, [*registry(), *CATALOGUE])
        given: dict[str, Any] = {}
        if self.tokens and self.tokens[0].text == "(":
            opened = self.tokens.pop(0)
            while not given or self._take(",", "between knobs, or ')' after the last", alternative=")") == ",":
                if self.tokens and self.tokens[0].text == ")" and not given:
                    self.tokens.pop(0)
                    break
                self._knob(token.text, given, opened)
        return [layer(token.text, **{**self.layer_defaults.get(token.text, {}), **given})]

    def _knob(self, owner: str, given: dict[str, Any], opened: _Token) -> None:
        if not self.tokens:
            raise self._error(f"'(' at character {opened.position} is never closed: add ')'")
        knob = self.tokens.pop(0)
        if not knob.text[0].isalpha():
            raise self._error(f"{knob.text!r} at character {knob.position}: the name of a knob of {owner} was expected")
        self._take("=", f"after {knob.text!r}: knobs of {owner} are given as name=value")
        if not self.tokens or self.tokens[0].text in "()[]*=,":
            raise self._error(f"no value for {owner}({knob.text}=...)")
        if knob.text in given:
            raise self._error(f"{owner}({knob.text}=...) is given twice")
        given[knob.text] = _value(self.tokens.pop(0).text)

    def _take(self, wanted: str, where: str, alternative: str | None = None) -> str:
        if self.tokens and self.tokens[0].text in (wanted, alternative):
            return self.tokens.pop(0).text
        found = f"{self.tokens[0].text!r} at character {self.tokens[0].position}" if self.tokens else "the end"
        raise self._error(f"expected {wanted!r} {where}, found {found}")

    def _error(self, reason: str) -> ArchlabError:
        shown = self.spec if len(self.spec) <= 120 else f"{self.spec[:117]}..."
        return ArchlabError(f"malformed spec {shown!r}: {reason}")


def _value(text: str) -> Any:
    if text[0] in "\"'":
        return text[1:-1]
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            pass
    return text
