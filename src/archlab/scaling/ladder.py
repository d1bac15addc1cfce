"""Ladders: the budgets, sizes and rules of an IsoFLOP study.

A ladder is a YAML file, in the package or the user's own; its fields are those of :class:`Ladder`, and those that are left
out have their defaults::

    summary: one line
    budgets: [2e11, 4e11, 8e11]
    sizes: 5
    data: stdlib
    tokenizer: ascii
"""

import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from archlab.errors import ArchlabError, unknown
from archlab.fields import mapping, naming, read_yaml
from archlab.scaling.flops import CONVENTIONS, Convention
from archlab.scaling.sizes import Shape


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """What to plan for every architecture."""

    name: str
    summary: str = ""
    budgets: tuple[float, ...]
    """FLOPs of each group."""
    sizes: int = 5
    """Of each group."""
    spread: float = 2.0
    """Parameters of a size over those of the next smaller one; the sizes lie around :func:`archlab.scaling.rules.centre`."""
    params: tuple[float, ...] = ()
    """The sizes of every group, in parameters, in place of the rule."""
    length: int = 128
    """Tokens of a sequence."""
    data: str = "stdlib"
    """See :func:`archlab.corpora.prepare`."""
    tokenizer: str | None = None
    vocab_size: int | None = None
    """Plan for a vocabulary of this size, without the corpus."""
    repeat: bool = False
    """Runs may need more tokens than the corpus has."""
    min_steps: int = 150
    """The least of a run; batches are smaller where it takes that."""
    batch_size: int | None = None
    """Sequences, in place of the rule."""
    learning_rate: float | None = None
    """In place of the rule."""
    seeds: tuple[int, ...] = (0,)
    convention: Convention = "exact"
    aspect: float = Shape.aspect
    head_dim: int = Shape.head_dim
    architectures: Mapping[str, str] = field(default_factory=dict)
    """Specs by what to call them, for a plan that is asked for none."""
    peak_flops: float | None = None
    """FLOP/s of an accelerator, for a study that is planned on paper."""
    utilisation: float = 0.4
    """Share of it that training reaches."""
    gpus: int = 8
    """Accelerators, for the same."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ArchlabError: naming the field, its value and what is allowed.
        """
        hints = get_type_hints(type(self))
        for f in fields(self):
            object.__setattr__(self, f.name, _value(f.name, getattr(self, f.name), hints[f.name]))
        if self.spread <= 1:
            raise ArchlabError(f"spread={self.spread}: give a factor above 1")
        if self.convention not in CONVENTIONS:
            raise unknown("FLOP convention", self.convention, CONVENTIONS)
        if self.utilisation > 1:
            raise ArchlabError(f"utilisation={self.utilisation}: give a share of at most 1")
        if not self.budgets or not self.seeds:
            raise ArchlabError(f"{'seeds' if self.budgets else 'budgets'}: give at least one")

    @property
    def shape(self) -> Shape:
        """How depth and heads follow from the width."""
        return Shape(self.aspect, self.head_dim)

    def with_values(self, **values: Any) -> "Ladder":
        """A ladder with other values; None leaves one as it is.

        Raises:
            ArchlabError: a field is unknown, or see the class.
        """
        known = [f.name for f in fields(self) if f.name not in ("name", "summary", "architectures")]
        for name in values:
            if name not in known:
                raise unknown("field of a ladder:", name, known)
        return replace(self, **{name: value for name, value in values.items() if value is not None})

    def to_dict(self) -> dict[str, Any]:
        """Every field that is not at its default, for a plan's provenance."""
        defaults = {f.name: f.default for f in fields(self)}
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in vars(self).items() if v != defaults[name]}
        return {name: value for name, value in values.items() if name not in ("summary", "architectures")}


def load_ladder(name: str) -> Ladder:
    """A ladder of the package by name, or the user's own by the path of its YAML file.

    Raises:
        ArchlabError: there is none, or a field is unknown or wrong.
    """
    known = {path.name.removesuffix(".yaml"): path for path in _folder().iterdir()}
    if name in known:
        text = known[name].read_text(encoding="utf-8")
    elif Path(name).suffix in (".yaml", ".yml"):
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ArchlabError(f"ladder {name} cannot be read: {error}") from None
    else:
        raise unknown("ladder", name, known)
    with naming(f"ladder {name}"):
        values = mapping("ladder", read_yaml(text), {f.name for f in fields(Ladder)} - {"name"})
        if "budgets" not in values:
            raise ArchlabError("budgets is missing: give FLOPs, as in [2e11, 4e11]")
        return Ladder(name=Path(name).stem, **values)


def _folder() -> Any:
    return resources.files("archlab.scaling") / "ladders"


def _value(name: str, value: Any, hint: Any) -> Any:
    """The value as a field holds it: lists as tuples, whole numbers where fractions may stand, every number positive."""
    if get_origin(hint) is types.UnionType:
        kind = get_args(hint)[0]
        return None if value is None else _value(name, value, kind)
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise ArchlabError(f"{name}={value!r}: give a list, as in [{value!r}]")
        return tuple(dict.fromkeys(_value(name, one, get_args(hint)[0]) for one in value))
    if get_origin(hint) is Mapping:
        given = mapping(name, dict(value) if isinstance(value, Mapping) else value)
        if any(not isinstance(spec, str) for spec in given.values()):
            raise ArchlabError(f"{name}: give specs as text")
        return given
    if hint is float and type(value) is int:
        value = float(value)
    if hint is int and type(value) is float and value.is_integer():
        value = int(value)
    wanted = hint if isinstance(hint, type) else str
    if type(value) is not wanted:
        raise ArchlabError(f"{name}={value!r}: give a value of type {wanted.__name__}")
    least = 0 if name == "seeds" else math.ulp(0.0)
    if isinstance(value, int | float) and not isinstance(value, bool) and not least <= value < math.inf:
        raise ArchlabError(f"{name}={value}: must be {'positive and finite' if least else 'at least 0'}")
    return value
