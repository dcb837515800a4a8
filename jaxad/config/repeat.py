"""The command that repeats a run, made from its config."""

import shlex

from ml_collections import ConfigDict

from jaxad.config.defaults import VARIANTS
from jaxad.config.shipped import get_config
from jaxad.config.text import flatten, from_json, to_json, without_paths
from jaxad.errors import UserError

#: What stands for a path of the machine in a command.
PATH = "PATH"


def repeat_command(config: ConfigDict, folder: str) -> str:
    """Returns the command that repeats a run.

    It names the variant of the model's shipped config that differs in the fewest fields, and sets
    these fields. Paths of the machine are `PATH`.

    Args:
        config: the config of the run.
        folder: the workdir that the command names.

    Returns:
        The command; "" if no config of the model's name is shipped, or none has the same fields.
    """
    config = from_json(to_json(config))
    shown, public = flatten(config), flatten(without_paths(config))
    commands = []
    for variant in VARIANTS:
        name = f"{config.model.name}:{variant}".rstrip(":")
        try:
            shipped = flatten(from_json(to_json(get_config(name))))
        except UserError:
            continue
        if shipped.keys() == shown.keys():
            changed = [path for path in shown if shown[path] != shipped[path]]
            values = {path: _text(shown[path], shown[path] == public[path]) for path in changed}
            flags = [f"--{path}={_quote(value)}" for path, value in values.items()]
            commands.append([f"--config={name}", f"--workdir={shlex.quote(folder)}", *flags])
    return " ".join(["python launch.py", *min(commands, key=len)]) if commands else ""


def _quote(text: str) -> str:
    """Quotes a text for a shell; in double quotes if that is shorter."""
    is_plain = not set(text) & set('"$`\\!')
    return f'"{text}"' if "'" in text and is_plain else shlex.quote(text)


def _text(value: object, is_public: bool) -> str:
    """Returns a value as the command line takes it."""
    return PATH if isinstance(value, str) and not is_public else str(value)
