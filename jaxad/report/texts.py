"""Numbers as text, for reports and the tables of studies."""

import math

from jaxad.evaluate.paired import Difference


def number(value: float, decimals: int = 3) -> str:
    """Formats a value; a dash where it is undefined (NaN)."""
    return "–" if math.isnan(value) else f"{value:.{decimals}f}"


def difference(found: Difference, decimals: int = 3) -> str:
    """Formats a difference of metrics with its interval."""
    value, low, high = (number(x, decimals) for x in (found.value, found.low, found.high))
    sign = "+" if found.value > 0 else ""
    return f"{sign}{value} [{low}, {high}]"


def p_value(found: Difference) -> str:
    """Formats the p-value of a difference; a dash where it is undefined."""
    return "–" if math.isnan(found.p_value) else f"{found.p_value:.3g}"
