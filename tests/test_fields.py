import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from archlab.errors import ArchlabError
from archlab.fields import (
    Count,
    Natural,
    NonNegative,
    Positive,
    above,
    at_least,
    at_most,
    below,
    between,
    check_fields,
    check_value,
    not_empty,
    read_fields,
    read_yaml,
    write_yaml,
)


@dataclass(frozen=True, kw_only=True)
class Example:
    """A field of every kind."""

    name: str = "mine"
    flag: bool = False
    steps: Natural = 0
    size: Count = 1
    seed: Annotated[int, between(0, 9)] = 0
    rate: Positive = 1.0
    decay: NonNegative = 0.0
    warmup: Annotated[float, at_least(0), below(1)] = 0.0
    use: Annotated[float, above(0), at_most(1)] = 1.0
    any_number: float = 0.0
    kind: Literal["cosine", "constant"] = "cosine"
    resamples: Annotated[int, at_least(20)] | Literal[0] = 0
    limit: Positive | None = None
    seeds: Annotated[tuple[Natural, ...], not_empty] = (0,)
    rates: tuple[Positive, ...] = ()
    texts: list[str] = field(default_factory=list)
    table: Mapping[str, Count] = field(default_factory=dict)
    anything: Any = None

    def __post_init__(self) -> None:
        check_fields(self, "example")


def is_real(value: object) -> bool:
    return type(value) is float and math.isfinite(value)


VALID = {
    "name": lambda v: isinstance(v, str),
    "flag": lambda v: v is True or v is False,
    "steps": lambda v: type(v) is int and v >= 0,
    "size": lambda v: type(v) is int and v >= 1,
    "seed": lambda v: type(v) is int and 0 <= v <= 9,
    "rate": lambda v: is_real(v) and v > 0,
    "decay": lambda v: is_real(v) and v >= 0,
    "warmup": lambda v: is_real(v) and 0 <= v < 1,
    "use": lambda v: is_real(v) and 0 < v <= 1,
    "any_number": is_real,
    "kind": lambda v: v in ("cosine", "constant"),
    "resamples": lambda v: type(v) is int and (v == 0 or v >= 20),
    "limit": lambda v: v is None or (is_real(v) and v > 0),
    "seeds": lambda v: type(v) is tuple and len(v) == len(set(v)) > 0 and all(type(x) is int and x >= 0 for x in v),
    "rates": lambda v: type(v) is tuple and len(v) == len(set(v)) and all(is_real(x) and x > 0 for x in v),
    "texts": lambda v: type(v) is list and all(isinstance(x, str) for x in v),
    "table": lambda v: type(v) is dict and all(isinstance(k, str) and type(x) is int and x >= 1 for k, x in v.items()),
    "anything": lambda v: True,
}
numbers = st.integers() | st.floats() | st.booleans() | st.sampled_from([0, 1, -1, 0.5, 1.0, -0.0, math.inf, 10**400, 10**5000])
scalars = numbers | st.none() | st.text() | st.binary() | st.complex_numbers() | st.decimals() | st.fractions()
scalars |= st.sampled_from(
    ["cosine", "constant", np.float32(0.5), np.int64(30), np.bool_(True), object(), int, "a\nb", np.eye(3)]
)
values = scalars | st.lists(scalars, max_size=3) | st.lists(numbers, max_size=3).map(tuple)
values |= st.dictionaries(st.text(max_size=3) | st.integers(), scalars, max_size=3) | st.sets(st.integers(), max_size=2)


def test_every_field_has_its_condition():
    assert set(VALID) == {f.name for f in fields(Example)}


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(VALID)), values)
@example("any_number", 10**400)
@example("steps", True)
@example("size", 10**5000)
@example("name", "two\nlines")
def test_any_value_is_held_as_the_hint_says_or_refused_in_one_line(name, value):
    try:
        made = Example(**{name: value})
    except ArchlabError as refusal:
        message = str(refusal)
        assert message.startswith((f"example: {name}=", f"example: {name}.", f"example: {name}: key="))
        assert ": give " in message
        assert "\n" not in message
        assert len(message) < 300
        assert not (type(value) in (int, float, bool, str) and VALID[name](value))
    else:
        assert VALID[name](getattr(made, name))


@given(st.sampled_from(["rate", "decay", "warmup", "use", "any_number", "limit"]), st.integers(-3, 3) | st.fractions(-2, 2))
def test_other_real_numbers_become_the_nearest_fraction(name, value):
    try:
        made = Example(**{name: value})
    except ArchlabError:
        assert not VALID[name](float(value))
    else:
        assert getattr(made, name) == float(value)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("name", 3, "text"),
        ("flag", 1, "true or false"),
        ("steps", True, "a whole number of at least 0"),
        ("steps", 2.0, "a whole number of at least 0"),
        ("size", 0, "a whole number of at least 1"),
        ("seed", 10, "a whole number from 0 to 9"),
        ("rate", "1e-3", "a number above 0"),
        ("rate", math.inf, "a finite number above 0"),
        ("decay", Decimal(1), "a number of at least 0"),
        ("warmup", 1, "a number of at least 0 and below 1"),
        ("use", 0, "a number above 0 and of at most 1"),
        ("any_number", math.nan, "a finite number"),
        ("kind", "linear", "one of cosine, constant"),
        ("resamples", False, "a whole number of at least 20, or 0"),
        ("limit", 0.0, "a number above 0"),
        ("seeds", (), "a list of whole numbers of at least 0 that is not empty"),
        ("seeds", 3, "a list of whole numbers of at least 0 that is not empty"),
        ("rates", None, "a list of numbers above 0"),
        ("texts", "abc", "a list of texts"),
        ("table", 3, "a mapping of names to values"),
    ],
)
def test_a_refusal_names_the_place_the_field_the_value_and_what_is_allowed(name, value, allowed):
    with pytest.raises(ArchlabError) as refusal:
        Example(**{name: value})
    assert str(refusal.value) == f"example: {name}={value!r}: give {allowed}"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("seeds", [0, -1], "seeds=-1: give a whole number of at least 0"),
        ("texts", ["a", 1], "texts=1: give text"),
        ("table", {"a": 0}, "table.a=0: give a whole number of at least 1"),
        ("table", {3: 1}, "table: key=3: give text"),
        ("anything", None, ""),
    ],
)
def test_of_a_list_or_mapping_the_wrong_entry_is_named(name, value, message):
    if not message:
        Example(**{name: value})
        return
    with pytest.raises(ArchlabError) as refusal:
        Example(**{name: value})
    assert str(refusal.value) == f"example: {message}"


def test_values_are_held_in_one_form():
    made = Example(
        steps=np.int64(3),
        rate=1,
        decay=-0.0,
        warmup=Fraction(1, 4),
        seeds=[1, 0, 1],
        rates=(2, 2.0),
        texts=("a", "a"),
        table=None,
    )
    assert (made.steps, made.rate, made.warmup) == (3, 1.0, 0.25)
    assert (type(made.steps), type(made.rate)) == (int, float)
    assert str(made.decay) == "0.0"  # equal values have equal texts
    assert (made.seeds, made.rates, made.texts, made.table) == ((1, 0), (2.0,), ["a", "a"], {})
    check_fields(made)
    assert made == Example(steps=3, rate=1.0, warmup=0.25, seeds=(1, 0), rates=(2.0,), texts=["a", "a"])


def test_the_bounds_of_a_base_class_hold_where_a_subclass_declares_the_field_again():
    @dataclass(frozen=True)
    class Base:
        length: Annotated[int, between(1, 8)]

        def __post_init__(self) -> None:
            check_fields(self)

    @dataclass(frozen=True)
    class Derived(Base):
        length: int = 4
        width: Count = 2

    assert Derived(8).length == 8
    for wrong, message in (({"length": 9}, "length=9: give a whole number from 1 to 8"), ({"width": 0}, "width=0")):
        with pytest.raises(ArchlabError, match=message):
            Derived(**wrong)


def test_a_field_of_a_class_takes_its_instances():
    assert check_value("inner", Example(), Example) == Example()
    with pytest.raises(ArchlabError, match=r"^inner=3: give a value of type Example$"):
        check_value("inner", 3, Example)


@dataclass(frozen=True)
class Point:
    x: Natural
    y: Natural = 7
    z: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_fields(self, "point")


def test_fields_are_read_by_name():
    assert read_fields(Point, {"x": 1}) == Point(1)
    assert read_fields(Point, {"y": 2, "x": 1}) == Point(1, 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"x": 1, "yy": 2}, "file: unknown field 'yy': did you mean 'y'?"),
        ({"x": 1, 5: 2}, "file: unknown field '5': known: x, y, z"),
        ({"y": 1}, "file: x is missing: give a whole number of at least 0"),
        ({"x": -1}, "point: x=-1: give a whole number of at least 0"),
        (None, "file: None: give a mapping of x, y, z"),
        ([1, 2], "file: [1, 2]: give a mapping of x, y, z"),
    ],
)
def test_what_cannot_be_read_is_named(values, message):
    with pytest.raises(ArchlabError) as refusal:
        read_fields(Point, values, "file")
    assert str(refusal.value) == message


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("abc: -e1", max_size=6), st.lists
    )
)
def test_what_is_written_as_yaml_reads_back(value):
    for flow in (False, True):
        read = read_yaml(write_yaml(value, flow=flow))
        assert repr(read) == repr(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("-2E+4", -2e4),
        ("1.e3", 1e3),
        ("1.0e-3", 1e-3),
        ("0.1", 0.1),
        ("12", 12),
        ("true", True),
        ("cosine", "cosine"),
        ("1e", "1e"),
        ("e-3", "e-3"),
        ("'1e-3'", "1e-3"),
        ("[1e-3, 2]", [1e-3, 2]),
    ],
)
def test_numbers_are_what_they_look_like(text, value):
    read = read_yaml(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("text", ["{", "[1", "a: b: c", "2024-99-99", "\x00", "{a: 1, b: 2, a: 1}", "a: 1\nb:\n  c: 1\n  c: 2"])
def test_what_is_not_yaml_is_refused_in_one_line(text):
    with pytest.raises(ArchlabError, match=r"^not YAML: ") as refusal:
        read_yaml(text)
    assert "\n" not in str(refusal.value)


BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))
HOSTILE = {
    BOMB: "more than 1,000,000 values",
    "a: &a [*a]": "an alias stands within what it names",
    "a: &a {<<: *a}": "an alias stands within what it names",
    "[" * 3000: "nested too deep",
    "{a: " * 3000: "nested too deep",
    "!!int ''": "a tag does not fit its value (IndexError)",
    "!!bool maybe": "a tag does not fit its value (KeyError)",
    "!!timestamp x": "a tag does not fit its value (AttributeError)",
    "!!map []": "expected a mapping node",
    "!!python/object/apply:os.mkdir [x]": "could not determine a constructor for the tag",
    '"a\\0b"': "is no text",
    '"\\ud800": 1': "is no text",
}


@pytest.mark.parametrize(("text", "reason"), HOSTILE.items(), ids=range(len(HOSTILE)))
def test_hostile_yaml_is_refused_in_one_line(text, reason):
    with pytest.raises(ArchlabError, match=re.escape(reason)) as refusal:
        read_yaml(text)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 600


def test_aliases_and_keys_that_are_lists_of_numbers_are_read():
    assert read_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: *a") == {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": {"x": 1}}


def test_the_time_for_a_mapping_grows_as_its_keys_do():
    def seconds(keys):
        started = time.process_time()
        read_yaml("".join(f"k{i}: 1\n" for i in range(keys)))
        return time.process_time() - started

    assert seconds(8000) < 12 * seconds(2000)  # 4 times; pairs of keys take 16
