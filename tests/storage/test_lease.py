"""The lock of a folder in a bucket."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from jaxad.errors import RunError, UserError
from jaxad.storage import lease
from jaxad.storage.buckets import Objects, StoreError


@pytest.fixture
def fast(monkeypatch):
    """Shortens all waiting."""
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lease, "SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(lease, "_LOOK_SECONDS", 0.02)


#: The lock object of a process on a machine that is not this one.
ELSEWHERE = {
    "id": "a", "host": "far", "pid": 7, "started": "noon", "process": "boot pid:[1] 7 99",
    "beats": 3,
}  # fmt: skip


def numbers(objects):
    return sorted(objects.below(lease.FOLDER).find())


def test_a_second_process_is_refused_at_once_and_the_lock_is_released(objects):
    start = time.monotonic()
    with lease.held(objects):
        with pytest.raises(UserError, match=f"another process is using it .process {os.getpid()}"):
            lease.held(objects).__enter__()
        assert numbers(objects) == ["1"]
    assert time.monotonic() - start < lease.BEAT_SECONDS
    assert numbers(objects) == []
    with lease.held(objects):
        pass


def test_the_lock_of_a_killed_process_of_this_machine_is_taken_over_at_once(objects, capsys):
    code = (
        "import os, sys; from jaxad.storage import lease; from jaxad.storage.buckets import Objects"
        "\nheld = lease.held(Objects(sys.argv[1])); held.__enter__(); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, objects.url], check=False)
    assert killed.returncode == -9
    assert numbers(objects) == ["1"]
    with lease.held(objects) as held:
        assert held.number == 2
    assert "taken over from process" in capsys.readouterr().err
    assert numbers(objects) == []


def test_an_owner_elsewhere_that_is_silent_is_taken_over(objects, fast, capsys):
    objects.write(".lock/4", json.dumps(ELSEWHERE).encode())
    start = time.monotonic()
    with lease.held(objects) as held:
        assert held.number == 5
    assert time.monotonic() - start >= lease.SILENCE_SECONDS
    printed = capsys.readouterr().err
    assert "is locked by process 7 on 'far', since noon; waiting up to 0.5 s" in printed
    assert "taken over from process 7 on 'far'" in printed


def test_an_owner_elsewhere_with_heartbeats_is_not(objects, fast):
    objects.write(".lock/1", json.dumps(ELSEWHERE).encode())
    beat = json.dumps({**ELSEWHERE, "beats": 4}).encode()
    timer = threading.Timer(0.2, lambda: objects.write(".lock/1", beat))
    timer.start()
    with pytest.raises(UserError, match="another process is using it .process 7 on 'far'"):
        lease.held(objects).__enter__()
    timer.join()
    assert numbers(objects) == ["1"]


def test_an_owner_that_releases_the_folder_meanwhile(objects, fast):
    objects.write(".lock/1", json.dumps(ELSEWHERE).encode())
    timer = threading.Timer(0.2, lambda: objects.delete([".lock/1"]))
    timer.start()
    with lease.held(objects) as held:
        assert held.number == 1  # as the objects that are left say
    timer.join()


def test_a_slow_owner_learns_that_it_was_taken_over(objects, fast):
    with lease.held(objects) as held:
        held.check()
        objects.write(".lock/2", json.dumps(ELSEWHERE).encode())
        deadline = time.monotonic() + 10
        with pytest.raises(RunError, match="another process has taken over"):
            while time.monotonic() < deadline:
                held.check()
                time.sleep(0.02)
    assert "2" in numbers(objects)  # the lock of the other one stays


def test_heartbeats_are_written(objects, fast):
    with lease.held(objects):
        before = objects.read(".lock/1")
        deadline = time.monotonic() + 10
        while objects.read(".lock/1") == before and time.monotonic() < deadline:
            time.sleep(0.02)
        assert json.loads(objects.read(".lock/1"))["beats"] > json.loads(before)["beats"]


def test_without_an_answer_of_the_store_nothing_more_may_be_written(objects, fast, monkeypatch):
    def fail(*_):
        raise StoreError("it does not answer")

    with lease.held(objects) as held, monkeypatch.context() as patch:
        patch.setattr(Objects, "find", fail)
        time.sleep(lease.SILENCE_SECONDS)
        with pytest.raises(StoreError, match="it does not answer"):
            held.check()


def test_of_several_processes_one_gets_the_lock_of_a_dead_owner(objects, fast):
    objects.write(".lock/1", json.dumps(ELSEWHERE).encode())
    got, refused = [], []
    ended = threading.Event()

    def take() -> None:
        try:
            with lease.held(objects) as held:
                got.append(held.number)
                ended.wait(5)
        except UserError:
            refused.append(1)
            if len(refused) == 3:
                ended.set()

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    assert len(refused) == 3


def test_an_object_that_jaxad_did_not_write_is_a_lock_too(objects, fast, capsys):
    objects.write(".lock/1", b"mine!")
    with lease.held(objects):
        pass
    assert "is locked by process 0 on '?'" in capsys.readouterr().err


def test_of_two_owners_that_seem_dead_each_is_watched(objects, fast):
    """Two of three processes that met may have stepped back, and the third one lives."""
    objects.write(".lock/1", json.dumps({**ELSEWHERE, "id": "lives"}).encode())
    objects.write(".lock/6", json.dumps(ELSEWHERE).encode())
    beat = json.dumps({**ELSEWHERE, "id": "lives", "beats": 4}).encode()
    timer = threading.Timer(0.2, lambda: objects.write(".lock/1", beat))
    timer.start()
    with pytest.raises(UserError, match="another process is using it"):
        lease.held(objects).__enter__()
    timer.join()
    assert numbers(objects) == ["1", "6"]


def test_the_folder_is_looked_at_again_when_an_owner_has_gone(objects, fast, monkeypatch):
    """While the owner of the largest number stepped back, another process got the folder."""
    objects.write(".lock/6", json.dumps(ELSEWHERE).encode())
    living = json.dumps({**ELSEWHERE, "id": "lives"}).encode()

    def step_back() -> None:
        objects.write(".lock/1", living)
        objects.delete([".lock/6"])
        time.sleep(0.2)
        objects.write(".lock/1", living.replace(b'"beats": 3', b'"beats": 4'))

    thread = threading.Thread(target=step_back)
    thread.start()
    with pytest.raises(UserError, match="another process is using it"):
        lease.held(objects).__enter__()
    thread.join()
    assert numbers(objects) == ["1"]


def test_a_lock_that_could_not_be_deleted_does_not_lock_its_own_process_out(objects, monkeypatch):
    """A study locks the folder of a run again, after the store has failed for a moment."""

    def fail(*_):
        raise StoreError("busy")

    with monkeypatch.context() as patch, lease.held(objects):
        patch.setattr(Objects, "delete", fail)
    assert numbers(objects) == ["1"]
    with lease.held(objects) as held:
        assert held.number == 2
    assert numbers(objects) == []


def test_the_time_that_a_heartbeat_takes_does_not_count(objects, monkeypatch):
    """Others may have taken over after the owner looked, and before its answer arrived."""
    with lease.held(objects) as held:
        write = Objects.write

        def slow(*arguments):
            time.sleep(0.5)
            write(*arguments)

        monkeypatch.setattr(Objects, "write", slow)
        begun = time.monotonic()
        held._beat()
        assert held._last_beat - begun < 0.4


def test_a_store_that_lets_two_processes_create_an_object(objects, fast, monkeypatch):
    """As stores that ignore `If-None-Match` do: the first one steps back."""
    create = Objects.create

    def create_both(self, name, content):
        created = create(self, name, content)
        if not other:
            other.append(name)
            self.write(name, json.dumps(ELSEWHERE).encode())
        return created

    other: list[str] = []
    monkeypatch.setattr(Objects, "create", create_both)
    with lease.held(objects) as held:
        assert held.number == 2  # that of the other one was watched, and is silent


def test_a_number_that_was_used_before_is_no_lease(objects, fast, monkeypatch):
    """An owner that slept while others owned the folder and released it."""
    monkeypatch.setattr(lease, "BEAT_SECONDS", 1000.0)
    with lease.held(objects) as slept:
        objects.write(".lock/1", json.dumps(ELSEWHERE).encode())  # the newest owner's, as it is
        time.sleep(lease.SILENCE_SECONDS)
        with pytest.raises(RunError, match="another process has taken over"):
            slept.check()
    assert json.loads(objects.read(".lock/1"))["id"] == ELSEWHERE["id"]
