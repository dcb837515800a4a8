"""Normalising flow of distrax bijectors over the channels of a feature map."""

import jaxad.nn.flow._distrax  # noqa: F401 - must run before distrax is imported
from jaxad.nn.flow.network import (
    HALVES,
    PERMUTATIONS,
    SUBNETS,
    Flow,
    FlowSettings,
    likelihood_terms,
    standard_normal_log_density,
)

__all__ = [
    "HALVES",
    "PERMUTATIONS",
    "SUBNETS",
    "Flow",
    "FlowSettings",
    "likelihood_terms",
    "standard_normal_log_density",
]
