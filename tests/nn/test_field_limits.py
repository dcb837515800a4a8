"""Limits of fields, declared in their types."""

from __future__ import annotations  # types are text: `check_fields` must evaluate them

import dataclasses
from typing import Annotated

import pytest

from jaxad.errors import UserError
from jaxad.nn.fields import Interval, OneOf, check_fields


@dataclasses.dataclass(frozen=True)
class Settings:
    alpha: Annotated[float, Interval("[0, 1]")] = 0.5
    loss: Annotated[str, OneOf(("mse", "ssim"))] = "mse"
    free: int = 0


def test_limits_hold_in_a_module_with_annotations_as_text():
    check_fields(Settings())
    with pytest.raises(UserError, match=r"^config\.model\.alpha: 2\.0 is not in \[0, 1\]\.$"):
        check_fields(Settings(alpha=2.0))
    with pytest.raises(UserError, match=r"\.loss: unknown 'mae'; did you mean 'mse'\? known: mse"):
        check_fields(Settings(loss="mae"))
