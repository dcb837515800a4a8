"""Objects of a bucket, against stores on this machine; refusals against small servers."""

import asyncio
import http.server
import socket
import threading
import time

import emulators
import fsspec.asyn
import pytest

from jaxad.errors import UserError
from jaxad.storage import buckets
from jaxad.storage.buckets import Objects, Refused, StoreError, is_url


@pytest.mark.parametrize(
    ("path", "expected"),
    [("gs://b/x", True), ("s3://b", True), ("az://b/x", True), ("runs/x", False), ("/a://b", False),
     ("~/x", False), ("C:/x", False)],
)  # fmt: skip
def test_urls(path, expected):
    assert is_url(path) is expected


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("az://b/x", "--workdir: 'az://b/x': not a local path and not gs:// or s3://"),
        ("https://b/x", "not a local path"),
        ("gs://", "'gs://': write it as gs://bucket/folder."),
        ("s3://b/../x", "write it as s3://bucket/folder."),
    ],
)
def test_a_bad_url_is_refused(url, message):
    with pytest.raises(UserError, match="^--workdir: ") as caught:
        Objects.at(url, "--workdir")
    assert message in str(caught.value)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    with pytest.raises(UserError, match=r"needs the package gcsfs: pip install 'jaxad\[gcs\]'"):
        Objects.at("gs://b/x", "")


def test_objects_are_written_whole_and_found_by_name(bucket, tmp_path):
    objects = Objects.at(bucket, "")
    assert objects.find() == {}
    objects.write("a/b.json", b"{}")
    Objects.at(f"{bucket}2", "").write("c", b"")  # another folder, whose name begins the same
    (tmp_path / "large").write_bytes(b"x" * 6_000_000)  # S3 uploads it in parts
    (tmp_path / "empty").touch()
    objects.put({"large": tmp_path / "large", "a/empty": tmp_path / "empty"})
    found = objects.find()
    assert {name: item.size for name, item in found.items()} == {
        "a/b.json": 2, "a/empty": 0, "large": 6_000_000
    }  # fmt: skip
    assert list(objects.below("a").find()) == ["b.json", "empty"]
    assert list(Objects.at(f"{bucket}/a/b.json", "").find()) == [""]
    objects.write("a/b.json", b"[]")
    assert objects.find()["a/b.json"].version != found["a/b.json"].version
    assert objects.read("a/b.json") == b"[]"
    assert objects.read("a/none") is None
    targets = {name: tmp_path / "to" / name for name in ("large", "gone", "a/empty")}
    assert objects.get(targets, 6_000_000) == ["gone"]
    assert targets["large"].read_bytes() == (tmp_path / "large").read_bytes()
    objects.delete(["large", "gone", "a/b.json"])
    assert list(objects.find()) == ["a/empty"]


def test_one_of_several_threads_creates_an_object(bucket):
    objects = Objects.at(bucket, "")
    created = []

    def create(number: int) -> None:
        created.append(objects.create("lock", str(number).encode()))

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(created) == [False] * 7 + [True]
    winner = objects.read("lock")
    assert objects.create("lock", winner or b"")  # as if the client had repeated its first try
    assert not objects.create("lock", b"other")


def test_a_bucket_that_does_not_exist(bucket, tmp_path):
    (tmp_path / "file").touch()
    objects = Objects.at(bucket.replace(emulators.BUCKET, "no-such-bucket"), "")
    calls = [
        objects.find,
        lambda: objects.write("x", b""),
        lambda: objects.create("x", b""),
        lambda: objects.put({"x": tmp_path / "file"}),
    ]
    for call in calls:
        with pytest.raises(Refused, match="there is no such bucket"):
            call()


class _Refusing(http.server.BaseHTTPRequestHandler):
    """Answers every request with the status `code` of the class."""

    protocol_version = "HTTP/1.1"
    code = 403

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        names = {401: "InvalidAccessKeyId", 403: "AccessDenied", 503: "SlowDown"}
        body = f"<Error><Code>{names[self.code]}</Code><Message>no</Message></Error>".encode()
        self.send_response(self.code)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET


@pytest.fixture
def lead_to(monkeypatch):
    """A function that leads clients of both kinds to a port."""

    def lead(port: int) -> None:
        variables = emulators.client_environment(port, port)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        for scheme in ("gs", "s3"):
            fsspec.get_filesystem_class(scheme).clear_instance_cache()

    yield lead
    for scheme in ("gs", "s3"):
        fsspec.get_filesystem_class(scheme).clear_instance_cache()


@pytest.mark.parametrize("url", ["gs://b/x", "s3://b/x"])
@pytest.mark.parametrize(
    ("code", "message"),
    [(401, "there are no valid credentials"), (403, "the credentials do not allow it")],
)
def test_credentials_that_are_refused(code, message, url, lead_to):
    handler = type("Handler", (_Refusing,), {"code": code})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        lead_to(server.server_port)
        for call in (lambda o: o.create("lock", b""), lambda o: o.find()):
            # S3's clients do not tell one from the other.
            with pytest.raises(Refused, match=message if url[0] == "g" else "credentials"):
                call(Objects.at(url, ""))
        server.shutdown()


@pytest.mark.parametrize("url", ["gs://b/x", "s3://b/x"])
def test_a_store_that_never_answers(url, lead_to, monkeypatch, tmp_path):
    monkeypatch.setattr(buckets, "_SECONDS", 0.5)
    (tmp_path / "file").touch()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        lead_to(silent.getsockname()[1])
        objects = Objects.at(url, "")
        calls = [objects.find, lambda: objects.create("x", b"")]
        calls += [lambda: objects.put({"x": tmp_path / "file"})]
        for call in calls:
            start = time.monotonic()
            with pytest.raises(StoreError, match="it does not answer"):
                call()
            assert time.monotonic() - start < 30


@pytest.mark.parametrize(("size", "at_once"), [(10, 16), (40 * 10**9, 2)])
def test_few_large_objects_are_transferred_at_once(size, at_once):
    class Files:
        loop = fsspec.asyn.get_loop()
        now = most = 0

        async def _rm_file(self, _):
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.01)
            self.now -= 1

    objects = Objects("gs://b")
    files = objects.__dict__["_files"] = Files()
    objects._each("_rm_file", [("a",)] * 40, size)
    assert files.most == at_once
