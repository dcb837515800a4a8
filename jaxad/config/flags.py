"""Values of flags of the command line, which are text, or values that a function was given."""

from jaxad.errors import UserError


def parse_number(flag: str, text: str | int | float) -> float:
    """Returns the number that a flag holds; raises a UserError for any other text."""
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"--{flag}={text}: not a number.") from error


def parse_bool(flag: str, value: str | bool) -> bool:
    """Returns the truth value that a flag holds, False for ""; a UserError for any other text."""
    text = str(value or False).lower()
    if text not in ("true", "false"):
        raise UserError(f"--{flag}={value}: write True or False.")
    return text == "true"
