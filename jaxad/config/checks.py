"""Checks of a config against the records of its fields."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxad.config import fields
from jaxad.config.text import flatten
from jaxad.errors import UserError, suggest


def check(config: ConfigDict, prefix: str = "config") -> None:
    """Checks every value against the range or the choices of its field.

    Args:
        config: the config of a run or a study, or one of its groups.
        prefix: path of the group, such as `config.data`.

    Raises:
        UserError: a value is not allowed; names the path, the value and what is allowed.
    """
    for path, value in flatten(config, prefix).items():
        field = fields.find(path)
        if field is not None:
            field.check(path, value)


def check_tuples(config: ConfigDict, defaults: ConfigDict, texts: Mapping[str, str]) -> None:
    """Checks that the items of every tuple have the type of the default's items.

    Args:
        config: the config, with overrides from the command line.
        defaults: the same config without them.
        texts: the overrides by their path, as the user wrote them.

    Raises:
        UserError: an item has another type; shows how to write the field.
    """
    before = flatten(defaults)
    for path, value in flatten(config).items():
        if not isinstance(value, tuple) or value == before[path]:
            continue
        kinds = {type(item) for item in before[path]}
        if not kinds:
            field = fields.find(path)
            if field is None:
                continue  # the model checks its own fields
            kinds = {field.items}
        if not all(isinstance(v, (*kinds, int) if float in kinds else tuple(kinds)) for v in value):
            # `parse_names` has read tuples of names.
            text = texts.get(path, repr(value))
            raise UserError(
                f"--{path}={text}: not understood; {_describe_tuple(path, before[path])}."
            )


def _describe_tuple(path: str, default: tuple[Any, ...]) -> str:
    """Returns how the command line takes a tuple; its items follow a comma, without brackets."""
    text = ",".join(map(str, default or (20, 40)))
    return f"write it as --{path}={text}"


def holds_names(path: str, default: Any) -> bool:
    """Tells whether a field with this default is a tuple of names."""
    if not isinstance(default, tuple):
        return False
    field = fields.find(path)
    if not default:
        return field is not None and field.items is str
    return all(isinstance(item, str) for item in default)


def describe_unparsed(path: str, text: str, default: Any) -> str:
    """Returns the message for a text that is no value of the type of a field's default."""
    kinds = {
        bool: "give True or False",
        int: "give a whole number",
        float: "give a number",
        tuple: _describe_tuple(path, default) if isinstance(default, tuple) else "",
    }
    return f"--{path}={text}: {kinds.get(type(default), 'not understood')}."


def check_name(path: str, config: ConfigDict) -> None:
    """Checks that a config has a field of this path.

    Raises:
        UserError: the path names a group, a field that only a config file can add, or no field;
            suggests the nearest one.
    """
    known = flatten(config)
    if path in known:
        return
    if any(name.startswith(f"{path}.") for name in known):
        raise UserError(
            f"--{path}: is a group of fields; set one of them with --{path}.FIELD=VALUE."
        )
    group = fields.open_group(path)
    if group in fields.FIELDS:  # its names are those of networks; in a study, of experiments
        raise UserError(
            f"--{path}: this config does not set this field, and the command line cannot add it; "
            f"set it in Python or in your own config file, under config.{group.path}."
        )
    parts, names = path.split("."), list(config.get("experiments", ()))
    if parts[1] == "experiments" and len(parts) > 2 and parts[2] not in names:
        hint = suggest(parts[2], names, "--config.experiments.")
        raise UserError(f"--{path}: no such experiment;{hint} known: {', '.join(names)}.")
    raise UserError(f"--{path}: no such field;{suggest_field(path, known)}")


def suggest_field(path: str, known: Iterable[str]) -> str:
    """Returns ` did you mean '--<path>'?` with the field that a path probably means; "" if none.

    A field with this alias comes first, then one with a similar last part, then a similar path.
    """
    known, name = list(known), path.rpartition(".")[2].replace("-", "_").lower()
    likely = [other for other in known if (field := fields.find(other)) and name in field.aliases]
    if not likely:
        last_parts = {other.rpartition(".")[2] for other in known}
        close = difflib.get_close_matches(name, last_parts, n=1, cutoff=0.75)
        likely = [other for other in known if other.rpartition(".")[2] in close]
    nearest = difflib.get_close_matches(path, likely, n=1, cutoff=0)
    return suggest(nearest[0] if nearest else path, likely or known, "--")
