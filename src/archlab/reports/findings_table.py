"""Measured quantities of findings as text, for the terminal and for tables of results."""

from math import isfinite

from archlab.designs.verdict import Quantity


def with_interval(quantity: Quantity) -> str:
    """Value and interval with the unit: ``+12.3 points [8.1, 16.5]``; a dash where nothing was measured."""
    if quantity.value is None:
        return "–"
    digits = _digits(quantity)
    text = f"{quantity.value:+.{digits}f} {quantity.unit}".strip()
    if quantity.low is not None and quantity.high is not None:
        text += f" [{quantity.low:.{digits}f}, {quantity.high:.{digits}f}]"
    return text.replace("-", "−")


def claimed(quantity: Quantity) -> str:
    """The region of the claim: ``above 1.0 points``, ``from −0.420 to −0.140``."""
    low, high = (f"{end:.{_digits(quantity)}f}".replace("-", "−") for end in (quantity.region.above, quantity.region.below))
    if isfinite(quantity.region.above) and isfinite(quantity.region.below):
        region = f"from {low} to {high}"
    else:
        region = f"above {low}" if isfinite(quantity.region.above) else f"below {high}"
    return f"{region} {quantity.unit}".strip()


def _digits(quantity: Quantity) -> int:
    return 1 if quantity.unit == "points" else 3
