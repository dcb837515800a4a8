"""The fields that all systems have."""

import dataclasses

import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxad.nn.fields import check_fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class SystemFields:
    """Base of systems: the fields that all of them have, and the check of declared limits.

    Attributes:
        image_shape: (H, W, C) of the images.
        dtype: dtype of the convolutions; parameters, likelihoods and features stay float32.
        axis_name: axis that batch statistics are summed over; see `jaxad.types.Model`.

    Raises:
        UserError: a field is outside its declared limits.
    """

    image_shape: tuple[int, int, int]
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
