"""Flags of several processes are checked, and a single process needs none."""

import pytest

from jaxad.errors import UserError
from jaxad.runtime import processes


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"process_id": "1"}, "--coordinator_address: missing; processes need all of"),
        ({"heartbeat_seconds": "9"}, "--heartbeat_seconds: this is a single process"),
        ({"cluster": "slrum"}, "--cluster=slrum: unknown cluster; known: auto, none, slurm, tpu"),
        ({"cluster": "none", "process_id": "1"}, "--cluster=none: a single process; leave out"),
        ({"cluster": "slurm"}, "--cluster=slurm: .*: SLURM_JOB_ID is not set"),
        (
            {"coordinator_address": "a:1", "num_processes": "2", "process_id": "2"},
            "--process_id=2: ids of 2 processes are 0 to 1",
        ),
        (
            {"coordinator_address": "a:1", "num_processes": "two", "process_id": "0"},
            "--num_processes=two: not a whole number of at least 1",
        ),
        (
            {"coordinator_address": "nowhere", "num_processes": "2", "process_id": "1"},
            "--coordinator_address=nowhere: not of the form host:port",
        ),
    ],
)
def test_missing_and_wrong_flags_are_named(given, words, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(UserError, match=words):
        processes.join(**given)


def test_a_single_process_is_the_first_and_does_not_wait(tmp_path):
    assert processes.join(cluster="none") == ""
    assert processes.is_first()
    processes.barrier("here")
    processes.check_shared(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_processes_of_this_machine_are_counted(monkeypatch):
    processes.count_on_host.cache_clear()
    assert processes.count_on_host() == 1
    processes.count_on_host.cache_clear()
    monkeypatch.setattr(processes, "of_all", lambda host: [host, host + 1, host, 5])
    assert processes.count_on_host() == 2
    processes.count_on_host.cache_clear()
