"""Huge pages for the temporaries of XLA's programs on a CPU.

XLA allocates the temporaries of a program in one block at every call. glibc gets so large a block
from the system each time and returns it, and the system clears every page of 4 KiB again: 56,000
page faults in an update of AE-FLOW at 128 px, a quarter of its time. With pages of 2 MiB these are
800. Where the kernel gives huge pages only to memory that asks for them (`madvise`, the default of
many distributions), glibc asks for them if `GLIBC_TUNABLES` says so when the process starts. See
docs/performance.md.
"""

import contextlib
import os
import sys
from pathlib import Path

_TUNABLES = "GLIBC_TUNABLES"
_SETTING = "glibc.malloc.hugetlb"
_MARKER = "JAXAD_RESTARTED"
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

    Call it first: glibc reads its settings only as a process starts, and what the process has done
    before is done twice. It also returns if the command cannot be repeated, because its script is
    not a file.
    """
    if _MARKER in os.environ or not sys.executable or not Path(sys.argv[0]).is_file():
        return
    try:
        kernel_setting = _KERNEL_SETTING.read_text(encoding="ascii")
    except OSError:  # not Linux, or not readable
        return
    tunables = tunables_with_huge_pages(os.environ.get(_TUNABLES, ""), kernel_setting)
    if tunables is None:
        return
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # None: closed before the process started
            # One that was closed since then, or whose reader is gone, has no lines to keep.
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    # With the marker, a process that loses its tunables does not restart for ever.
    environment = {**os.environ, _TUNABLES: tunables, _MARKER: "1"}
    with contextlib.suppress(OSError):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
