"""Compiled programs are kept on disk: the second run of a config starts sooner."""

import hashlib
import os
import platform
from pathlib import Path

import jax

#: Programs that compile faster are not worth a file.
_LEAST_SECONDS = 0.2


def keep_programs() -> Path | None:
    """Keeps compiled programs from now on, in `~/.cache/jaxad/compiled` (or `$XDG_CACHE_HOME`).

    Where JAX has been told of a folder (`JAX_COMPILATION_CACHE_DIR`), or to keep nothing
    (`JAX_ENABLE_COMPILATION_CACHE=false`), that stays; where none can be written, nothing is kept.

    Returns:
        The folder that was set; None where it was not for us to say.
    """
    settings = jax.config.values
    if settings["jax_compilation_cache_dir"] or not settings["jax_enable_compilation_cache"]:
        return None
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    # Programs for a CPU hold its instructions: homes are shared by machines.
    folder = base / "jaxad" / "compiled" / _machine()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS)
    return folder


def _machine() -> str:
    """Digits that differ where processors do."""
    told = [platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        told += sorted({line for line in lines if line.startswith(("flags", "Features"))})
    except OSError:  # other systems have no such file
        told.append(platform.platform())
    return hashlib.blake2b("\n".join(told).encode(), digest_size=6).hexdigest()
