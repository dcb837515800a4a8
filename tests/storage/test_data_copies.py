"""Data in a bucket, read from copies that stay."""

import errno
import os
import time
from pathlib import Path

import pytest

from jaxad.errors import UserError
from jaxad.storage import data_copies
from jaxad.storage.buckets import Objects, StoreError
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
    objects.write("images.npz", b"arrays")
    objects.write("other.npz", b"")
    path = locate_data(f"{objects.url}/images.npz")
    assert path.name == "images.npz"
    assert path.read_bytes() == b"arrays"
    assert not (path.parent / "other.npz").exists()


def test_a_table_comes_with_the_files_beside_it(objects):
    objects.write("table.csv", b"path,label\n")
    objects.write("ann/1.png", b"image")
    path = locate_data(f"{objects.url}/table.csv")
    assert f"{path}" == f"{objects.url}/table.csv"
    assert path.read_bytes() == b"path,label\n"
    assert (path.parent / "ann/1.png").read_bytes() == b"image"
    with pytest.raises(UserError, match="there is no such bucket"):
        locate_data(f"{objects.url.partition('/')[0]}//no-such-bucket.csv")


def test_a_local_disk_that_is_full_is_not_an_error_of_the_bucket(objects, monkeypatch):
    async def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    objects.write("a.png", b"a")
    monkeypatch.setattr(type(Objects.at(objects.url, "")._files), "_get_file", fail)
    with pytest.raises(OSError, match="No space left on device: '.*cache of buckets/"):
        locate_data(objects.url, "config.data.root")


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


def test_files_that_are_uploaded_are_not_downloaded_again(objects, monkeypatch):
    path = locate_data(objects.url)
    path.mkdir(parents=True)
    (path / "a").write_bytes(b"a")
    (path / "incomplete.1.0").mkdir()
    (path / "incomplete.1.0/b").write_bytes(b"b")  # another process is generating it
    data_copies.push(path)
    assert list(objects.find()) == ["a"]
    before = (path / "a").stat().st_ino
    monkeypatch.setattr(data_copies, "_copies", {})
    assert (locate_data(objects.url) / "a").stat().st_ino == before


def test_files_of_a_download_that_was_killed_follow_the_bucket(objects, monkeypatch):
    objects.write("a", b"a")
    write = data_copies.DataCopy._write_index
    calls = []

    def write_once(self, versions):
        if calls:
            raise KeyboardInterrupt
        calls.append(1)
        write(self, versions)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(data_copies.DataCopy, "_write_index", write_once)
        locate_data(objects.url)
    objects.delete(["a"])
    assert not (locate_data(objects.url) / "a").exists()


def test_a_file_has_the_time_of_its_object(objects):
    """Scores of the same files continue on another machine."""
    objects.write("a", b"a")
    written = objects.find()["a"].written
    assert abs(written - time.time()) < 60
    assert (locate_data(objects.url) / "a").stat().st_mtime == pytest.approx(written)


def test_a_url_that_went_through_pathlib(objects):
    with pytest.raises(UserError, match=f"--input: .*: write it as text, '{objects.url}'"):
        locate_data(Path(objects.url), "--input")


def test_a_store_that_fails_after_the_first_copy(objects, monkeypatch, capsys):
    objects.write("a", b"a")
    path = locate_data(objects.url)

    def fail(_):
        raise StoreError("it does not answer")

    monkeypatch.setattr(data_copies, "_FRESH_SECONDS", 0.0)
    monkeypatch.setattr(Objects, "find", fail)
    assert locate_data(objects.url) == path
    assert f"'{objects.url}': it does not answer; the copy of before" in capsys.readouterr().err
    monkeypatch.setattr(data_copies, "_copies", {})
    with pytest.raises(UserError, match="it does not answer"):
        locate_data(objects.url)


def test_a_download_that_was_killed_is_continued(objects, monkeypatch):
    for name in "abc":
        objects.write(name, b"x")
    monkeypatch.setattr(data_copies, "_PART_FILES", 1)
    get, downloaded = Objects.get, []

    def get_two(self, paths, size):
        if len(downloaded) == 2:
            next(iter(paths.values())).parent.with_name("pull-killed").mkdir()
            raise KeyboardInterrupt
        downloaded.extend(paths)
        return get(self, paths, size)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Objects, "get", get_two)
        locate_data(objects.url)
    assert downloaded == ["a", "b"]
    downloaded.clear()
    monkeypatch.setattr(Objects, "get", get_two)
    path = locate_data(objects.url)
    assert downloaded == ["c"]
    assert sorted(file.name for file in path.iterdir()) == ["a", "b", "c"]
    assert not list(path.parents[1].glob("pull-*"))
