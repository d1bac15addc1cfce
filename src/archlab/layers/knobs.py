"""Values of knobs: their text in specs, and which are taken."""

import math
import re
from numbers import Integral, Real
from typing import Annotated, Any

from archlab.errors import ArchlabError
from archlab.fields import Bound

LARGEST = 10**12
"""Largest whole number that a knob, a length or a state may be: beyond any model, and small enough to be counted with."""

Even = Annotated[int, Bound(lambda value: value >= 2 and value % 2 == 0, "that is even and at least 2")]
"""Channels or states that come in pairs."""

Factor = Annotated[float, Bound(lambda value: 0 < value <= LARGEST, f"above 0, of at most {LARGEST:,}")]
"""A width over the width of the layer."""


def knob_text(value: Any) -> str:
    """A knob's value as specs write it, which :func:`knob_value` reads back.

    Strings are quoted where they would read as something else, and a quote within them is doubled.
    """
    if not isinstance(value, str) or (re.fullmatch(r"[A-Za-z_][\w.+/:-]*", value) and knob_value(value) == value):
        return str(value)
    return '"{}"'.format(value.replace('"', '""'))


def knob_value(text: str) -> Any:
    """The value of a knob that specs write as ``text``: a quoted string, a truth value, a number, or else the text itself."""
    if text[0] in "\"'":
        return text[1:-1].replace(2 * text[0], text[0])
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            pass
    return text


def check_number(where: str, value: Any) -> None:
    """Refuse NaN and infinity, which no spec can write, and whole numbers beyond :data:`LARGEST`, by an ArchlabError."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ArchlabError(f"{where}: give a finite number")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ArchlabError(f"{where}: give a number of at most {LARGEST:,}")


def plain(value: Any) -> Any:
    """A number of any library, such as NumPy's, as Python's own; everything else as it is."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def converted(where: str, value: Any, wanted: type) -> Any:
    """The value as the type of the knob's default, or ArchlabError; whole numbers are taken for floats, nothing else converts."""
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not wanted:
        raise ArchlabError(f"{where}: {value!r} is of type {type(value).__name__}, give a value of type {wanted.__name__}")
    return value
