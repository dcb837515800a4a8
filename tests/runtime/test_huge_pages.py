"""The command line restarts itself with huge pages where the kernel gives them on request."""

import io
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
huge_pages._KERNEL_SETTING = Path(os.environ["ENABLED"])
print("started")
huge_pages.restart_with_huge_pages()
print(sys.argv[1], sys.flags.optimize, os.environ.get("GLIBC_TUNABLES"))
"""


def outputs(tmp_path, kernel_setting: str, *, script: str | None = None, **variables: str) -> str:
    """Returns what SCRIPT prints; it comes from a file, or from the pipe that `script` names."""
    (tmp_path / "enabled").write_text(kernel_setting)
    (tmp_path / "script.py").write_text(SCRIPT)
    ours = ("GLIBC_TUNABLES", "JAXAD_RESTARTED")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(
        [sys.executable, "-O", script or tmp_path / "script.py", "ä b"],
        env={**environment, "ENABLED": str(tmp_path / "enabled"), **variables},
        input=SCRIPT if script else None, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


def test_a_restarted_command_has_the_same_arguments(tmp_path):
    expected = "started\nstarted\nä b 1 glibc.malloc.hugetlb=1\n"
    assert outputs(tmp_path, MADVISE) == expected
    assert outputs(tmp_path, ALWAYS) == "started\nä b 1 None\n"


def test_a_process_that_loses_its_settings_is_not_restarted_again(tmp_path):
    assert outputs(tmp_path, MADVISE, JAXAD_RESTARTED="1") == "started\nä b 1 None\n"


@pytest.mark.parametrize("script", ["-", "/dev/stdin"])
def test_a_script_that_cannot_be_read_again_is_not_restarted(tmp_path, script):
    assert outputs(tmp_path, MADVISE, script=script) == "started\nä b 1 None\n"


@pytest.fixture
def restarting(monkeypatch, tmp_path):
    """A process that would be restarted."""
    (tmp_path / "enabled").write_text(MADVISE)
    monkeypatch.setattr(huge_pages, "_KERNEL_SETTING", tmp_path / "enabled")
    monkeypatch.setattr(sys, "argv", [__file__])
    for name in ("GLIBC_TUNABLES", "JAXAD_RESTARTED"):
        monkeypatch.delenv(name, raising=False)


class BrokenStream(io.StringIO):
    def flush(self) -> None:
        raise BrokenPipeError


def closed_stream() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [None, closed_stream(), BrokenStream()])
@pytest.mark.usefixtures("restarting")
def test_a_process_whose_output_goes_nowhere_is_restarted(monkeypatch, stream):
    calls = []
    monkeypatch.setattr(os, "execve", lambda *arguments: calls.append(arguments))
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", stream)
        huge_pages.restart_with_huge_pages()
    assert len(calls) == 1


@pytest.mark.usefixtures("restarting")
def test_a_restart_that_fails_changes_nothing(monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "execve", refuse)
    huge_pages.restart_with_huge_pages()
    assert "GLIBC_TUNABLES" not in os.environ
