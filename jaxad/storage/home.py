"""The user's home, cache, and temporary folders: everything that is written outside a workdir.

`$XDG_CACHE_HOME` is the one variable to set where the home folder is missing or read-only, as in a
container: compiled programs, features, generated data, and what other libraries write go below it.
"""

import logging
import os
import tempfile
from pathlib import Path

from jaxad.errors import UserError
from jaxad.storage.paths import expand

logger = logging.getLogger(__name__)

#: The system's folders for temporary files.
_TEMPORARY = ("/tmp", "/var/tmp", "/usr/tmp")


def home_folder() -> Path | None:
    """Returns the home folder; None for a user without one, as in some containers."""
    try:
        return Path("~").expanduser()
    except RuntimeError:
        return None


def cache_folder() -> Path | None:
    """Returns `$XDG_CACHE_HOME`, by default `~/.cache`; None without a home folder to write to.

    Raises:
        UserError: `$XDG_CACHE_HOME` begins with the home folder of an unknown user.
    """
    folder = _xdg_folder("XDG_CACHE_HOME", ".cache")
    is_named = bool(os.environ.get("XDG_CACHE_HOME"))
    return folder if folder is not None and (is_named or is_writable(folder)) else None


def named_cache_folder() -> Path | None:
    """Returns `$XDG_CACHE_HOME` if it is set and can be written, otherwise None."""
    folder = cache_folder() if os.environ.get("XDG_CACHE_HOME") else None
    return folder if folder is not None and is_writable(folder) else None


def temporary_folder() -> Path | None:
    """Returns a folder for this user's temporary files, the same in every process.

    None if it cannot be created or belongs to another user.
    """
    try:
        folder = Path(tempfile.gettempdir()) / f"jaxad-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder if folder.stat().st_uid == os.getuid() else None
    except OSError:
        return None


def compiled_folder() -> Path | None:
    """Returns the folder below which compiled programs are cached; a temporary one without home."""
    return cache_folder() or temporary_folder()


def relocate_library_caches() -> None:
    """Gives Matplotlib and Keras another folder if theirs cannot be written.

    It is below `$XDG_CACHE_HOME`, or else temporary, and a warning says so. The libraries would
    print warnings of their own, or create a folder named `~` in the current one. Call it before
    they are imported.

    Raises:
        UserError: `$XDG_CACHE_HOME` or `$XDG_CONFIG_HOME` begins with the home folder of an unknown
            user, or no folder takes temporary files, which the libraries need.
    """
    _relocate_temporary_files()
    home = home_folder()
    bases = _xdg_folder("XDG_CONFIG_HOME", ".config"), _xdg_folder("XDG_CACHE_HOME", ".cache")
    folders_by_variable: dict[str, list[Path | None]] = {
        "MPLCONFIGDIR": [base and base / "matplotlib" for base in bases],
        "KERAS_HOME": [home and home / ".keras"],
    }
    moved = []
    for variable, folders in folders_by_variable.items():
        if variable in os.environ:
            folders = [Path(os.environ[variable])]
        if not all(folder is not None and is_writable(folder) for folder in folders):
            moved.append(variable)
    if not moved:
        return
    named = named_cache_folder()
    folder = temporary_folder() if named is None else named / "jaxad"
    if folder is None:
        return
    for variable in moved:
        os.environ[variable] = str(folder / variable.lower())
    if named is None:
        logger.warning(
            f"note: the cache folders of other programs ({', '.join(moved)}) cannot be written; "
            f"'{folder}' is used instead. Set XDG_CACHE_HOME to use another folder."
        )


def _relocate_temporary_files() -> None:
    """Makes `$XDG_CACHE_HOME` take temporary files if the system has no folder for them."""
    try:
        # Python takes the current folder if it can write to no other; files would stay there.
        taken = tempfile.gettempdir()
        found = taken in (*_TEMPORARY, os.environ.get("TMPDIR")) or Path(taken) != Path.cwd()
    except OSError:
        found = False
    named = named_cache_folder()
    if not found and named is not None:
        folder = named / "jaxad" / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        return
    try:
        tempfile.gettempdir()
    except OSError as error:
        raise UserError(
            "there is no folder for temporary files (/tmp cannot be written); set TMPDIR or "
            "XDG_CACHE_HOME to a folder that can be written."
        ) from error


def _xdg_folder(variable: str, default: str) -> Path | None:
    """Returns the folder that an environment variable names, or the default one below home."""
    path = os.environ.get(variable)
    if path:
        return expand(path, f"${variable}")
    home = home_folder()
    return None if home is None else home / default


def is_writable(folder: Path) -> bool:
    """Tells whether files can be written in a folder, which need not exist."""
    existing = next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))  # noqa: PTH110 - a folder without permission is no error
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
