"""Huge pages for the temporaries of XLA's programs on a CPU.

XLA allocates the temporaries of a program in one block at every call. glibc gets so large a block
from the system each time and returns it, and the system clears every page of 4 KiB again: 56,000
page faults in an update of AE-FLOW at 128 px, a third of its time. With pages of 2 MiB these are
800. Where the kernel gives huge pages only to memory that asks for them (`madvise`, the default of
many distributions), glibc asks for them if `GLIBC_TUNABLES` says so when the process starts. See
docs/performance.md.
"""

import os
import sys
from pathlib import Path

_TUNABLES = "GLIBC_TUNABLES"
_SETTING = "glibc.malloc.hugetlb"
_KERNEL_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def tunables_with_huge_pages(tunables: str, kernel_setting: str) -> str | None:
    """Returns the value of `GLIBC_TUNABLES` that asks for huge pages; None to change nothing.

    Args:
        tunables: the present value, whose settings are kept; its own setting of huge pages takes
            precedence.
        kernel_setting: the kernel's choices with the active one in brackets.
    """
    if _SETTING in tunables or "[madvise]" not in kernel_setting:
        return None
    return f"{tunables}:{_SETTING}=1".lstrip(":")


def restart_with_huge_pages() -> None:
    """Replaces this process by the same command with huge pages; returns if nothing would change.

    Call it before anything else: glibc reads its settings only as a process starts.
    """
    command = sys.orig_argv[1:]
    if not command:  # the script comes from standard input and cannot be read again
        return
    try:
        kernel_setting = _KERNEL_SETTING.read_text(encoding="ascii")
    except OSError:  # not Linux, or not readable
        return
    tunables = tunables_with_huge_pages(os.environ.get(_TUNABLES, ""), kernel_setting)
    if tunables is not None:
        environment = {**os.environ, _TUNABLES: tunables}
        os.execve(sys.executable, [sys.executable, *command], environment)
