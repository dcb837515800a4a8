"""How figures are written where people read them: in reports and in the tables of studies."""

import math

from jaxad.evaluate.paired import Difference


def number(metric: str, value: float) -> str:
    """A metric's value; a dash where it is undefined."""
    if math.isnan(value):
        return "–"
    return f"{value:.5f}" if metric == "mse" else f"{value:.3f}"


def difference(metric: str, found: Difference) -> str:
    """A difference of metrics with its interval."""
    value, low, high = (number(metric, x) for x in (found.value, found.low, found.high))
    sign = "+" if found.value > 0 else ""
    return f"{sign}{value} [{low}, {high}]"


def p_value(found: Difference) -> str:
    """That of a difference."""
    return "–" if math.isnan(found.p_value) else f"{found.p_value:.3g}"
