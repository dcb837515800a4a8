"""The part of `--help` that lists the fields of a config."""

import textwrap

from ml_collections import ConfigDict

from jaxad.config.field import DATA_KINDS, Field
from jaxad.config.fields import find
from jaxad.config.text import flatten

#: Column at which the text of a field begins.
_COLUMN = 50


def field_lines(config: ConfigDict, width: int) -> list[str]:
    """One line per field: its flag with the value, then what it means and what is allowed.

    Args:
        config: the config of a run or a study.
        width: the width of a line, in characters; longer texts are wrapped.
    """
    lines = []
    for path, value in flatten(config).items():
        flag, field = f"  --{path}={value}", find(path)
        text = [] if field is None else textwrap.wrap(describe(field), max(30, width - _COLUMN))
        if text and len(flag) < _COLUMN:
            flag = f"{flag:{_COLUMN}}{text.pop(0)}"
        lines += [flag, *(f"{'':{_COLUMN}}{line}" for line in text)]
    kinds = "; ".join(f"{name}: {text}" for name, text in DATA_KINDS.items())
    notes = (
        f"Kinds of data sets: {kinds}.",
        "Fields of config.model are those of the model's class; its docstring describes them.",
        "Systems that are fitted in one pass use neither config.optim nor, but for its cache of "
        "features, config.train.",
    )
    return [*lines, "", *(line for note in notes for line in textwrap.wrap(note, width))]


def describe(field: Field) -> str:
    """What a field means, its range or choices, and what it applies to."""
    text = field.help
    if isinstance(field.allowed, str):
        text += f" In {field.allowed}."
    elif field.allowed:
        quantity = "Any" if isinstance(field.default, tuple) else "One"
        text += f" {quantity} of {', '.join(field.allowed)}."
    if field.data:
        text += f" Only for {', '.join(field.data)}."
    if field.requires[0]:
        text += f" Only with config.{field.requires[0]}={' or '.join(field.requires[1])}."
    return text
