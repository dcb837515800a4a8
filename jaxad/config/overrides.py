"""Overrides of config fields on the command line, `--config.FIELD=VALUE`."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from jaxad.config.checks import check, check_name, check_tuples, describe_unparsed, holds_names
from jaxad.config.flags import parse_names
from jaxad.config.text import flatten, from_json, to_json
from jaxad.errors import UserError


def override(config: ConfigDict, overrides: Sequence[str]) -> ConfigDict:
    """Applies overrides, each parsed to the type of its field, and checks them.

    Args:
        config: the config; it changes.
        overrides: arguments of the command line, as `--config.seed=1`.

    Raises:
        UserError: there is no such field, or a value is not one of its field.
    """
    for argument in overrides:
        name = argument.lstrip("-").split("=", 1)[0].removeprefix("no")
        if argument.startswith("-") and name.startswith("config."):
            check_name(name, config)
    defaults = from_json(to_json(config))
    values = flags.FlagValues()
    known = flatten(defaults)
    argv = ["jaxad", *_with_tuples(overrides, known)]
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
    try:
        rest = values(argv)
    except (flags.Error, ValueError, TypeError, KeyError, AttributeError) as error:
        unparsed = re.match(r"flag --(config\.[\w.]+)=(.*?): ", str(error), re.DOTALL)
        if unparsed and unparsed[1] in known:
            message = describe_unparsed(unparsed[1], unparsed[2], known[unparsed[1]])
            raise UserError(message) from error
        if missing := re.match(r"Missing value for flag --([\w.]+)", str(error)):
            raise UserError(f"--{missing[1]}: has no value; write --{missing[1]}=VALUE.") from error
        raise UserError(" ".join(str(error).split())) from error
    if len(rest) > 1:
        raise UserError(f"'{rest[1]}': not understood; write --config.FIELD=VALUE.")
    changed = values["config"].value
    check_tuples(changed, defaults, _texts(overrides))
    check(changed)
    return changed


def _texts(overrides: Sequence[str]) -> dict[str, str]:
    """Returns the text of each override by its path; a value may follow as the next argument."""
    texts: dict[str, str] = {}
    path = ""
    for argument in overrides:
        if argument.startswith("-config.") or argument.startswith("--config."):
            path, _, text = argument.lstrip("-").partition("=")
            texts[path] = text
        elif path:
            texts[path] = argument
    return texts


def _with_tuples(overrides: Sequence[str], known: Mapping[str, Any]) -> list[str]:
    """Returns overrides with names such as `good,normal` written as tuples.

    `known` has the default of every field by its path.
    """
    written = []
    path = ""  # field whose value follows as the next argument
    for argument in overrides:
        flag, equals, text = argument.partition("=")
        if not argument.startswith("-"):
            flag, equals, text = "", "", argument
        path = flag.lstrip("-") or path
        has_text = bool(equals) or not flag
        if has_text and path in known and holds_names(path, known[path]):
            argument = f"{flag}{equals}{parse_names(path, text)!r}"
        written.append(argument)
        path = "" if has_text else path
    return written
