"""Objects of other people's packages, named in a config as `my_package.my_module:MyClass`."""

import contextlib
import functools
import hashlib
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxad.errors import NO_ROOM, RunError, UserError, first_line


def is_external(name: str) -> bool:
    """Whether a name refers to an object outside jaxad: `module:attribute`."""
    return ":" in name


def load_object(name: str, field: str) -> Any:
    """Imports the object that a config names.

    The module may be installed, or lie in the current folder. In the second case the folder stays
    at the end of `sys.path`: the module's functions may import others from it later.

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
    except Exception as error:  # a module of another package may raise anything
        raise UserError(
            f"{field}: module '{module_name}' cannot be imported "
            f"({type(error).__name__}: {first_line(error)}); install its package or run from the "
            "folder that holds it."
        ) from error
    finally:
        file = getattr(sys.modules.get(module_name), "__file__", None)
        if added and not (file and Path(file).is_relative_to(folder)):
            sys.path.remove(folder)
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


@functools.cache
def with_errors_named(cls: type, name: str, members: tuple[str, ...]) -> type:
    """Returns a subclass whose methods and properties raise their errors as one line.

    Args:
        cls: a class of another package.
        name: `package.module:Class`, for the messages; see `errors_named`.
        members: names of methods and properties; those that the class lacks are ignored.
    """

    def wrap(member: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            with errors_named(f"{name}.{member}", name):
                return function(*arguments, **options)

        return call

    wrapped: dict[str, Any] = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    for member in members:
        value = inspect.getattr_static(cls, member, None)
        if inspect.isfunction(value):
            wrapped[member] = wrap(member, value)
        elif isinstance(value, property) and value.fget is not None:
            wrapped[member] = property(wrap(member, value.fget))
    return type(cls.__name__, (cls,), wrapped)


@contextlib.contextmanager
def errors_named(source: str, name: str) -> Iterator[None]:
    """Turns an error of other people's code inside the block into a UserError of one line.

    Args:
        source: what raised it, for the message.
        name: `package.module:attribute`; the message names the last line of that module that ran.
    """
    try:
        yield
    except (UserError, RunError):
        raise
    except Exception as error:  # code of another package may raise anything
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise  # the run failed, and its user made no mistake
        raise UserError(
            f"{source}: raised {type(error).__name__}: {first_line(error)}{_place(error, name)}."
        ) from error


def _place(error: Exception, name: str) -> str:
    """Returns the last line of a module that an error came through; empty if there is none."""
    module = sys.modules.get(name.partition(":")[0])
    file = getattr(module, "__file__", None)
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    return f" ({Path(str(file)).name}, line {lines[-1]})" if lines else ""
