"""Several processes as one run: how they meet, and what the first of them does alone.

JAX's own runtime connects them and notices when one is lost. Every process runs the same program on
its part of each batch; all that is written is written by the first one, in a folder that all see.
"""

import itertools
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from jaxad.errors import UserError, first_line
from jaxad.runtime import interrupts

logger = logging.getLogger(__name__)

#: How JAX finds out by itself who takes part, as `--cluster` names it.
CLUSTERS = ("auto", "slurm", "ompi", "mpi4py", "tpu", "gcetpu", "gketpu", "k8s")
#: Flags of the command line that `join` takes.
FLAGS = (
    "cluster", "coordinator_address", "num_processes", "process_id", "heartbeat_seconds",
)  # fmt: skip

#: Seconds for which processes wait for each other at the start, and after a last sign of life.
_START_SECONDS, _HEARTBEAT_SECONDS = 300, 60
_asked = itertools.count()
#: The signal that was passed on to the other processes.
_passed_on: list[str] = []


def join(
    *,
    cluster: str = "",
    coordinator_address: str = "",
    num_processes: str = "",
    process_id: str = "",
    heartbeat_seconds: str = "",
) -> None:
    """Makes this process one of several, where the flags say so; returns when all are there.

    Call it before JAX starts. From then on SIGTERM is a notice of preemption, which all processes
    poll (`notice`), and all but the first are silent.

    Args:
        cluster: one of `CLUSTERS`: JAX reads from the scheduler's environment who takes part.
        coordinator_address: `host:port` of the first process, which listens there.
        num_processes: how many there are.
        process_id: which one this is, from 0.
        heartbeat_seconds: after so long without a sign of life a process counts as dead, and the
            others end.

    Raises:
        UserError: the flags do not say what they must, or nothing listens at the address.
    """
    given = {
        "--coordinator_address": coordinator_address,
        "--num_processes": num_processes,
        "--process_id": process_id,
    }
    if not cluster and not any(given.values()):
        if heartbeat_seconds:
            raise UserError("--heartbeat_seconds: this is one process; it needs no heartbeat.")
        return
    if cluster and cluster not in CLUSTERS:
        raise UserError(f"--cluster={cluster}: no such cluster; known: {', '.join(CLUSTERS)}.")
    if not cluster:
        for flag, value in given.items():
            if not value:
                raise UserError(
                    f"{flag}: missing; processes that find each other by flags need all of "
                    f"{', '.join(given)}."
                )
    count = _whole_number("--num_processes", num_processes, 1)
    index = _whole_number("--process_id", process_id, 0)
    heartbeat = _whole_number("--heartbeat_seconds", heartbeat_seconds, 1) or _HEARTBEAT_SECONDS
    if count is not None and index is not None:
        if index >= count:
            raise UserError(
                f"--process_id={index}: of {count} processes the last has number {count - 1}."
            )
        logger.warning(
            f"process {index} of {count}: waiting for the others at {coordinator_address}, for up "
            f"to {_START_SECONDS} s"
        )
    if index:
        _wait_for(coordinator_address)
    import jax

    try:
        jax.distributed.initialize(
            coordinator_address or None,
            count,
            index,
            cluster_detection_method=None if cluster in ("", "auto") else cluster,
            initialization_timeout=_START_SECONDS,
            heartbeat_timeout_seconds=heartbeat,
            # Who ends with an error waits no longer than that for the others, which then end too.
            shutdown_timeout_seconds=heartbeat,
        )
    except (ValueError, RuntimeError, KeyError) as error:
        line = first_line(error)
        missing = f"{line} is not set" if isinstance(error, KeyError) else line
        raise UserError(
            f"{f'--cluster={cluster}' if cluster else '--coordinator_address'}: the processes do "
            f"not find each other ({missing}); name them by {', '.join(given)}."
        ) from error


def leave(code: int) -> None:
    """Ends one of several processes that failed, at once; returns where this is the only one.

    An ordinary end waits for the others, which wait for this process where it will not come. They
    hear that it is gone and end too.
    """
    if are_several():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def are_several() -> bool:
    """Whether this process was joined with others; imports nothing."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def is_first() -> bool:
    """Whether this process is the one that writes."""
    import jax

    return not jax.distributed.is_initialized() or jax.process_index() == 0


def barrier(where: str) -> None:
    """Returns when every process has come here; what the first has written is there then."""
    import jax

    if jax.distributed.is_initialized():
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(where)


def notice() -> bool:
    """Whether any of several processes is to end; False where this is the only one.

    Every process must ask equally often: JAX carries the notice to all, and tells them at the same
    time of asking. JAX takes SIGTERM for a notice; any other signal that ends a run is passed on
    as one.
    """
    import jax

    if not jax.distributed.is_initialized():
        return False
    if interrupts.requested() and not _passed_on:
        _passed_on.append(interrupts.name())
        signal.raise_signal(signal.SIGTERM)
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point(next(_asked))


def stop_requested() -> bool:
    """Tells whether a signal asks this run to save and stop.

    Every one of several processes must ask equally often; see `notice`.
    """
    # JAX handles SIGTERM itself in every run that was joined, even as the only process.
    return notice() if are_several() else interrupts.requested()


def check_signals() -> None:
    """Raises KeyboardInterrupt if a signal is to end this process, or all of several.

    Of several processes each must call it equally often; see `notice`.
    """
    import jax

    if not jax.distributed.is_initialized():
        interrupts.check()
    elif notice():
        raise KeyboardInterrupt


def broadcast_from_first(tree: Any) -> Any:
    """The first process's NumPy arrays, in all; others give arrays of the same shapes and types."""
    import jax

    if not jax.distributed.is_initialized():
        return tree
    from jax.experimental import multihost_utils

    return multihost_utils.broadcast_one_to_all(tree)


def of_all(value: int) -> list[int]:
    """The number that each process gives, in their order."""
    import jax

    if not jax.distributed.is_initialized():
        return [value]
    import numpy as np
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(np.asarray(value, np.int32)).reshape(-1).tolist()


def check_shared(folder: Path) -> None:
    """Checks that every process sees the folder that the first one writes to.

    Raises:
        UserError: they do not.
    """
    import jax

    if not jax.distributed.is_initialized() or jax.process_count() == 1:
        return
    import numpy as np

    barrier(f"before {folder}")
    token = broadcast_from_first(np.uint32(time.time_ns() % 2**32))
    sign = folder / f".shared-{int(token)}"
    if is_first():
        folder.mkdir(parents=True, exist_ok=True)
        sign.touch()
    barrier(f"signed {folder}")
    seen = of_all(sign.exists())
    if is_first():
        sign.unlink(missing_ok=True)
    if not all(seen):
        blind = ", ".join(str(number) for number, sees in enumerate(seen) if not sees)
        raise UserError(
            f"workdir '{folder}': not seen by process {blind}; choose a folder that all hosts "
            "share."
        )


def _whole_number(flag: str, text: str, least: int) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or int(text) < least:
        raise UserError(f"{flag}={text}: is no whole number of at least {least}.")
    return int(text)


def _wait_for(address: str) -> None:
    """Returns when something listens there: JAX itself would end the process without a word."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"--coordinator_address={address}: is not host:port.")
    deadline = time.monotonic() + _START_SECONDS
    while True:
        interrupts.check()
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"--coordinator_address={address}: nothing listens there "
                    f"({error.strerror or error}); start process 0 on that host."
                ) from error
            time.sleep(0.5)
