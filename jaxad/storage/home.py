"""The user's home, cache, and temporary folders."""

import logging
import os
import tempfile
from pathlib import Path

from jaxad.storage.paths import expand

logger = logging.getLogger(__name__)


def home_folder() -> Path | None:
    """Returns the home folder; None for a user without one, as in some containers."""
    try:
        return Path("~").expanduser()
    except RuntimeError:
        return None


def cache_folder() -> Path | None:
    """Returns `$XDG_CACHE_HOME`, by default `~/.cache`; None for a user without a home folder.

    Raises:
        UserError: `$XDG_CACHE_HOME` begins with the home folder of an unknown user.
    """
    return _xdg_folder("XDG_CACHE_HOME", ".cache")


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


def relocate_library_caches() -> None:
    """Gives Matplotlib and Keras a temporary folder if theirs cannot be written; warns about it.

    They would print warnings of their own, or create a folder named `~` in the current one. Call it
    before they are imported.

    Raises:
        UserError: `$XDG_CACHE_HOME` or `$XDG_CONFIG_HOME` begins with the home folder of an unknown
            user.
    """
    home = home_folder()
    config = _xdg_folder("XDG_CONFIG_HOME", ".config")
    folders_by_variable: dict[str, list[Path | None]] = {
        "MPLCONFIGDIR": [base and base / "matplotlib" for base in (config, cache_folder())],
        "KERAS_HOME": [home and home / ".keras"],
    }
    moved = []
    for variable, folders in folders_by_variable.items():
        if variable in os.environ:
            folders = [Path(os.environ[variable])]
        if not all(folder is not None and _is_writable(folder) for folder in folders):
            moved.append(variable)
    folder = temporary_folder() if moved else None
    if folder is None:
        return
    for variable in moved:
        os.environ[variable] = str(folder / variable.lower())
    logger.warning(
        f"note: the cache folders of other programs ({', '.join(moved)}) cannot be written; "
        f"'{folder}' is used instead."
    )


def _xdg_folder(variable: str, default: str) -> Path | None:
    """Returns the folder that an environment variable names, or the default one below home."""
    path = os.environ.get(variable)
    if path:
        return expand(path, f"${variable}")
    home = home_folder()
    return None if home is None else home / default


def _is_writable(folder: Path) -> bool:
    """Tells whether files can be written in a folder, which need not exist."""
    existing = next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))  # noqa: PTH110 a folder without permission is no error
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
