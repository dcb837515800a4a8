"""Data in a bucket, read from copies that stay."""

import pytest

from jaxad.storage import data_copies
from jaxad.storage.buckets import Objects
from jaxad.storage.locations import locate_data


@pytest.fixture(autouse=True)
def no_copies(monkeypatch):
    monkeypatch.setattr(data_copies, "_copies", {})


@pytest.fixture
def objects(bucket):
    return Objects.at(f"{bucket}/chest/images", "")


def test_data_are_downloaded_once_and_follow_the_bucket(objects, monkeypatch):
    objects.write("normal/a.png", b"a")
    objects.write("normal/b.png", b"b")
    path = locate_data(objects.url)
    assert (path / "normal/a.png").read_bytes() == b"a"
    assert f"{path}" == objects.url
    downloaded = []
    get = Objects.get

    def note(self, paths, size):
        downloaded.extend(paths)
        return get(self, paths, size)

    monkeypatch.setattr(Objects, "get", note)
    assert locate_data(objects.url) == path
    objects.write("normal/b.png", b"other")
    objects.delete(["normal/a.png"])
    monkeypatch.setattr(data_copies, "_copies", {})  # as another process
    assert locate_data(objects.url) == path
    assert downloaded == ["normal/b.png"]
    assert [file.name for file in (path / "normal").iterdir()] == ["b.png"]


def test_the_path_of_a_file_has_its_name(objects):
    objects.write("table.csv", b"path,label\n")
    path = locate_data(f"{objects.url}/table.csv")
    assert path.name == "table.csv"
    assert path.read_bytes() == b"path,label\n"


def test_nothing_at_the_url_is_a_path_that_does_not_exist(objects):
    assert not locate_data(objects.url).exists()


def test_new_files_are_uploaded(objects, monkeypatch):
    path = locate_data(objects.url, num_parts=2)
    assert path.parent.name == "chest"
    (path / "1.0").mkdir(parents=True)
    (path / "1.0/records").write_bytes(b"r")
    (path / "1.0/.lock").touch()
    data_copies.push(path)
    assert list(objects.find()) == ["1.0/records"]
    data_copies.push(path.parent)  # not the root of a copy
    monkeypatch.setattr(data_copies, "_copies", {})
    assert (locate_data(objects.url, num_parts=2) / "1.0/records").exists()
    assert list(objects.find()) == ["1.0/records"]
