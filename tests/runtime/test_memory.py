"""The memory of the machine and of control groups, read from files of the kernel."""

import math

import pytest

from jaxad.runtime import memory

GIB = 2**30
MEMINFO = "MemTotal:       67108864 kB\nMemFree:  1024 kB\nMemAvailable:   33554432 kB\n"  # 32 GiB


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 32),
        (  # a container: its path is that outside, its limit that of the base
            {"proc/self/cgroup": "0::/kubepods/pod1\n", "sys/fs/cgroup/memory.max": f"{8 * GIB}\n"},
            8,
        ),
        (  # the least limit of a group and those around it counts
            {
                "proc/self/cgroup": "0::/slurm/job/step\n",
                "sys/fs/cgroup/slurm/job/step/memory.max": "max\n",
                "sys/fs/cgroup/slurm/job/memory.max": f"{4 * GIB}\n",
                "sys/fs/cgroup/slurm/memory.max": f"{16 * GIB}\n",
            },
            4,
        ),
        (  # version 1
            {
                "proc/self/cgroup": "12:cpu,cpuacct:/a\n5:memory:/docker/b\n0::/\n",
                "sys/fs/cgroup/memory/docker/b/memory.limit_in_bytes": f"{2 * GIB}\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            2,
        ),
        (  # more than the machine has
            {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{64 * GIB}\n"},
            32,
        ),
    ],
    ids=["none", "container", "nested", "version 1", "larger"],
)
def test_the_least_of_what_is_free_and_what_is_allowed_counts(tmp_path, files, expected):
    write(tmp_path, {"proc/meminfo": MEMINFO, **files})
    assert memory.available_memory(tmp_path) == expected * GIB


def test_without_proc_it_is_the_memory_of_the_machine(tmp_path, monkeypatch):
    sizes = {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr("os.sysconf", sizes.__getitem__)
    assert memory.available_memory(tmp_path) == 4_096_000


def test_what_is_unknown_is_no_limit(tmp_path, monkeypatch):
    def unknown(name):
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr("os.sysconf", unknown)
    assert memory.available_memory(tmp_path) == math.inf
