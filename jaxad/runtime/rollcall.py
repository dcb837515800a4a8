"""A roll call before JAX connects the processes, so that a missing one is named.

JAX would abort every process after its time limit, with a stack trace and no names. Process 0
listens at the address that JAX will use, and every other process reports its number there. When all
have, or time is up, each gets the verdict: nothing, or the line that ends it.
"""

import contextlib
import selectors
import socket
import time

from jaxad.errors import UserError
from jaxad.runtime import interrupts

#: Seconds between two looks at signals and the clock.
_TICK_SECONDS = 0.5
#: Seconds that a process waits for the verdict after process 0 must have sent it.
_MARGIN_SECONDS = 30.0
#: Bytes of a report and of a verdict, at most.
_MOST_BYTES = 1000


def call(address: str, count: int, index: int, seconds: float) -> None:
    """Returns when all processes have called it.

    Args:
        address: `host:port` of process 0.
        count: the number of processes.
        index: the number of this process, from 0.
        seconds: how long process 0 waits for the others, and they for process 0.

    Raises:
        UserError: processes are missing, the numbers of two processes contradict each other, or
            process 0 cannot listen.
    """
    host, port = split_address(address)
    if count == 1:
        return
    if index:
        _report(host, port, count, index, seconds)
    else:
        _collect(port, count, seconds)


def split_address(address: str) -> tuple[str, int]:
    """Splits `host:port`; raises a UserError if it has another form."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UserError(f"--coordinator_address={address}: not of the form host:port.")
    return host.strip("[]"), int(port)


def _collect(port: int, count: int, seconds: float) -> None:
    """Waits for the reports of all other processes and sends each the verdict.

    Bytes are read as they arrive: a stranger that connects and sends nothing delays nobody.
    """
    deadline = time.monotonic() + seconds
    received: dict[socket.socket, bytes] = {}
    reported: dict[int, socket.socket] = {}
    verdict = ""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listen(port))
        listener.settimeout(_TICK_SECONDS)
        selector = stack.enter_context(selectors.DefaultSelector())
        selector.register(listener, selectors.EVENT_READ)
        while len(reported) < count - 1 and not verdict:
            interrupts.check()
            if time.monotonic() > deadline:
                verdict = _missing(sorted({*range(1, count)} - {*reported}), count, seconds)
                break
            for index in [index for index, other in reported.items() if _has_ended(other)]:
                del reported[index]  # it may be started again
            for key, _ in selector.select(_TICK_SECONDS):
                if key.fileobj is listener:
                    with contextlib.suppress(OSError):  # it has gone already
                        connection = stack.enter_context(listener.accept()[0])
                        connection.setblocking(False)
                        selector.register(connection, selectors.EVENT_READ, connection)
                    continue
                connection, part = key.data, _receive(key.data)
                text = received[connection] = received.get(connection, b"") + part
                if not part or text.endswith(b"\n") or len(text) > _MOST_BYTES:
                    selector.unregister(connection)
                    verdict = verdict or _note(text, connection, count, reported)
        for connection in reported.values():
            connection.settimeout(5)
            with contextlib.suppress(OSError):  # that process has ended; JAX will notice
                connection.sendall(verdict.encode() + b"\n")
                connection.recv(1)  # it closes first: the port is free for JAX at once
    if verdict:
        raise UserError(verdict)


def _receive(connection: socket.socket) -> bytes:
    """Reads what has arrived; b"" if the other end has closed the connection."""
    try:
        return connection.recv(_MOST_BYTES)
    except OSError:
        return b""


def _has_ended(connection: socket.socket) -> bool:
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _note(
    text: bytes, connection: socket.socket, count: int, reported: dict[int, socket.socket]
) -> str:
    """Notes a process that has reported; returns an error if it contradicts this process."""
    words = text.split()
    if len(words) != 3 or words[0] != b"jaxad" or not (words[1] + words[2]).isdigit():
        connection.close()  # not one of ours
        return ""
    index, their_count = int(words[1]), int(words[2])
    if their_count != count or not 0 < index < count:
        reported[index] = connection
        return (
            f"process {index} was started as one of {their_count}, process 0 as one of {count}; "
            "start all with the same number."
        )
    if index in reported:  # started again, or two have one number
        reported[index].close()
    reported[index] = connection
    return ""


def _report(host: str, port: int, count: int, index: int, seconds: float) -> None:
    """Reports this process to process 0 and waits for the verdict."""
    deadline = time.monotonic() + seconds
    while True:
        interrupts.check()
        try:
            connection = socket.create_connection((host, port), timeout=5)
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"process 0 of {count} does not answer: nothing listens at {host}:{port} "
                    f"({error.strerror or error}); start process 0 on that host, or pass "
                    "--cluster=none to run this process alone."
                ) from error
            time.sleep(_TICK_SECONDS)
    deadline = time.monotonic() + seconds + _MARGIN_SECONDS
    with connection:
        connection.settimeout(_TICK_SECONDS)
        verdict = b""
        with contextlib.suppress(OSError):  # it has ended, as the next lines notice
            connection.sendall(f"jaxad {index} {count}\n".encode())
        while not verdict.endswith(b"\n"):
            interrupts.check()
            if time.monotonic() > deadline or len(verdict) > _MOST_BYTES:
                raise UserError(
                    f"process 0 of {count} does not answer: something else listens at "
                    f"{host}:{port}, or that process hangs; see its output, or choose another port "
                    "with --coordinator_address or JAX_COORDINATOR_PORT, the same for all."
                )
            try:
                part = connection.recv(_MOST_BYTES)
            except TimeoutError:
                continue
            except OSError:
                part = b""
            if not part:
                raise UserError(
                    f"process 0 of {count} has ended, or another process reported as process "
                    f"{index}; see the output of the others, then start all again."
                )
            verdict += part
    if verdict.strip():
        raise UserError(verdict.decode(errors="replace").strip())


def _listen(port: int) -> socket.socket:
    """Listens at a port of all addresses of this machine, as JAX does."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(
            ("", port), family=family, dualstack_ipv6=both, backlog=128, reuse_port=False
        )
    except OSError as error:
        raise UserError(
            f"process 0 cannot listen at port {port} ({error.strerror}); choose another port with "
            "--coordinator_address or JAX_COORDINATOR_PORT, the same for all processes."
        ) from error


def _missing(indices: list[int], count: int, seconds: float) -> str:
    some = ", ".join(map(str, indices[:8])) + ", ..." * (len(indices) > 8)
    kind = "process" if len(indices) == 1 else "processes"
    return (
        f"{kind} {some} of {count} did not start within {seconds:.0f} s; start all {count} with "
        "the same command (see their output), or pass --cluster=none to run one process alone."
    )
