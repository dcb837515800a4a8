"""Configs: their fields, the shared base, the shipped ones, studies, and configs as text."""

from jaxad.config.checks import check
from jaxad.config.defaults import VARIANTS, base, check_variant, smoke
from jaxad.config.shipped import get_config
from jaxad.config.studies import is_study, representatives, study, study_run
from jaxad.config.text import difference, flatten, from_json, to_json, without_paths

__all__ = [
    "VARIANTS",
    "base",
    "check",
    "check_variant",
    "difference",
    "flatten",
    "from_json",
    "get_config",
    "is_study",
    "representatives",
    "smoke",
    "study",
    "study_run",
    "to_json",
    "without_paths",
]
