"""What a config field allows: a set of names or an interval of numbers."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class OneOf:
    """A fixed set of names.

    Attributes:
        names: the names.
    """

    names: tuple[str, ...]

    def find_problem(self, value: Any) -> str:
        """Returns why a value is not allowed; "" if it is."""
        if value in self.names:
            return ""
        return f"unknown '{value}'; known: {', '.join(self.names)}"


@dataclasses.dataclass(frozen=True)
class Interval:
    """Numbers in an interval, or non-empty tuples of such numbers. NaN is in none.

    Attributes:
        text: the interval in mathematical notation: `[0, 1)`, `(0, inf)`.
    """

    text: str

    def find_problem(self, value: Any) -> str:
        """Returns why a value is not allowed; "" if it is."""
        if isinstance(value, tuple):
            allowed = value and all(map(self._holds, value))
            return "" if allowed else f"{value}; give at least one number, each in {self.text}"
        return "" if self._holds(value) else f"{value} is not in {self.text}"

    def _holds(self, number: Any) -> bool:
        if not isinstance(number, int | float):
            return False
        least, most = map(float, self.text[1:-1].split(","))
        is_above = number >= least if self.text[0] == "[" else number > least
        return is_above and (number <= most if self.text[-1] == "]" else number < most)
