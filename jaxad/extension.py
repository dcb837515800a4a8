"""Objects of other people's packages, named in a config as `my_package.my_module:MyClass`."""

import importlib
import sys
from pathlib import Path
from typing import Any

from jaxad.errors import UserError, first_line


def is_external(name: str) -> bool:
    """Whether a name is of an object outside jaxad: `module:attribute`."""
    return ":" in name


def load_object(name: str, field: str) -> Any:
    """Imports the object that a config names.

    The module may be installed, or lie in the current folder.

    Args:
        name: `package.module:attribute`.
        field: the config field that holds the name, for messages.

    Raises:
        UserError: the name is malformed, the module cannot be imported, or it has no such object.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute.isidentifier():
        raise UserError(f"{field}: '{name}' is not of the form package.module:Name.")
    folder = str(Path.cwd())
    importlib.invalidate_caches()  # a notebook may have written the module just now
    added = folder not in sys.path
    if added:
        sys.path.append(folder)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise UserError(
            f"{field}: module '{module_name}' cannot be imported "
            f"({type(error).__name__}: {first_line(error)}); install its package or run from the "
            "folder that holds it."
        ) from error
    finally:
        if added:
            sys.path.remove(folder)
    if not hasattr(module, attribute):
        raise UserError(f"{field}: module '{module_name}' has no '{attribute}'.")
    return getattr(module, attribute)
