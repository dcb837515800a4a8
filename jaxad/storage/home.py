"""Where programs of a user keep what they can make again: at home, or what takes its place."""

import logging
import os
import tempfile
from pathlib import Path

from jaxad.storage.paths import expand

logger = logging.getLogger(__name__)


def home_folder() -> Path | None:
    """The user's home folder; None where the system knows none, as in some containers."""
    try:
        return Path("~").expanduser()
    except RuntimeError:
        return None


def cache_folder() -> Path | None:
    """Where programs keep what they can make again; None for a user without a home folder.

    Raises:
        UserError: `$XDG_CACHE_HOME` names the home folder of nobody.
    """
    return _named_or_below_home("XDG_CACHE_HOME", ".cache")


def temporary_folder() -> Path | None:
    """A folder of this user for temporary files, which the next run finds again.

    None where there can be none, or where it is another user's.
    """
    try:
        folder = Path(tempfile.gettempdir()) / f"jaxad-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder if folder.stat().st_uid == os.getuid() else None
    except OSError:
        return None


def relocate_library_caches() -> None:
    """Gives matplotlib and Keras a temporary folder where they cannot write to their own.

    They would warn, or make a folder named `~` in the current one. A line on stderr says so. Call
    it before they are imported.

    Raises:
        UserError: `$XDG_CACHE_HOME` or `$XDG_CONFIG_HOME` names the home folder of nobody.
    """
    home = home_folder()
    config = _named_or_below_home("XDG_CONFIG_HOME", ".config")
    by_variable: dict[str, list[Path | None]] = {
        "MPLCONFIGDIR": [base and base / "matplotlib" for base in (config, cache_folder())],
        "KERAS_HOME": [home and home / ".keras"],
    }
    moved = []
    for variable, folders in by_variable.items():
        if variable in os.environ:
            folders = [Path(os.environ[variable])]
        if not all(folder is not None and _can_be_written(folder) for folder in folders):
            moved.append(variable)
    folder = temporary_folder() if moved else None
    if folder is None:
        return
    for variable in moved:
        os.environ[variable] = str(folder / variable.lower())
    logger.warning(
        f"note: the caches of other programs ({', '.join(moved)}) cannot be written; they are in "
        f"'{folder}'."
    )


def _named_or_below_home(variable: str, name: str) -> Path | None:
    named = os.environ.get(variable)
    if named:
        return expand(named, f"${variable}")
    home = home_folder()
    return None if home is None else home / name


def _can_be_written(folder: Path) -> bool:
    """Whether files can be written in a folder, which need not be there."""
    there = next(one for one in (folder, *folder.absolute().parents) if os.path.exists(one))  # noqa: PTH110 no permission is no error
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
