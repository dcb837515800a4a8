"""The command line restarts itself with huge pages where the kernel gives them on request."""

import os
import subprocess
import sys

import pytest

from jaxad.runtime import huge_pages
from jaxad.runtime.huge_pages import tunables_with_huge_pages

MADVISE, ALWAYS, NEVER = (
    "always [madvise] never",
    "[always] madvise never",
    "always madvise [never]",
)


@pytest.mark.parametrize(
    ("tunables", "kernel_setting", "expected"),
    [
        ("", MADVISE, "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.arena_max=1", MADVISE, "glibc.malloc.arena_max=1:glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0", MADVISE, None),
        ("glibc.malloc.hugetlb=1", MADVISE, None),  # restarted: not again
        ("", ALWAYS, None),
        ("", NEVER, None),
    ],
)
def test_huge_pages_are_asked_for_where_they_are_given_on_request(
    tunables, kernel_setting, expected
):
    assert tunables_with_huge_pages(tunables, kernel_setting) == expected


SCRIPT = """
import os, sys
from pathlib import Path
from jaxad.runtime import huge_pages
huge_pages._KERNEL_SETTING = Path(sys.argv[1])
huge_pages.restart_with_huge_pages()
print(sys.argv[2], sys.flags.optimize, os.environ.get("GLIBC_TUNABLES"))
"""


def outputs(tmp_path, kernel_setting: str) -> str:
    setting = tmp_path / "enabled"
    setting.write_text(kernel_setting)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    return subprocess.run(
        [sys.executable, "-O", script, setting, "ä b"],
        env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


def test_a_restarted_command_has_the_same_arguments(tmp_path):
    assert outputs(tmp_path, MADVISE) == "ä b 1 glibc.malloc.hugetlb=1\n"
    assert outputs(tmp_path, ALWAYS) == "ä b 1 None\n"


def test_nothing_is_restarted_without_a_script_or_a_setting_of_the_kernel(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("was restarted"))
    monkeypatch.setattr(huge_pages, "_KERNEL_SETTING", tmp_path / "enabled")
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    huge_pages.restart_with_huge_pages()
    (tmp_path / "enabled").write_text(MADVISE)
    monkeypatch.setattr(sys, "orig_argv", [sys.executable])
    huge_pages.restart_with_huge_pages()
