"""Values of flags of the command line, which are text, or values that a function was given."""

import ast
import contextlib
import re

from jaxad.errors import UserError

#: Names in brackets that were written without quotes, such as `(good, normal)`.
_IN_BRACKETS = re.compile(r"[(\[]([\w\s,.-]+)[)\]]")

#: A comma that is not part of a regular expression such as `block_\d{1,2}`.
_COMMA = re.compile(r",(?![^{(\[]*[})\]])")


def parse_number(flag: str, text: str | int | float, example: str) -> float:
    """Returns the number that a flag holds; a UserError with the example for any other text."""
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"--{flag}={text}: not a number; write {example}.") from error


def parse_bool(flag: str, value: str | bool) -> bool:
    """Returns the truth value that a flag holds, False for ""; a UserError for any other text."""
    text = str(value or False).lower()
    if text not in ("true", "false"):
        raise UserError(f"--{flag}={value}: write True or False.")
    return text == "true"


def parse_names(flag: str, text: str) -> tuple[str, ...]:
    """Returns the names that a flag holds, written as `good,normal` or `('good', 'normal')`.

    Raises:
        UserError: the text has brackets and quotes, but is not a tuple of names.
    """
    text = text.strip()
    with contextlib.suppress(ValueError, SyntaxError):
        value = ast.literal_eval(text)
        value = (value,) if isinstance(value, str) else value
        if isinstance(value, tuple | list) and all(isinstance(name, str) for name in value):
            return tuple(value)
    if match := _IN_BRACKETS.fullmatch(text):
        text = match[1]
    if text[:1] in ("(", "[") and ("'" in text or '"' in text):
        raise UserError(
            f"--{flag}={text}: not understood; write names as --{flag}=first,second or as "
            f"--{flag}=\"('first', 'second')\"."
        )
    return tuple(name.strip() for name in _COMMA.split(text) if name.strip())
