"""The memory that this process may use."""

import functools
import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


@functools.cache
def available_memory(root: Path = Path("/")) -> float:
    """Returns the memory that the machine and this process's cgroup leave, bytes.

    It is measured by the first call: what the process itself takes later does not count. If nothing
    is known, it is infinite.

    Args:
        root: the folder that holds `proc` and `sys`.
    """
    return min(_free_memory(root), *_cgroup_limits(root), math.inf)


def _free_memory(root: Path) -> float:
    """Returns the memory of the machine that programs may take without swapping, bytes."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        return float(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):  # not Linux
        pass
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError, AttributeError):
        return math.inf


def _cgroup_limits(root: Path) -> Iterator[float]:
    """Yields the memory limits of this process's cgroup and of the groups around it, bytes."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if not controllers:  # version 2
            base, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            base, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        # In a container, the path may be that outside of it; its own group is then the base.
        inner = PurePosixPath(place.lstrip("/"))
        for group in (inner, *inner.parents):
            try:
                yield float((base / group / name).read_text())
            except (OSError, ValueError):  # no such group here, or `max`: no limit
                continue
