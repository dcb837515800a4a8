"""The lock of a folder in a bucket, where there is no lock that a system releases.

A process locks a folder by creating the object `.lock/N`, where N is one more than the largest
number there; of several, one succeeds. The largest number is the owner, who writes its object again
every few seconds. A process that finds objects there watches them: if one changes, its owner
lives; if all stay the same for `SILENCE_SECONDS`, they are dead, and the process creates the next
number and deletes theirs. No clocks are compared. An owner that was only slow finds the larger
number at its next heartbeat, and writes nothing more.

Why two processes never own a folder at once: each looks at all objects after it has created its
own. The one that created later sees the other's, and steps back unless it knew that one as dead.
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

#: Seconds between two heartbeats, and without one until an owner counts as dead.
BEAT_SECONDS, SILENCE_SECONDS = 15.0, 60.0
#: Seconds that each request of a heartbeat may take, so that a second one is in time.
_BEAT_LIMIT = 10.0
#: Seconds between two looks at the object of an owner.
_LOOK_SECONDS = 1.0


#: What a lock object says about the process that wrote it.
_Owner = Mapping[str, str | int]

#: The ids of the leases that this process holds.
_held: set[str] = set()


@dataclasses.dataclass
class Lease:
    """The right to write below a URL, until another process takes it over (`is_lost`)."""

    objects: Objects
    number: int
    owner: _Owner

    def __post_init__(self) -> None:
        self._quick = dataclasses.replace(self.objects, limit=_BEAT_LIMIT)
        self._beats = 0
        self._last_beat = time.monotonic()
        self.is_lost = False
        self._ended = threading.Event()
        self._beating = threading.Lock()

    def check(self) -> None:
        """Raises a RunError if another process has taken over.

        Raises:
            StoreError: that cannot be found out.
        """
        if time.monotonic() - self._last_beat > SILENCE_SECONDS / 2 and not self.is_lost:
            self._beat()
        if self.is_lost:
            raise RunError(
                f"'{self.objects.url}': another process has taken over, because this one wrote no "
                f"heartbeat for {SILENCE_SECONDS:g} s; nothing more is written. Let the other "
                "one finish."
            )

    def _beat(self) -> None:
        """Writes a heartbeat, unless the lease is lost."""
        with self._beating:
            begun = time.monotonic()  # how long the store takes must not count in its favour
            owners = _owners(self._quick)
            if self._ended.is_set():
                return
            # The number may be another owner's by now: those of owners that have ended are free.
            mine = owners.get(self.number)
            if mine is None or mine["id"] != self.owner["id"] or max(owners) != self.number:
                self.is_lost = True
                return
            self._beats += 1
            self._quick.write(_name(self.number), _encode({**self.owner, "beats": self._beats}))
            self._last_beat = begun

    def keep(self) -> None:
        """Writes heartbeats until the lease ends or is lost; runs in its own thread."""
        while not self._ended.wait(BEAT_SECONDS) and not self.is_lost:
            with contextlib.suppress(StoreError):  # `check` reports one that lasts
                self._beat()

    def end(self) -> None:
        """Releases the folder."""
        self._ended.set()
        with self._beating:
            if not self.is_lost:
                self.objects.delete([_name(self.number)])


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
        _held.discard(str(lease.owner["id"]))
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
    _held.add(str(me["id"]))
    try:
        return Lease(objects, _create(objects, me), me)
    except BaseException:  # also an interruption
        _held.discard(str(me["id"]))
        raise


def _create(objects: Objects, me: _Owner) -> int:
    """Creates the object of a new owner; returns its number. See `_acquire`."""
    while True:
        owners = _owners(objects)
        if not _await_death(objects, owners):
            continue
        number = max(owners, default=0) + 1
        if not objects.create(_name(number), _encode({**me, "beats": 0})):
            continue  # another process was faster, and is watched now
        # Whoever ended while this process was watching may have made room for another process.
        known = {owner["id"] for owner in owners.values()}
        others = _owners(objects)
        mine = others.pop(number, None)
        if mine is None or mine["id"] != me["id"]:
            continue  # a user deleted it, or the store let two processes create it
        if any(n > number or owner["id"] not in known for n, owner in others.items()):
            objects.delete([_name(number)])
            continue
        objects.delete([_name(n) for n in owners])
        return number


def _await_death(objects: Objects, owners: Mapping[int, _Owner]) -> bool:
    """Waits until all owners are known to be dead; returns False if one has released the folder.

    Raises:
        UserError: one of them lives.
    """
    watched = {n: owner for n, owner in owners.items() if _is_alive_here(owner) is not False}
    if watched:
        last = watched[max(watched)]
        if any(_is_alive_here(owner) for owner in watched.values()):
            raise _in_use(objects, last)
        logger.warning(
            f"workdir '{objects.url}': is locked by {_describe(last)}; waiting up to "
            f"{SILENCE_SECONDS:g} s for a heartbeat."
        )
    end = time.monotonic() + SILENCE_SECONDS
    while watched and time.monotonic() < end:
        for number, owner in watched.items():
            content = objects.read(_name(number))
            if content is None:
                return False
            if _decode(content) != owner:
                raise _in_use(objects, owner)
        interrupts.check()
        time.sleep(_LOOK_SECONDS)
    if owners:
        where = _describe(owners[max(owners)])
        logger.warning(f"workdir '{objects.url}': taken over from {where}, which has ended.")
    return True


def _describe(owner: _Owner) -> str:
    return f"process {owner['pid']} on '{owner['host']}', since {owner['started']}"


def _in_use(objects: Objects, owner: _Owner) -> UserError:
    return UserError(
        f"workdir '{objects.url}': another process is using it ({_describe(owner)}); wait for it "
        "or choose another --workdir."
    )


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
    if identity == me:  # a lease that could not be ended is none
        return owner["id"] in _held
    return _process(int(owner["pid"])) == identity
