import pytest

from jaxad.storage import working_copies
from jaxad.storage.buckets import Objects


@pytest.fixture
def no_working_copies(monkeypatch):
    """A test begins like a new process, and waits for nothing."""
    monkeypatch.setattr(working_copies, "_copies", {})
    monkeypatch.setattr(working_copies, "_FRESH_SECONDS", 0.0)
    monkeypatch.setattr(working_copies, "_PAUSES", (0.0, 0.0))


@pytest.fixture
def objects(bucket):
    """The objects of an empty folder in a bucket."""
    return Objects.at(bucket, "")


@pytest.fixture
def uploaded(monkeypatch):
    """The names of uploaded files, in their order; grows during the test."""
    names_of_files = []
    put = Objects.put

    def record(objects, paths):
        names_of_files.extend(paths)
        put(objects, paths)

    monkeypatch.setattr(Objects, "put", record)
    return names_of_files
