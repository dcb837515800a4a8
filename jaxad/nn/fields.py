"""Limits of config fields, declared in their types: `Annotated[float, Interval("[0, 1]")]`."""

import dataclasses
import typing
from typing import Any

from jaxad.errors import UserError, suggest


@dataclasses.dataclass(frozen=True)
class OneOf:
    """Allows a fixed set of names, or tuples of them."""

    names: tuple[str, ...]

    def find_problem(self, value: Any) -> str:
        """Returns why a value is not allowed; "" if it is."""
        for name in value if isinstance(value, tuple) else (value,):
            if name not in self.names:
                hint = suggest(str(name), self.names)
                return f"unknown '{name}';{hint} known: {', '.join(self.names)}"
        return ""


@dataclasses.dataclass(frozen=True)
class Interval:
    """Allows numbers in an interval, or non-empty tuples of such numbers. NaN is in none.

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

    def _holds(self, number: float | int) -> bool:
        least, most = map(float, self.text[1:-1].split(","))
        is_above = number >= least if self.text[0] == "[" else number > least
        return is_above and (number <= most if self.text[-1] == "]" else number < most)


def check_fields(settings: Any) -> None:
    """Checks the annotated fields of a dataclass instance.

    Raises:
        UserError: a field is outside its declared limits.
    """
    # Not `field.type`, which is text in a module with `from __future__ import annotations`.
    types = typing.get_type_hints(type(settings), include_extras=True)
    for field in dataclasses.fields(settings):
        for limit in typing.get_args(types[field.name])[1:]:
            if isinstance(limit, OneOf | Interval) and (
                problem := limit.find_problem(getattr(settings, field.name))
            ):
                raise UserError(f"config.model.{field.name}: {problem}.")


def check_halvings(image_shape: tuple[int, int, int], count: int) -> None:
    """Raises a UserError unless height and width can be halved `count` times."""
    height, width, _ = image_shape
    if height % 2**count or width % 2**count:
        raise UserError(
            f"config.data.image_size: {height} cannot be halved {count} times; choose a multiple "
            f"of {2**count}."
        )
