"""The text form of an architecture.

A spec is what a person types::

    mh-attention swiglu mh-attention swiglu             layers in order
    mamba(d_state=8, expand=2)                          knobs
    3*[mh-hyena swiglu] mh-attention swiglu             repetition
    parallel(mamba, mh-attention, gate=true)            a layer of layers, which stand before its knobs
    experts(mamba, num=4, active=2) swiglu
    stripe([mamba swiglu], [mh-attention swiglu], every=4)
    striped-hyena                                       a name from the catalogue
    my_pkg.mixers.Foo(heads=4)                          any nn.Module class that takes a width
    my_pkg.mixers.Foo(mode='it''s')                     a string in quotes, of which those within are doubled

A stripe is three times ``[mamba swiglu]``, then ``[mh-attention swiglu]``: every 4th is the second. It stands for its
layers, as repetition does, and a text written from the value spells them out.

A spec that is one name alone means the catalogue's architecture of that name where there is one
(``mamba`` is the paper's four Mamba layers; ``1*mamba`` is one layer).
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from archlab.architectures.catalogue import CATALOGUE
from archlab.errors import ArchlabError, unknown
from archlab.layers import LayerConfig, layer, registry
from archlab.layers.knobs import knob_value
from archlab.layers.registry import composites, is_path, unknown_layer

LayerDefaults = Mapping[str, Mapping[str, Any]]


class _Token(NamedTuple):
    text: str
    position: int  # of the first character, from 1


_TOKENS = re.compile(r"\s*([A-Za-z_][\w.+/:-]*|-?\.?\d[\w.+-]*|\"(?:[^\"]|\"\")*\"|'(?:[^']|'')*'|[()\[\]*=,])")

_LARGEST = 10_000
"""Layers of a stack: beyond any model, and far below what would fill the memory."""
_DEEPEST = 100
"""Brackets within brackets, or layers within layers."""
_STRIPE = "stripe"


def parse(spec: str, layer_defaults: LayerDefaults) -> tuple[LayerConfig, ...]:
    """The layers of a spec; ``layer_defaults`` has values for knobs that the text leaves open, by layer and knob.

    Raises:
        ArchlabError: the text is malformed (with the position), or a layer or knob is unknown.
    """
    return _Parser(spec, layer_defaults).parse()


def module_paths(spec: str) -> list[str]:
    """The dotted paths of modules that stand for layers in a spec, without importing any of them."""
    tokens = [match[1] for match in _TOKENS.finditer(spec)]
    return [text for before, text in zip(["", *tokens], tokens, strict=False) if is_path(text) and before != "="]


def layer_names(spec: str) -> set[str]:
    """The names in a spec that stand where those of layers do."""
    tokens = ["", *(match[1] for match in _TOKENS.finditer(spec)), ""]
    neighbours = zip(tokens, tokens[1:], tokens[2:], strict=False)
    return {text for before, text, after in neighbours if text[0].isidentifier() and before != "=" and after != "="}


class _Parser:
    """Recursive descent.

    ::

        items  := item+
        item   := [INT '*'] ('[' items ']' | layer)
        layer  := NAME ['(' [argument (',' argument)*] ')']
        argument := item | KNOB '=' VALUE      items only for what is made of layers, and before knobs
    """

    def __init__(self, spec: str, layer_defaults: LayerDefaults) -> None:
        self.spec = spec
        self.layer_defaults = layer_defaults
        self.tokens: list[_Token] = []
        self.depth = 0
        self.latest = "name"
        """The layer that was read last."""
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
        if [following.text for following in self.tokens[:1]] == ["="]:
            value = self.tokens[1].text if len(self.tokens) > 1 else "..."
            raise self._error(f"knobs stand in parentheses: {self.latest}({token.text}={value})")
        times = 1
        if token.text.isdecimal():
            times = int(token.text[:10])  # the first digits tell that a number is too large
            if times < 1 or times > _LARGEST:
                raise self._error(f"{token.text} at character {token.position}: repeat from 1 to {_LARGEST} times")
            self._take("*", f"after {token.text}, as in {token.text}*[...]")
            if not self.tokens:
                raise self._error(f"nothing to repeat after {token.text}*: add a layer or [layers]")
            token = self.tokens.pop(0)
        if token.text == "[":
            self._descend(token)
            layers = self._items(token)
            self.depth -= 1
        else:
            layers = self._named(token)
        if times * len(layers) > _LARGEST:
            raise self._error(f"more than {_LARGEST} layers")
        return times * layers

    def _descend(self, opened: _Token) -> None:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self._error(f"{opened.text!r} at character {opened.position}: more than {_DEEPEST} brackets within brackets")

    def _named(self, token: _Token) -> list[LayerConfig]:
        if not token.text[0].isidentifier():
            raise self._error(f"{token.text!r} at character {token.position}: a layer's name was expected")
        self.latest = token.text
        made_of_layers = token.text == _STRIPE or token.text in composites()
        if not made_of_layers and token.text not in registry():
            if token.text in CATALOGUE:
                return list(parse(CATALOGUE[token.text].spec, self.layer_defaults))
            if not is_path(token.text):
                raise unknown_layer(token.text, [_STRIPE, *CATALOGUE])
        items, given = self._arguments(token, made_of_layers)
        if token.text == _STRIPE:
            return self._striped(token, items, given)
        for number, layers in enumerate(items, start=1):
            if len(layers) != 1:
                place = f"layer {number} of {token.text} at character {token.position}"
                raise self._error(f"{place} is a stack of {len(layers)}: give one layer")
        parts = [layers[0] for layers in items]
        return [layer(token.text, *parts, **{**self.layer_defaults.get(token.text, {}), **given})]

    def _arguments(self, owner: _Token, made_of_layers: bool) -> tuple[list[list[LayerConfig]], dict[str, Any]]:
        """Items, and knobs by name, from the parentheses behind a name, if there are any."""
        items: list[list[LayerConfig]] = []
        given: dict[str, Any] = {}
        if not self.tokens or self.tokens[0].text != "(":
            return items, given
        opened = self.tokens.pop(0)
        self._descend(opened)
        between = f"between {'layers or ' if made_of_layers else ''}knobs, or ')' after the last"
        closed = bool(self.tokens) and self.tokens[0].text == ")"
        if closed:
            self.tokens.pop(0)
        while not closed:
            if not self.tokens:
                raise self._error(f"'(' at character {opened.position} is never closed: add ')'")
            if made_of_layers and [token.text for token in self.tokens[1:2]] != ["="]:
                if given:
                    place = f"{self.tokens[0].text!r} at character {self.tokens[0].position}"
                    raise self._error(f"{place}: the layers of {owner.text} come before its knobs")
                items.append(self._item())
            else:
                self._knob(owner.text, given)
            closed = self._take(",", between, alternative=")") == ")"
        self.depth -= 1
        return items, given

    def _striped(self, token: _Token, items: list[list[LayerConfig]], given: dict[str, Any]) -> list[LayerConfig]:
        if unexpected := given.keys() - {"every"}:
            raise unknown(f"knob of {_STRIPE}:", min(unexpected), ["every"])
        every = given.get("every")
        if len(items) != 2 or type(every) is not int or not 2 <= every <= _LARGEST:
            fix = f"two layers or [groups], then every from 2 to {_LARGEST}, as in {_STRIPE}(mamba, mh-attention, every=4)"
            raise self._error(f"{_STRIPE} at character {token.position} takes {fix}")
        rest, marked = items
        if (every - 1) * len(rest) > _LARGEST:
            raise self._error(f"more than {_LARGEST} layers")
        return (every - 1) * rest + marked

    def _knob(self, owner: str, given: dict[str, Any]) -> None:
        knob = self.tokens.pop(0)
        if not knob.text[0].isidentifier():
            raise self._error(f"{knob.text!r} at character {knob.position}: the name of a knob of {owner} was expected")
        self._take("=", f"after {knob.text!r}: knobs of {owner} are given as name=value")
        if not self.tokens or self.tokens[0].text in "()[]*=,":
            raise self._error(f"no value for {owner}({knob.text}=...)")
        if knob.text in given:
            raise self._error(f"{owner}({knob.text}=...) is given twice")
        given[knob.text] = knob_value(self.tokens.pop(0).text)

    def _take(self, wanted: str, where: str, alternative: str | None = None) -> str:
        if self.tokens and self.tokens[0].text in (wanted, alternative):
            return self.tokens.pop(0).text
        found = f"{self.tokens[0].text!r} at character {self.tokens[0].position}" if self.tokens else "the end"
        raise self._error(f"expected {wanted!r} {where}, found {found}")

    def _error(self, reason: str) -> ArchlabError:
        shown = self.spec if len(self.spec) <= 120 else f"{self.spec[:117]}..."
        return ArchlabError(f"malformed spec {shown!r}: {reason}")
