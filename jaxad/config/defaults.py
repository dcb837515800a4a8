"""The config that every experiment starts from, and the variants of a config."""

from collections.abc import Iterable, Sequence
from typing import Any

from ml_collections import ConfigDict

from jaxad.config.field import Field
from jaxad.config.fields import FIELDS
from jaxad.errors import UserError

#: Variants of every shipped config; the empty one is the recommended setting.
VARIANTS = ("", "demo", "smoke", "paper")


def from_records(fields: Iterable[Field]) -> ConfigDict:
    """A config with the fields of some records at their defaults."""
    nested: dict[str, Any] = {}
    for field in fields:
        *groups, name = field.path.split(".")
        group = nested
        for key in groups:
            group = group.setdefault(key, {})
        group[name] = {} if field.is_open_group else field.default
    return ConfigDict(nested)


def base() -> ConfigDict:
    """A config with the fields that all experiments share, at their defaults."""
    return from_records(FIELDS)


def smoke(config: ConfigDict, *, is_trained: bool = True) -> ConfigDict:
    """Shrinks a run to seconds, for tests; model sizes stay.

    Args:
        config: the config of the run; changed in place.
        is_trained: whether the system is trained; `config.train` has no effect on others.
    """
    config.data.num_subjects = (4, 2, 3, 4)
    config.data.batch_size = 16
    config.evaluate.bootstrap_resamples = 50
    config.evaluate.num_examples = 2
    config.evaluate.feature_references = False
    if is_trained:
        config.train.num_epochs = 2.0
        config.train.log_every_steps = 2
        config.train.checkpoint_every_steps = 5
    return config


def check_variant(name: str, variant: str, more: Sequence[str] = ()) -> None:
    """Checks that a config has a variant.

    Args:
        name: the name of the config.
        variant: what the user asked for.
        more: variants that this config has besides `VARIANTS`.

    Raises:
        UserError: it has no such variant.
    """
    variants = (*VARIANTS, *more)
    if variant not in variants:
        known = ", ".join(f"'{name}:{known}'" for known in variants if known)
        raise UserError(f"config '{name}:{variant}': no such variant; known: '{name}', {known}.")
