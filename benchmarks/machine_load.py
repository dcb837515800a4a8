"""How busy the processor is while the measured processes sleep."""

import os
import time
from collections.abc import Collection
from pathlib import Path

#: Largest share of the processor that may be busy beside a measurement.
_MOST_OTHERS, _MOST_OWN = 0.1, 0.05


def load_of_others(own: Collection[int], seconds: float = 2.0) -> str:
    """Returns why a measurement now would be void, or "".

    Args:
        own: numbers of the measured processes, which should sleep.
        seconds: how long the processor is watched.
    """
    cores = os.sched_getaffinity(0)
    before, own_before = _busy_ticks(cores), _ticks_of(own)
    time.sleep(seconds)
    available = seconds * os.sysconf("SC_CLK_TCK") * len(cores)
    spinning = (_ticks_of(own) - own_before) / available
    others = (_busy_ticks(cores) - before) / available - spinning
    if others > _MOST_OTHERS:
        return f"{others:.0%} of the processor was busy".replace("%", " %")
    if spinning > _MOST_OWN:
        return f"waiting sides used {spinning:.0%} of the processor".replace("%", " %")
    return ""


def _busy_ticks(cores: Collection[int]) -> int:
    """Counts the ticks in which these cores were neither idle nor waiting for a disk."""
    total = 0
    for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
        name, *counts = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            user, nice, system, _idle, _disk, *interrupts_and_steal = map(int, counts[:8])
            total += user + nice + system + sum(interrupts_and_steal)
    return total


def _ticks_of(processes: Collection[int]) -> int:
    """Counts the ticks that processes, with all their threads, used."""
    total = 0
    for number in processes:
        path = Path(f"/proc/{number}/stat")
        if path.exists():
            fields = path.read_text(encoding="utf-8").rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total
