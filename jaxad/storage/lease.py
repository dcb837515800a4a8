"""The lock of a folder in a bucket, where there is no lock that a system releases.

A process locks a folder by creating the object `.lock/N`, where N is one more than the largest
number there; of several, one succeeds. The largest number is the owner, who writes its object again
every few seconds. A process that finds an owner watches that object: if it changes, the owner
lives; if it stays the same for `SILENCE_SECONDS`, the owner is dead, and the process creates the
next number. No clocks are compared. An owner that was only slow finds the larger number at its next
sign of life, and writes nothing more.
"""

import contextlib
import dataclasses
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from jaxad.errors import RunError, UserError
from jaxad.runtime import interrupts
from jaxad.storage.buckets import Objects, StoreError

logger = logging.getLogger(__name__)

#: The folder of the objects.
FOLDER = ".lock"

#: Seconds between two signs of life, and without one until an owner counts as dead.
BEAT_SECONDS, SILENCE_SECONDS = 15.0, 60.0
#: Seconds between two looks at the object of an owner.
_LOOK_SECONDS = 1.0


#: What a lock object says about the process that wrote it.
_Owner = Mapping[str, str | int]


@dataclasses.dataclass
class Lease:
    """The right to write below an URL, until another process takes it over."""

    objects: Objects
    number: int
    owner: _Owner

    def __post_init__(self) -> None:
        self._beats = 0
        self._last_beat = time.monotonic()
        self._is_lost = False
        self._ended = threading.Event()
        self._beating = threading.Lock()

    def check(self) -> None:
        """Raises a RunError if another process has taken over.

        Raises:
            StoreError: that cannot be found out.
        """
        if time.monotonic() - self._last_beat > SILENCE_SECONDS / 2 and not self._is_lost:
            self._beat()
        if self._is_lost:
            raise RunError(
                f"'{self.objects.url}': another process has taken over, because this one gave no "
                f"sign of life for {SILENCE_SECONDS:g} s; nothing more is written. Let the other "
                "one finish."
            )

    def _beat(self) -> None:
        """Gives a sign of life, unless the lease is lost."""
        with self._beating:
            numbers = _numbers(self.objects)
            if self._ended.is_set():
                return
            if max(numbers, default=0) != self.number:
                self._is_lost = True
                return
            self._beats += 1
            self.objects.write(_name(self.number), _encode({**self.owner, "beats": self._beats}))
            self._last_beat = time.monotonic()

    def keep(self) -> None:
        """Gives signs of life until the lease ends or is lost; for a thread of its own."""
        while not self._ended.wait(BEAT_SECONDS) and not self._is_lost:
            with contextlib.suppress(StoreError):  # `check` reports one that lasts
                self._beat()

    def end(self) -> None:
        """Gives the folder free, and deletes the objects of dead owners."""
        self._ended.set()
        with self._beating:
            if not self._is_lost:
                numbers = [number for number in _numbers(self.objects) if number <= self.number]
                # The own one last: until then no other process can create it.
                for number in sorted(numbers):
                    self.objects.delete([_name(number)])


@contextlib.contextmanager
def held(objects: Objects) -> Iterator[Lease]:
    """Holds the lock of a folder inside the block.

    Raises:
        UserError: another process holds it.
        StoreError: the store does not allow it.
    """
    lease = _acquire(objects)
    thread = threading.Thread(target=lease.keep, name="jaxad-lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        with contextlib.suppress(StoreError):  # the lock then counts as a dead owner's
            lease.end()


def _acquire(objects: Objects) -> Lease:
    """Waits until the owner, if there is one, is known to be dead; takes the folder over."""
    me: _Owner = {
        "id": uuid.uuid4().hex,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "process": _process(os.getpid()),
    }
    while True:
        owners = _owners(objects)
        if owners:
            _await_death(objects, max(owners), owners[max(owners)])
        number = max(owners, default=0) + 1
        if not objects.create(_name(number), _encode({**me, "beats": 0})):
            continue  # another process was faster, and is watched now
        # Whoever ended while this process was watching may have made room for another process.
        before = {identity["id"] for identity in owners.values()}
        others = {n: owner for n, owner in _owners(objects).items() if owner["id"] != me["id"]}
        if any(n > number or owner["id"] not in before for n, owner in others.items()):
            objects.delete([_name(number)])
            continue
        return Lease(objects, number, me)


def _await_death(objects: Objects, number: int, owner: _Owner) -> None:
    """Returns when the owner is dead or has given the folder free.

    Raises:
        UserError: the owner lives.
    """
    where = f"process {owner['pid']} on '{owner['host']}', since {owner['started']}"
    in_use = UserError(
        f"workdir '{objects.url}': another process is using it ({where}); wait for it or choose "
        "another --workdir."
    )
    is_alive = _is_alive_here(owner)
    if is_alive is None:
        logger.warning(
            f"workdir '{objects.url}': is locked by {where}; waiting up to {SILENCE_SECONDS:g} s "
            "for a sign of life."
        )
        end = time.monotonic() + SILENCE_SECONDS
        while time.monotonic() < end:
            content = objects.read(_name(number))
            if content is None:
                return
            if _decode(content) != owner:
                raise in_use
            interrupts.check()
            time.sleep(_LOOK_SECONDS)
    elif is_alive:
        raise in_use
    logger.warning(f"workdir '{objects.url}': taken over from {where}, which has ended.")


def _owners(objects: Objects) -> dict[int, _Owner]:
    """Returns the content of all lock objects by their number."""
    contents = {number: objects.read(_name(number)) for number in _numbers(objects)}
    return {n: _decode(content) for n, content in contents.items() if content is not None}


def _numbers(objects: Objects) -> list[int]:
    names = objects.below(FOLDER).find()
    return sorted(int(name) for name in names if name.isdecimal())


def _name(number: int) -> str:
    return f"{FOLDER}/{number}"


def _encode(owner: _Owner) -> bytes:
    return json.dumps(owner).encode()


def _decode(content: bytes) -> _Owner:
    """Reads a lock object; one that jaxad did not write counts as the lock of an unknown owner."""
    unknown: _Owner = {"id": "", "host": "?", "pid": 0, "started": "?", "process": ""}
    try:
        return {**unknown, **json.loads(content)}
    except (ValueError, TypeError):
        return {**unknown, "id": content.decode(errors="replace")}


def _process(pid: int) -> str:
    """Identifies a process of this machine, also after its number was given to another one.

    The result is "" where the system does not tell, or if there is no such process.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = Path("/proc/self/ns/pid").readlink()  # containers number their processes apart
        # Behind the name of the program, which may hold spaces; the 22nd field is the start.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if fields[0] in "ZX" else f"{boot} {space} {pid} {fields[19]}"


def _is_alive_here(owner: _Owner) -> bool | None:
    """Tells whether an owner on this very machine is alive; None for another machine."""
    identity, me = str(owner["process"]), _process(os.getpid())
    if not me or identity.split(" ")[:2] != me.split(" ")[:2]:
        return None
    return _process(int(owner["pid"])) == identity
