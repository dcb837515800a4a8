"""JAX's persistent compilation cache: the second run of a config starts sooner."""

import hashlib
import logging
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax

logger = logging.getLogger(__name__)

#: Least compile time of a program that is cached.
_LEAST_SECONDS = 0.2

#: Least free disk space in bytes.
_LEAST_FREE = 2**20


def enable_compilation_cache(find_cache_folder: Callable[[], Path | None]) -> Path | None:
    """Makes JAX cache compiled programs in `jaxad/compiled` below the user's cache folder.

    Returns that folder, or None if nothing was changed: `JAX_COMPILATION_CACHE_DIR` and
    `JAX_ENABLE_COMPILATION_CACHE=false` take precedence. If there is no cache folder or it cannot
    be written, nothing is cached; a warning says so.
    """
    settings = jax.config.values
    if settings["jax_compilation_cache_dir"] or not settings["jax_enable_compilation_cache"]:
        return None
    base = find_cache_folder()
    if base is None:
        _warn("there is no folder for them")
        return None
    # Programs for a CPU have its instructions, and machines may share a home folder.
    folder = base / "jaxad" / "compiled" / _processor_digest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:  # JAX would warn at every program
            file.write(bytes(_LEAST_FREE))
    except OSError as error:
        _warn(f"'{folder}': {error.strerror}")
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS)
    return folder


def _warn(reason: str) -> None:
    logger.warning(
        f"note: compiled programs are not cached ({reason}); set JAX_COMPILATION_CACHE_DIR to "
        "another folder."
    )


def _processor_digest() -> str:
    """Returns a digest that differs between kinds of processors."""
    features = [platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        features += sorted({line for line in lines if line.startswith(("flags", "Features"))})
    except OSError:  # not Linux
        features.append(platform.platform())
    return hashlib.blake2b("\n".join(features).encode(), digest_size=6).hexdigest()
