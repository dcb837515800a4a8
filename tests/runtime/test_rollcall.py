"""The roll call of processes before JAX connects them."""

import contextlib
import socket
import threading
import time

import pytest

from jaxad.errors import UserError
from jaxad.runtime import rollcall


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def outcomes(port, *members, seconds=5.0):
    """Calls the roll in a thread for each (index, count); returns the error of each, or ""."""
    errors = [""] * len(members)

    def member(place, index, count):
        try:
            rollcall.call(f"127.0.0.1:{port}", count, index, seconds)
        except UserError as error:
            errors[place] = str(error)

    threads = [
        threading.Thread(target=member, args=(place, *numbers))
        for place, numbers in enumerate(members)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    return errors


def test_all_are_there(port):
    assert outcomes(port, (0, 3), (1, 3), (2, 3)) == ["", "", ""]
    with socket.create_server(("127.0.0.1", port)):  # the port is free for JAX at once
        pass


def test_one_process_calls_nobody(port):
    assert outcomes(port, (0, 1)) == [""]


def test_missing_processes_are_named_to_all_that_came(port):
    first, second = outcomes(port, (0, 5), (2, 5), seconds=3.0)
    assert first == second
    assert first.startswith("processes 1, 3, 4 of 5 did not start within 3 s; start all 5 with")
    assert "--cluster=none" in first


def test_a_process_that_reported_and_ended_is_missing(port):
    def report_and_end():
        with connection_to(port) as connection:
            connection.sendall(b"jaxad 1 3\n")
            time.sleep(0.5)
        time.sleep(1.5)  # process 0 looks twice a second
        errors.extend(outcomes(port, (2, 3)))

    errors: list[str] = []
    thread = threading.Thread(target=report_and_end)
    thread.start()
    (error,) = outcomes(port, (0, 3), seconds=4.0)
    thread.join(timeout=60)
    assert error.startswith("process 1 of 3 did not start within 4 s") and errors == [error]


def test_a_missing_first_process_is_named(port):
    (error,) = outcomes(port, (1, 2), seconds=0.0)
    assert f"process 0 of 2 does not answer: nothing listens at 127.0.0.1:{port}" in error
    assert "start process 0 on that host" in error


def test_different_numbers_of_processes(port):
    first, second = outcomes(port, (0, 2), (1, 3))
    assert first == second
    assert first.startswith("process 1 was started as one of 3, process 0 as one of 2; start all")


def test_two_processes_of_one_number(port):
    errors = outcomes(port, (0, 3), (1, 3), (1, 3), seconds=2.0)
    assert errors[0].startswith("process 2 of 3 did not start")
    assert sum("another process reported as process 1" in error for error in errors[1:]) == 1


def test_strangers_at_the_port_are_ignored(port):
    def knock():
        for words in (b"GET / HTTP/1.1\r\n\r\n", b"jaxad x y\n", b""):
            for _ in range(100):
                try:
                    with socket.create_connection(("127.0.0.1", port), timeout=5) as stranger:
                        stranger.sendall(words)
                    break
                except OSError:
                    threading.Event().wait(0.05)
        errors.extend(outcomes(port, (1, 2)))

    errors: list[str] = []
    thread = threading.Thread(target=knock)
    thread.start()
    assert outcomes(port, (0, 2), seconds=30.0) == [""]
    thread.join(timeout=60)
    assert errors == [""]


def test_silent_and_slow_strangers_delay_nobody(port):
    """Read one after the other, each would hold up process 0 for as long as it likes."""
    with contextlib.ExitStack() as stack:
        errors: list[str] = []
        thread = threading.Thread(
            target=lambda: errors.extend(outcomes(port, (0, 2), seconds=20.0))
        )
        thread.start()
        for words in (b"", b"jaxad", b"jaxad 1 2", b"x" * 2000):
            stranger = stack.enter_context(connection_to(port))
            stranger.sendall(words)
        start = time.monotonic()
        assert outcomes(port, (1, 2)) == [""]
        assert time.monotonic() - start < 4.0  # a read waits 5 s for a silent one
        thread.join(timeout=60)
        assert errors == [""]


def connection_to(port):
    for _ in range(100):
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=5)
        except OSError:
            time.sleep(0.05)
    raise AssertionError("nothing listens")


def test_another_service_at_the_address_is_not_waited_for_without_end(port, monkeypatch):
    """For example a web server, which waits for the rest of the request."""
    monkeypatch.setattr(rollcall, "_MARGIN_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", port)):
        (error,) = outcomes(port, (1, 2), seconds=0.2)
    assert f"does not answer: something else listens at 127.0.0.1:{port}" in error


def test_a_port_in_use(port):
    with (
        socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        if socket.has_dualstack_ipv6()
        else socket.create_server(("", port))
    ):
        (error,) = outcomes(port, (0, 2))
    assert f"process 0 cannot listen at port {port} (" in error
    assert "JAX_COORDINATOR_PORT" in error


@pytest.mark.parametrize("address", ["nowhere", "host:", ":80", "host:http", "host:70000"])
def test_addresses_that_are_none(address):
    with pytest.raises(UserError, match=f"--coordinator_address={address}: not of the form"):
        rollcall.split_address(address)


def test_ipv6_addresses():
    assert rollcall.split_address("[::1]:80") == ("::1", 80)
