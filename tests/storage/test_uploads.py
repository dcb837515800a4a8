"""What a working copy uploads, and when: logs, tables, checkpoints, odd names."""

import errno
import os
import shutil
import threading
import time

import pytest
from runs_in_buckets import as_another_process, names, write_step

from jaxad.errors import RunError
from jaxad.storage import copies, working_copies
from jaxad.storage.buckets import Objects, StoreError
from jaxad.storage.workdir import Workdir, write_json

pytestmark = pytest.mark.usefixtures("no_working_copies")


def test_a_copy_that_was_deleted_does_not_delete_the_bucket(objects):
    """Cleaners of temporary folders do that."""
    objects.write("config.json", b"{}")
    workdir = Workdir(objects.url)
    message = "was deleted while the command was working on it; nothing more is uploaded"
    with pytest.raises(RunError, match=message), workdir.lock():
        shutil.rmtree(working_copies._copies[objects.url].place)
    assert names(objects) == ["config.json"]


def test_a_run_in_a_folder_named_checkpoints(objects):
    objects = Objects(f"{objects.url}/checkpoints")
    workdir = Workdir(objects.url)
    workdir.check_writable()
    with workdir.lock():
        write_json(workdir.evaluation("test") / "metrics.json", {})
        write_step(workdir, 5)
    assert names(objects) == ["checkpoints/5.tar", "eval/test/metrics.json"]


def test_a_log_is_uploaded_before_a_checkpoint(objects, uploaded):
    """A resumed run reads what was logged up to its checkpoint."""
    workdir = Workdir(objects.url)
    workdir.check_writable()
    with workdir.lock():
        write_step(workdir, 5)
        workdir.metrics.write_text("5\n6\n")
        os.utime(workdir.metrics, (2**31, 2**31))
    assert uploaded == ["metrics.jsonl", "checkpoints/5.tar"]


def test_of_files_of_the_same_time_a_json_file_is_the_last(objects, uploaded):
    workdir = Workdir(objects.url)
    workdir.check_writable()
    with workdir.lock():
        for name in ("a.json", "b.csv", "c.csv"):
            (workdir.path / name).touch()
            os.utime(workdir.path / name, (1, 1))
    assert uploaded[-1] == "a.json"


def test_a_log_that_grows_during_an_upload_is_uploaded_as_it_was(objects, monkeypatch):
    workdir = Workdir(objects.url)
    workdir.check_writable()
    go_on = threading.Event()
    put = Objects.put
    monkeypatch.setattr(Objects, "put", lambda o, paths: (go_on.wait(30), put(o, paths)))
    with workdir.lock():
        with workdir.metrics.open("a") as file:
            file.write("1\n")
            file.flush()
            workdir.publish()
            file.write("2\n")
        go_on.set()
        working_copies._copies[objects.url]._upload.result()
        assert objects.read("metrics.jsonl") == b"1\n"
    assert objects.read("metrics.jsonl") == b"1\n2\n"


def test_what_was_not_uploaded_is_uploaded_the_next_time(objects, monkeypatch):
    """A study continues after a run that the store has failed."""
    workdir = Workdir(objects.url)
    workdir.check_writable()
    put = Objects.put

    def fail(*_):
        raise StoreError("busy")

    with workdir.lock():
        (workdir.path / "a").touch()
        monkeypatch.setattr(Objects, "put", fail)
        with pytest.raises(RunError, match="busy"):
            workdir.publish(now=True)
        place = working_copies._copies[objects.url].place
        assert (place / "kept").exists()
        monkeypatch.setattr(Objects, "put", put)
    assert names(objects) == ["a"]
    assert not (place / "kept").exists()


@pytest.mark.parametrize("step", ["copies.pack", "shutil.copyfile"])
def test_a_local_disk_that_is_full_keeps_what_the_bucket_lacks(objects, monkeypatch, step):
    """Packing a checkpoint and copying a log need room on the disk of the copy."""

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    workdir = Workdir(objects.url)
    workdir.check_writable()
    message = "cannot be written .*No space left on device.*the files that it lacks are in"
    with pytest.raises(RunError, match=message), workdir.lock():
        write_step(workdir, 1)
        workdir.metrics.write_text("1")
        monkeypatch.setattr(f"jaxad.storage.working_copies.{step}", fail)
    working_copies._copies[objects.url]._close()  # as at the end of the process
    assert (workdir.checkpoints / "1/variables/data").exists()
    assert (working_copies._copies[objects.url].place / "kept").exists()


def test_a_run_that_was_taken_over_does_not_cost_the_others_of_its_study(objects):
    study = Workdir(objects.url)
    study.check_writable()
    with study.lock():
        first, second = (Workdir(study.path / "runs" / name) for name in "ab")
        first.check_writable()
        second.check_writable()
        with second.lock():
            write_step(second, 1)
        with pytest.raises(RunError, match="another process has taken over"), first.lock():
            write_step(first, 1)
            write_step(second, 2)
            working_copies._copies[objects.url]._leases[-1].is_lost = True
        assert not first.path.exists()
    assert names(objects.below("runs/a")) == []
    assert names(objects.below("runs/b")) == ["checkpoints/1.tar", "checkpoints/2.tar"]


def test_a_folder_inside_of_a_locked_one_is_copied_again_when_it_is_locked(objects):
    """Another command may have finished a run of a study."""
    study = Workdir(objects.url)
    run = Workdir(study.path / "runs/a")
    run.check_writable()
    with study.lock():
        study.study.write_text("{}")
        objects.write("runs/a/config.json", b"{}")
        with run.lock():
            assert run.config.exists()
            assert "study.json" in names(objects)


def test_files_that_vanish_and_links_that_lead_nowhere(objects):
    """Trackers make them."""
    workdir = Workdir(objects.url)
    workdir.check_writable()
    with workdir.lock():
        (workdir.path / "latest").symlink_to("nothing")
        (workdir.path / "a").touch()
    assert names(objects) == ["a"]


def test_folders_that_a_console_creates(objects):
    """They are empty objects whose names end with a slash."""
    files = objects._files
    bucket, _, folder = objects.url.partition("://")[2].partition("/")
    for name in (f"{folder}/", f"{folder}/eval/"):
        _create_mark(files, bucket, name)
    assert objects.find() == {}
    workdir = Workdir(objects.url)
    workdir.check_writable()
    with workdir.lock():
        (workdir.path / "a").touch()
    assert names(objects) == ["a"]


def _create_mark(files, bucket: str, name: str) -> None:
    """Creates an empty object; the methods of fsspec strip the slash."""
    from fsspec.asyn import sync

    if "s3" in files.protocol:
        sync(files.loop, files._call_s3, "put_object", Bucket=bucket, Key=name, Body=b"")
    else:
        from gcsfs.core import simple_upload

        sync(files.loop, simple_upload, files, bucket, name, b"")


@pytest.mark.parametrize("name", ["a b", "a%20b", "a#1", "a?b", "ä", "a+b", "a*[b]"])
def test_names_of_files(objects, name, monkeypatch):
    workdir = Workdir(objects.url)
    workdir.check_writable()
    with workdir.lock():
        (workdir.path / name).write_text(name)
    assert names(objects) == [name]
    as_another_process(monkeypatch)
    assert (Workdir(objects.url).path / name).read_text() == name


def test_a_name_that_is_not_utf_8(objects):
    workdir = Workdir(objects.url)
    workdir.check_writable()
    with workdir.lock():
        (workdir.path / os.fsdecode(b"a\xff")).touch()
    assert names(objects) == [r"a\xff"]


def test_copies_are_private_and_a_linked_cache_folder_shows_urls(bucket, tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "link"))
    path = Workdir(bucket).path
    assert f"{path.resolve()}" == bucket
    assert copies.base_folder().stat().st_mode & 0o77 == 0


def test_looking_for_changes_takes_little_of_the_time(objects, monkeypatch):
    workdir = Workdir(objects.url)
    workdir.check_writable()
    scan, scans = working_copies.WorkingCopy._scan, []

    def slow(self):
        scans.append(1)
        time.sleep(0.1)
        return scan(self)

    with workdir.lock():
        monkeypatch.setattr(working_copies.WorkingCopy, "_scan", slow)
        monkeypatch.setattr(working_copies, "_SCAN_SHARE", 0.01)
        for _ in range(5):
            workdir.publish()
        assert len(scans) == 1
        workdir.publish(now=True)
        assert len(scans) == 2
