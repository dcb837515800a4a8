"""Folders in a bucket that a command works on."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest
from runs_in_buckets import as_another_process, names, write_step

from jaxad.errors import RunError, UserError
from jaxad.storage import copies, working_copies
from jaxad.storage.buckets import Objects, Refused, StoreError
from jaxad.storage.locations import locate
from jaxad.storage.workdir import Workdir, write_json

pytestmark = pytest.mark.usefixtures("no_working_copies")


def test_what_is_written_below_the_lock_is_in_the_bucket_for_others(objects, monkeypatch):
    workdir = Workdir(objects.url)
    workdir.check_writable(for_checkpoints=True)
    with workdir.lock():
        write_json(workdir.config, {"seed": 1})
        write_step(workdir, 5)
        (workdir.path / ".hidden").touch()
        (workdir.path / "checkpoints/6.orbax-checkpoint-tmp").mkdir()
        with workdir.metrics.open("a") as file:
            file.write("1\n")
    assert names(objects) == ["checkpoints/5.tar", "config.json", "metrics.jsonl"]
    as_another_process(monkeypatch)
    other = Workdir(objects.url)
    assert other.path != workdir.path
    assert json.loads(other.config.read_text()) == {"seed": 1}
    assert (other.checkpoints / "5/variables/data").read_text() == "arrays"
    assert other.metrics.read_text() == "1\n"


def test_messages_show_the_url_and_files_have_the_name_of_the_run(objects):
    path = Workdir(objects.url).evaluation("test")
    assert f"{path}" == f"{objects.url}/eval/test"
    assert f"{path.parent / 'x'}" == f"{objects.url}/eval/x"
    assert Path(str(path)).is_relative_to(os.environ["XDG_CACHE_HOME"])
    assert locate(objects.url).name == objects.name
    assert f"{locate(str(path))}" == f"{objects.url}/eval/test"


def test_only_what_changed_is_uploaded(objects, monkeypatch, uploaded):
    workdir = Workdir(objects.url)
    workdir.check_writable()
    uploaded.clear()
    with workdir.lock():
        write_json(workdir.config, {"a": 1})
        write_step(workdir, 1)
        working_copies.publish(workdir.path, now=True)
        (workdir.path / "report.html").write_text("report")
    assert uploaded == ["config.json", "checkpoints/1.tar", "report.html"]
    uploaded.clear()
    as_another_process(monkeypatch)
    workdir = Workdir(objects.url)
    with workdir.lock():
        (workdir.path / "report.html").unlink()
        write_step(workdir, 2)
        shutil.rmtree(workdir.checkpoints / "1")
    assert uploaded == ["checkpoints/2.tar"]
    assert names(objects) == ["checkpoints/2.tar", "config.json"]


def test_files_are_uploaded_in_the_order_in_which_they_were_written(objects, monkeypatch):
    """JSON files say that what was written before them is complete."""
    workdir = Workdir(objects.url)
    workdir.check_writable()
    groups = []
    put = Objects.put
    monkeypatch.setattr(
        Objects, "put", lambda o, paths: (groups.append(list(paths)), put(o, paths))[1]
    )
    with workdir.lock():
        for number, name in enumerate(["a.json", "c.csv", "b.png", "m.json", "z.csv"]):
            (workdir.path / name).write_text("")
            os.utime(workdir.path / name, (number + 1, number + 1))
    assert [group for group in groups if group] == [
        ["a.json"], ["c.csv", "b.png"], ["m.json"], ["z.csv"]
    ]  # fmt: skip


def test_a_checkpoint_is_complete_or_absent(objects, monkeypatch):
    """A store that fails in the middle leaves the checkpoint before it."""
    workdir = Workdir(objects.url)
    workdir.check_writable()
    put = Objects.put

    def fail(self, paths):
        if any(name.startswith("checkpoints/2") for name in paths):
            raise StoreError("it cannot be reached")
        put(self, paths)

    with (
        pytest.raises(RunError, match="cannot be written .it cannot be reached.; what it holds is"),
        workdir.lock(),
    ):
        write_step(workdir, 1)
        working_copies.publish(workdir.path, now=True)
        monkeypatch.setattr(Objects, "put", fail)
        write_step(workdir, 2)
    monkeypatch.setattr(Objects, "put", put)
    assert names(objects) == ["checkpoints/1.tar"]
    as_another_process(monkeypatch)
    with Workdir(objects.url).lock():  # it was released
        pass
    assert (workdir.checkpoints / "2/variables/data").exists()  # where the message says


def test_a_store_that_fails_for_a_while_is_tried_again(objects, monkeypatch, capsys):
    workdir = Workdir(objects.url)
    workdir.check_writable()
    put, left = Objects.put, [StoreError("busy"), StoreError("busy")]

    def fail_twice(self, paths):
        if left:
            raise left.pop()
        put(self, paths)

    monkeypatch.setattr(Objects, "put", fail_twice)
    with workdir.lock():
        (workdir.path / "report.html").write_text("report")
    assert names(objects) == ["report.html"]
    assert capsys.readouterr().err.count(f"'{objects.url}' cannot be written (busy); trying") == 2


def test_an_error_of_the_command_is_reported_before_that_of_the_bucket(objects, monkeypatch):
    workdir = Workdir(objects.url)
    workdir.check_writable()

    def fail(*_):
        raise StoreError("busy")

    with pytest.raises(ZeroDivisionError), workdir.lock():
        monkeypatch.setattr(Objects, "put", fail)
        (workdir.path / "a").touch()
        1 / 0  # noqa: B018


def test_an_upload_does_not_hold_up_training_and_takes_a_state_that_stays(objects, monkeypatch):
    """Files that change, or go, during an upload are uploaded as they were."""
    workdir = Workdir(objects.url)
    workdir.check_writable()
    begun, go_on = threading.Event(), threading.Event()
    put = Objects.put

    def slow(self, paths):
        begun.set()
        assert go_on.wait(30)
        put(self, paths)

    with workdir.lock():
        write_step(workdir, 1)
        write_json(workdir.config, {"a": 1})
        monkeypatch.setattr(Objects, "put", slow)
        workdir.publish()
        assert begun.wait(30)
        write_json(workdir.config, {"a": 2})
        shutil.rmtree(workdir.checkpoints / "1")
        write_step(workdir, 2)
        workdir.publish()  # does nothing yet
        go_on.set()
        working_copies._copies[objects.url]._upload.result()
        assert names(objects) == ["checkpoints/1.tar", "config.json"]
        assert objects.read("config.json") == b'{\n  "a": 1\n}\n'
    assert names(objects) == ["checkpoints/2.tar", "config.json"]
    assert objects.read("config.json") == b'{\n  "a": 2\n}\n'


def test_without_the_lock_nothing_is_uploaded(objects):
    workdir = Workdir(objects.url)
    workdir.check_writable()
    (workdir.path / "a").touch()
    workdir.publish()
    assert names(objects) == []


def test_a_copy_follows_the_bucket(objects):
    objects.write("a.json", b"1")
    path = locate(objects.url)
    assert (path / "a.json").read_text() == "1"
    objects.write("a.json", b"22")
    objects.write("eval/b", b"")
    assert (locate(objects.url) / "a.json").read_text() == "22"
    assert (path / "eval/b").exists()
    objects.delete(["a.json"])
    locate(objects.url)
    assert not (path / "a.json").exists()


def test_objects_that_go_while_they_are_read(objects, monkeypatch):
    """A run that is training deletes its older checkpoints."""
    objects.write("old", b"")
    objects.write("stays", b"")
    find, calls = Objects.find, []

    def find_first(self):
        found = find(self)
        if not calls:
            self.delete(["old"])
        calls.append(1)
        return found

    monkeypatch.setattr(Objects, "find", find_first)
    path = locate(objects.url)
    assert sorted(file.name for file in path.iterdir()) == ["stays"]


def test_names_that_lead_out_of_the_folder_are_left_alone(objects, tmp_path):
    objects.write("a/../../../../evil", b"")
    archive = tmp_path / "5.tar"
    with tarfile.open(archive, "w") as file:
        file.add(__file__, arcname="../../evil")
    objects.put({"x": archive})
    locate(objects.url)
    assert not list(tmp_path.rglob("evil"))
    objects.put({"checkpoints/5.tar": archive})
    path = locate(objects.url)
    assert not list(tmp_path.rglob("evil"))
    assert list((path / "checkpoints/5").iterdir()) == []


def test_an_exported_file_in_a_bucket(objects):
    objects.write("detector.jaxad", b"content")
    path = locate(f"{objects.url}/detector.jaxad")
    assert path.is_file()
    assert path.read_bytes() == b"content"
    assert f"{path}" == f"{objects.url}/detector.jaxad"


def test_copies_of_ended_processes_are_deleted(objects, monkeypatch):
    code = "import sys; from jaxad.storage.locations import locate; import os\n"
    code += "print(os.fspath(locate(sys.argv[1])), flush=True); os._exit(0)"
    ended = subprocess.run(
        [sys.executable, "-c", code, objects.url], capture_output=True, text=True, check=True
    )
    place = Path(ended.stdout.strip()).parent.parent
    assert place.exists()
    mine = locate(objects.url)
    assert not place.exists()
    as_another_process(monkeypatch)
    locate(objects.url)
    assert Path(str(mine)).parent.parent.exists()  # the owner lives


def test_a_file_system_without_hard_links(objects, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError()))
    workdir = Workdir(objects.url)
    workdir.check_writable()
    with workdir.lock():
        write_step(workdir, 1)
        (workdir.path / "a").write_text("a")
    assert names(objects) == ["a", "checkpoints/1.tar"]


def test_a_bucket_that_does_not_exist_is_one_line(bucket):
    url = bucket.replace("jaxad-test", "no-such-bucket")
    with pytest.raises(UserError, match=f"workdir: '{url}': there is no such bucket"):
        Workdir(url)


def test_a_bucket_that_may_only_be_read_is_refused_before_anything_is_done(objects, monkeypatch):
    objects.write("config.json", b"{}")
    workdir = Workdir(objects.url)

    def refuse(*_):
        raise Refused("the credentials do not allow it")

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "write", refuse)
        with pytest.raises(UserError, match=f"workdir: '{objects.url}': the credentials do not"):
            workdir.check_writable()
    workdir.check_writable()
    assert list(objects.find()) == ["config.json"]


def test_no_folder_for_copies(bucket, monkeypatch):
    monkeypatch.setattr(copies, "cache_folder", lambda: None)
    monkeypatch.setattr(copies, "temporary_folder", lambda: None)
    with pytest.raises(UserError, match="set XDG_CACHE_HOME"):
        Workdir(bucket)


def test_a_folder_that_was_taken_over_is_copied_anew(objects):
    workdir = Workdir(objects.url)
    workdir.check_writable()
    with pytest.raises(RunError, match="another process has taken over"), workdir.lock():
        write_json(workdir.config, {"a": 1})
        working_copies._copies[objects.url]._leases[0].is_lost = True
    objects.write("config.json", b"{}")
    assert json.loads(Workdir(objects.url).config.read_text()) == {}
