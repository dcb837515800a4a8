"""A normalizing flow of distrax bijectors over the channels of a feature map."""

import jaxad.nn.flow._distrax  # noqa: F401 - before what imports distrax
from jaxad.nn.flow.freia import from_freia
from jaxad.nn.flow.network import (
    HALVES,
    PERMUTATIONS,
    SUBNETS,
    Flow,
    FlowSettings,
    standard_normal_log_density,
)

__all__ = [
    "HALVES",
    "PERMUTATIONS",
    "SUBNETS",
    "Flow",
    "FlowSettings",
    "from_freia",
    "standard_normal_log_density",
]
