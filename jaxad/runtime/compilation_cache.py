"""Compiled programs are kept on disk: the second run of a config starts sooner."""

import hashlib
import logging
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax

logger = logging.getLogger(__name__)

#: Programs that compile faster are not worth a file.
_LEAST_SECONDS = 0.2

#: Bytes; a disk that takes fewer is full.
_LEAST_ROOM = 2**20


def keep_programs(find_cache: Callable[[], Path | None]) -> Path | None:
    """Keeps compiled programs from now on, in `~/.cache/jaxad/compiled` (or `$XDG_CACHE_HOME`).

    Where JAX has been told of a folder (`JAX_COMPILATION_CACHE_DIR`), or to keep nothing
    (`JAX_ENABLE_COMPILATION_CACHE=false`), that stays; where none can be written, nothing is kept,
    which a line on stderr says.

    Returns:
        The folder that was set; None where it was not for us to say, or none can be written.

    Raises:
        UserError: `$XDG_CACHE_HOME` names the home folder of nobody.
    """
    settings = jax.config.values
    if settings["jax_compilation_cache_dir"] or not settings["jax_enable_compilation_cache"]:
        return None
    base = find_cache()
    if base is None:
        _say_not_kept("this user has no home folder")
        return None
    # Programs for a CPU hold its instructions: homes are shared by machines.
    folder = base / "jaxad" / "compiled" / _machine()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:  # JAX would warn at every program
            file.write(bytes(_LEAST_ROOM))
    except OSError as error:
        _say_not_kept(f"'{folder}': {error.strerror}")
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS)
    return folder


def _say_not_kept(reason: str) -> None:
    logger.warning(
        f"note: compiled programs are not kept ({reason}); JAX_COMPILATION_CACHE_DIR names another "
        "folder."
    )


def _machine() -> str:
    """Digits that differ where processors do."""
    told = [platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        told += sorted({line for line in lines if line.startswith(("flags", "Features"))})
    except OSError:  # other systems have no such file
        told.append(platform.platform())
    return hashlib.blake2b("\n".join(told).encode(), digest_size=6).hexdigest()
