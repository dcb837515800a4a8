"""Several processes as one run: joining, barriers, broadcasts, and signals.

JAX's distributed runtime connects the processes and notices when one is lost. Every process runs
the same program on its part of each batch; only the first one writes, to a folder that all share.
"""

import functools
import itertools
import logging
import os
import signal
import socket
import sys
import time
import zlib
from pathlib import Path
from typing import Any

from jaxad.errors import UserError, first_line
from jaxad.runtime import clusters, interrupts, rollcall

logger = logging.getLogger(__name__)

#: Values of `--cluster` for which JAX finds the processes.
_FOUND_BY_JAX = ("k8s", "ompi", "mpi4py")
#: Values of `--cluster`.
CLUSTERS = ("auto", "none", "slurm", "tpu", *_FOUND_BY_JAX)
#: Flags of the command line that `join` takes.
FLAGS = (
    "cluster", "coordinator_address", "num_processes", "process_id", "heartbeat_seconds",
)  # fmt: skip

#: Seconds that processes wait for each other at the start, and for a heartbeat.
_START_SECONDS, _HEARTBEAT_SECONDS = 300, 60
#: Numbers the calls of `notice`.
_notice_calls = itertools.count()
#: The signal that was passed on to the other processes.
_passed_on: list[str] = []


def join(
    *,
    cluster: str = "",
    coordinator_address: str = "",
    num_processes: str = "",
    process_id: str = "",
    heartbeat_seconds: str = "",
) -> str:
    """Connects this process with the others of its run, if there are any.

    Call it before JAX starts. Flags take precedence over what the environment says. From then on
    SIGTERM is a preemption notice, which all processes poll (`notice`).

    Args:
        cluster: one of `CLUSTERS`; by default `auto`: join if the environment is unambiguous.
        coordinator_address: `host:port` at which the first process listens.
        num_processes: the number of processes.
        process_id: the index of this process, from 0.
        heartbeat_seconds: a process without a heartbeat for this long counts as dead, and the
            others end.

    Returns:
        What describes the processes, such as `SLURM job 1234`; empty for a single process.

    Raises:
        UserError: flags are missing or wrong, or a process is missing.
    """
    flags = {
        "--coordinator_address": coordinator_address,
        "--num_processes": num_processes,
        "--process_id": process_id,
    }
    if cluster and cluster not in CLUSTERS:
        raise UserError(f"--cluster={cluster}: unknown cluster; known: {', '.join(CLUSTERS)}.")
    count = _whole_number("--num_processes", num_processes, 1)
    index = _whole_number("--process_id", process_id, 0)
    heartbeat = _whole_number("--heartbeat_seconds", heartbeat_seconds, 1) or _HEARTBEAT_SECONDS
    if cluster in _FOUND_BY_JAX:
        _connect(coordinator_address or None, count, index, heartbeat, method=cluster)
        return f"--cluster={cluster}"
    if cluster == "none":
        if any(flags.values()):
            raise UserError(f"--cluster=none: a single process; leave out {', '.join(flags)}.")
        return ""
    if all(flags.values()):
        found = clusters.Processes("flags")
    else:
        found = clusters.detect(clusters.around(), "" if cluster == "auto" else cluster)
    if found.count == 1 and not any(flags.values()):
        if heartbeat_seconds:
            raise UserError("--heartbeat_seconds: this is a single process; leave the flag out.")
        if found.note:
            logger.warning(found.note)
        return ""
    if found.count == 1:
        for flag, value in flags.items():
            if not value:
                raise UserError(f"{flag}: missing; processes need all of {', '.join(flags)}.")
    address = coordinator_address or found.address
    count, index = count or found.count, found.index if index is None else index
    if index >= count:
        raise UserError(f"--process_id={index}: ids of {count} processes are 0 to {count - 1}.")
    rollcall.split_address(address)
    logger.warning(
        f"process {index} of {count} ({found.source}): waiting for the others at {address}, for up "
        f"to {_START_SECONDS} s"
    )
    rollcall.call(address, count, index, float(_START_SECONDS))
    _connect(address, count, index, heartbeat)
    return found.source


def _connect(
    address: str | None,
    count: int | None,
    index: int | None,
    heartbeat: int,
    method: str = "deactivate",
) -> None:
    """Connects this process; with a `method`, JAX finds what is None."""
    import jax

    try:
        jax.distributed.initialize(
            address,
            count,
            index,
            local_device_ids=clusters.local_devices(os.environ),
            cluster_detection_method=method,
            initialization_timeout=_START_SECONDS,
            heartbeat_timeout_seconds=heartbeat,
            # A process that ends with an error waits this long for the others, which then end too.
            shutdown_timeout_seconds=heartbeat,
        )
    except (ValueError, RuntimeError, KeyError) as error:
        line = first_line(error)
        missing = f"{line} is not set" if isinstance(error, KeyError) else line
        flag = "--coordinator_address" if method == "deactivate" else f"--cluster={method}"
        raise UserError(
            f"{flag}: the processes cannot connect ({missing}); set --coordinator_address, "
            "--num_processes, and --process_id."
        ) from error


def log_devices(source: str) -> None:
    """Logs the processes and devices of a run of several; starts JAX.

    `source` is what `join` returned. Nothing is logged for a single process.
    """
    if source:
        count_on_host()  # here, where every process arrives
    if not source or not is_first():
        return
    import jax

    devices = jax.devices()
    kind, platform = devices[0].device_kind, devices[0].platform.upper()
    count = jax.process_count()
    logger.info(
        f"{count} process{'es' * (count > 1)} ({source}), {len(devices)} devices "
        f"{kind if platform in kind.upper() else f'{platform} {kind}'}, mesh data={len(devices)}"
    )


def leave(code: int) -> None:
    """Ends a failed process at once if it is one of several; otherwise returns.

    An ordinary exit would wait for the others, which wait for this process in a collective. They
    notice that it is gone and end too.
    """
    if are_several():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def are_several() -> bool:
    """Tells whether this process has joined a run of several; imports nothing."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def is_first() -> bool:
    """Tells whether this process is the one that writes."""
    return not are_several() or sys.modules["jax"].process_index() == 0


def barrier(where: str) -> None:
    """Waits until all processes get here; afterwards, all see what the first one has written."""
    if are_several():
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(where)


def notice() -> bool:
    """Tells whether one of several processes received a signal, so that all of them should end.

    Always False for a single process. All processes must call it the same number of times: JAX
    broadcasts the notice to all processes, and returns True from the same call in each. JAX reacts
    only to SIGTERM, so other signals are passed on as SIGTERM.
    """
    if not are_several():
        return False
    if interrupts.requested() and not _passed_on:
        _passed_on.append(interrupts.signal_name())
        signal.raise_signal(signal.SIGTERM)
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point(next(_notice_calls))


def stop_requested() -> bool:
    """Tells whether a signal asks this run to save and stop.

    All processes must call it the same number of times; see `notice`.
    """
    # JAX handles SIGTERM itself in every run that was joined, even as the only process.
    return notice() if are_several() else interrupts.requested()


def check_signals() -> None:
    """Raises KeyboardInterrupt if a signal is to end this process, or all processes of its run.

    All processes must call it the same number of times; see `notice`.
    """
    if not are_several():
        interrupts.check()
    elif notice():
        raise KeyboardInterrupt


def broadcast_from_first(tree: Any) -> Any:
    """Returns the first process's tree of NumPy arrays in all processes.

    The others pass arrays of the same shapes and dtypes.
    """
    if not are_several():
        return tree
    from jax.experimental import multihost_utils

    return multihost_utils.broadcast_one_to_all(tree)


def of_all(value: int) -> list[int]:
    """Gathers a number from every process, in their order."""
    if not are_several():
        return [value]
    import numpy as np
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(np.asarray(value, np.int32)).reshape(-1).tolist()


@functools.cache
def count_on_host() -> int:
    """Returns the number of processes of this run on this machine; every process must call it."""
    host = zlib.crc32(socket.gethostname().encode()) & 0x7FFFFFFF
    return of_all(host).count(host)


def check_shared(folder: Path) -> None:
    """Raises a UserError unless every process sees the folder that the first one writes to."""
    if not are_several() or sys.modules["jax"].process_count() == 1:
        return
    import numpy as np

    barrier(f"before {folder}")
    token = broadcast_from_first(np.uint32(time.time_ns() % 2**32))
    marker = folder / f".shared-{int(token)}"
    if is_first():
        folder.mkdir(parents=True, exist_ok=True)
        marker.touch()
    barrier(f"marked {folder}")
    seen = of_all(marker.exists())
    if is_first():
        marker.unlink(missing_ok=True)
    if not all(seen):
        blind = ", ".join(str(number) for number, sees in enumerate(seen) if not sees)
        raise UserError(
            f"workdir '{folder}': not visible to process {blind}; choose a folder that all hosts "
            "share, or pass --cluster=none if each process has a run of its own."
        )


def check_same_text(name: str, text: str) -> None:
    """Raises a UserError unless a text is the same in every process."""
    digests = of_all(zlib.crc32(text.encode(errors="backslashreplace")) >> 1)
    if len(set(digests)) > 1:
        raise UserError(
            f"{name} '{text}': is another one in other processes; give all processes the same."
        )


def _whole_number(flag: str, text: str, least: int) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or int(text) < least:
        raise UserError(f"{flag}={text}: not a whole number of at least {least}.")
    return int(text)
