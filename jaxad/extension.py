"""Objects of other people's packages, named in a config as `my_package.my_module:MyClass`."""

import contextlib
import hashlib
import importlib
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jaxad.errors import NO_ROOM, RunError, UserError, first_line

#: Folders that `load_object` left in `sys.path`, the newest first.
_kept_folders: list[str] = []


def is_external(name: str) -> bool:
    """Whether a name refers to an object outside jaxad: `module:attribute`."""
    return ":" in name


def load_object(name: str, field: str) -> Any:
    """Imports the object that a config names.

    The module may be installed, or lie in the current folder. In the second case the folder stays
    in `sys.path`, behind all others but those that stayed before: the module's functions may import
    from it later.

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
    path, kept = list(sys.path), _kept_folders
    if folder not in path or folder in _kept_folders:
        others = [other for other in path if other not in _kept_folders]
        kept = [folder, *(other for other in _kept_folders if other != folder)]
        sys.path[:] = [*others, *kept]
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a module of another package may raise anything
        raise UserError(
            f"{field}: module '{module_name}' cannot be imported "
            f"({type(error).__name__}: {first_line(error)}); install its package or run from the "
            "folder that holds it."
        ) from error
    finally:
        file = getattr(sys.modules.get(module_name), "__file__", None)
        if not file or not Path(file).is_relative_to(folder):
            sys.path[:] = path
        else:
            _kept_folders[:] = kept
    if not hasattr(module, attribute):
        raise UserError(f"{field}: module '{module_name}' has no '{attribute}'; correct the name.")
    return getattr(module, attribute)


def source_digest(name: str) -> str | None:
    """Returns the SHA-256 of the source file of a loaded module; None if there is none.

    Args:
        name: `package.module:attribute`; any other name has no source file.
    """
    module = sys.modules.get(name.partition(":")[0]) if is_external(name) else None
    file = Path(getattr(module, "__file__", None) or "")
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


@contextlib.contextmanager
def errors_named(source: str, name: str) -> Iterator[None]:
    """Turns an error of other people's code inside the block into a UserError of one line.

    Args:
        source: what raised it, for the message.
        name: `package.module:attribute`; the message names the last line of that module that ran.
            Errors of an object of jaxad, which has another name, are not changed.
    """
    try:
        yield
    except (UserError, RunError):
        raise
    except Exception as error:  # code of another package may raise anything
        is_full = isinstance(error, OSError) and error.errno in NO_ROOM
        if is_full or not is_external(name):
            raise  # not a mistake of the user
        raise UserError(
            f"{source}: raised {type(error).__name__}: {first_line(error)}{_place(error, name)}."
        ) from error


@contextlib.contextmanager
def external_errors_named(names: Iterable[str]) -> Iterator[None]:
    """Turns an error that came through the module of an external object into a UserError.

    Args:
        names: `package.module:attribute` of each object; other names are ignored.
    """
    try:
        yield
    except (UserError, RunError):
        raise
    except Exception as error:  # code of another package may raise anything
        for name in filter(is_external, names):
            if _place(error, name):
                with errors_named(name, name):
                    raise
        raise


def _place(error: Exception, name: str) -> str:
    """Returns the last line of a module that an error came through; empty if there is none."""
    module = sys.modules.get(name.partition(":")[0])
    file = getattr(module, "__file__", None)
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    return f" ({Path(str(file)).name}, line {lines[-1]})" if lines else ""
