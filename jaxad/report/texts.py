"""Numbers as text, for reports and the tables of studies."""

import math

from jaxad.evaluate.paired import Difference


def number(metric: str, value: float) -> str:
    """The value of a metric; a dash if it is undefined."""
    if math.isnan(value):
        return "–"
    return f"{value:.5f}" if metric == "mse" else f"{value:.3f}"


def difference(metric: str, found: Difference) -> str:
    """A difference of a metric with its interval."""
    value, low, high = (number(metric, x) for x in (found.value, found.low, found.high))
    sign = "+" if found.value > 0 else ""
    return f"{sign}{value} [{low}, {high}]"


def p_value(found: Difference) -> str:
    """The p-value of a difference; a dash if it is undefined."""
    return "–" if math.isnan(found.p_value) else f"{found.p_value:.3g}"
