"""The folder of a run: atomic writes, the lock, and the config that it belongs to."""

import errno
import json
import os
import stat
import sys
import types

import pytest

from jaxad import config as config_lib
from jaxad.config import run_config
from jaxad.errors import RunError, UserError
from jaxad.storage.workdir import Workdir, atomic_write, removed_if_empty, write_json


def _names(folder):
    """Returns the names of all files in a folder, with hidden ones."""
    return [path.name for path in folder.iterdir()]


@pytest.fixture
def config():
    return config_lib.get_config("pchvae:smoke")


# --- Atomic writing.


@pytest.mark.parametrize(("mode", "old", "new"), [("w", "old", "néw\n"), ("wb", b"old", b"\xff\n")])
def test_atomic_write_replaces_the_file(tmp_path, mode, old, new):
    path = tmp_path / "folder" / "file"  # the folder is made
    for content in (old, new):
        with atomic_write(path, mode) as file:
            file.write(content)
    read = path.read_bytes() if mode == "wb" else path.read_text(encoding="utf-8")
    assert read == new
    assert _names(path.parent) == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_raises_leaves_the_old_file_and_no_temporary_one(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(error), atomic_write(path) as file:
        file.write("half of the new")
        file.flush()
        raise error
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["file"]


def test_the_file_is_not_there_before_the_block_ends(tmp_path):
    path = tmp_path / "file"
    with atomic_write(path) as file:
        file.write("new")
        file.flush()
        assert not path.exists()
        # In the same folder, so that renaming is one step on every file system.
        assert len(_names(tmp_path)) == 1
    assert path.read_text() == "new"


def test_a_folder_in_the_way_leaves_no_temporary_file(tmp_path):
    (tmp_path / "file" / "content").mkdir(parents=True)
    with pytest.raises(OSError), atomic_write(tmp_path / "file") as file:
        file.write("new")
    assert _names(tmp_path) == ["file"]


@pytest.mark.parametrize(("umask", "permissions"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_permissions_follow_the_umask(tmp_path, umask, permissions):
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "file") as file:
            file.write("new")
        assert os.umask(umask) == umask  # and it is as it was
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == permissions


def test_the_error_of_a_full_disk_names_the_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")

    def fsync(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError) as raised, atomic_write(path) as file:
        file.write("new")
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["file"]


def test_the_lock_deletes_what_a_killed_process_left(tmp_path):
    places = [".a.json.x1.tmp", "eval/test/.b.csv.x2.tmp", "figures/.c.png.x3.tmp",
              "maps/d/e/.f.png.x4.tmp", ".profile.x5/trace.pb"]  # fmt: skip
    kept = ["a.tmp", ".hidden", "checkpoints/.g.tmp", "other/.h.x5.tmp", "profile/table.json"]
    for place in (*places, *kept):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text("half")
    with Workdir(tmp_path).lock():
        assert not any((tmp_path / place).exists() for place in places)
        assert all((tmp_path / place).exists() for place in kept)
        # Without the lock nothing is deleted.
        (tmp_path / places[0]).write_text("half")
        with pytest.raises(UserError), Workdir(tmp_path).lock():
            pass
        assert (tmp_path / places[0]).exists()


def test_temporary_files_are_those_that_the_lock_removes(tmp_path):
    with atomic_write(tmp_path / "file") as file:
        file.write("new")
        (name,) = _names(tmp_path)
        assert name.startswith(".file.") and name.endswith(".tmp")


def test_line_ends_are_not_translated(tmp_path):
    with atomic_write(tmp_path / "file") as file:
        file.write("a\r\nb\n")
    assert (tmp_path / "file").read_bytes() == b"a\r\nb\n"


def test_json_keeps_the_order_of_keys_and_refuses_nan(tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, {"b": 1, "a": None})
    assert path.read_text() == '{\n  "b": 1,\n  "a": null\n}\n'
    with pytest.raises(ValueError):
        write_json(path, {"b": float("nan")})
    assert path.read_text().startswith('{\n  "b": 1')  # the old file
    assert _names(tmp_path) == ["metrics.json"]


# --- The run's folder.


def test_home_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Workdir("~/runs/demo").path == tmp_path / "runs" / "demo"


def test_write_keeps_the_config_and_check_does_not(tmp_path, config):
    run = Workdir(tmp_path / "runs" / "new")
    run_config.check(run, config)
    assert _names(run.path) == []
    run_config.write(run, config)
    assert _names(run.path) == ["config.json"]
    assert run_config.read(run).to_dict() == config.to_dict()


@pytest.mark.parametrize("keeps", [True, False])
def test_a_failed_block_leaves_no_empty_folder(tmp_path, keeps):
    folder = tmp_path / "runs" / "new"
    with pytest.raises(UserError), removed_if_empty(folder):
        folder.mkdir(parents=True)
        if keeps:
            (folder / "file").touch()
        raise UserError("a mistake.")
    assert _names(tmp_path) == (["runs"] if keeps else [])
    with pytest.raises(UserError), removed_if_empty(tmp_path):  # it was there before
        raise UserError("a mistake.")
    assert tmp_path.exists()


def test_the_same_config_is_accepted_again(tmp_path, config):
    run = Workdir(tmp_path)
    run_config.write(run, config)
    written = run.config.stat().st_mtime_ns
    run_config.write(run, config_lib.get_config("pchvae:smoke"))
    run_config.check(run, run_config.read(run))
    assert run.config.stat().st_mtime_ns == written


@pytest.mark.parametrize("method", ["write", "check"])
def test_another_config_is_refused_with_the_difference(tmp_path, config, method):
    run = Workdir(tmp_path)
    run_config.write(run, config)
    before = run.config.read_text()
    config.seed = 5
    with pytest.raises(UserError) as raised:
        getattr(run_config, method)(run, config)
    assert str(raised.value) == (
        f"workdir '{tmp_path}' holds a run of another config; choose another --workdir or undo "
        "the difference: config.seed: 0 -> 5."
    )
    assert run.config.read_text() == before


def test_fields_of_the_evaluation_may_change_before_an_evaluation(tmp_path, config):
    run = Workdir(tmp_path)
    run_config.write(run, config)
    metrics = run.evaluation("test") / "metrics.json"
    metrics.parent.mkdir(parents=True)
    metrics.touch()
    run_config.update_evaluation(run, config)
    assert metrics.exists()  # nothing differs
    config.evaluate.metrics, config.parallel = ("my:metric",), "pmap"
    with pytest.raises(UserError, match=r"evaluate\.metrics: \(\) -> \('my:metric',\)\.$"):
        run_config.check(run, config)
    run_config.check(run, config, evaluates=True)
    run_config.update_evaluation(run, config)
    stored = run_config.read(run)
    assert (stored.evaluate.metrics, stored.parallel) == (("my:metric",), "jit")
    assert not metrics.exists()  # of the old fields
    config.evaluate.batch_size += 1  # also of the validation in training
    with pytest.raises(UserError, match=r"difference: config\.evaluate\.batch_size: 64 -> 65\.$"):
        run_config.check(run, config, evaluates=True)


def test_fields_of_the_evaluation_do_not_matter_for_training_alone(tmp_path, config):
    run = Workdir(tmp_path)
    config.evaluate.num_examples = 7
    run_config.write(run, config)
    original = config_lib.get_config("pchvae:smoke")
    assert original.evaluate.num_examples != 7
    checked = run_config.check(run, original, trains=True)
    assert checked.evaluate.num_examples == 7
    run_config.write(run, original)
    assert run_config.read(run).evaluate.num_examples == 7
    # A command that also evaluates gets its own values.
    checked = run_config.check(run, original, trains=True, evaluates=True)
    assert checked.evaluate.num_examples == original.evaluate.num_examples


def test_changed_source_files_of_external_objects_are_a_warning(
    tmp_path, config, monkeypatch, capsys
):
    file, run = tmp_path / "my_module.py", Workdir(tmp_path / "run")
    file.write_text("version = 1")
    monkeypatch.setitem(sys.modules, "my_module", types.SimpleNamespace(__file__=str(file)))
    config.model.name, config.data.name = "my_module:Model", "tfds:mnist"
    run_config.write(run, config)
    run_config.write(run, config)
    assert list(json.loads(run.sources.read_text())) == ["my_module:Model"]
    assert not capsys.readouterr().err
    file.write_text("version = 2")
    run_config.write(run, config)
    assert "the source file of 'my_module:Model' has changed since" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["write", "check"])
@pytest.mark.parametrize("below", [True, False], ids=["below-a-file", "is-a-file"])
def test_a_workdir_that_is_a_file_or_below_one_is_named(tmp_path, config, method, below):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "run" if below else tmp_path / "file"
    with pytest.raises(UserError, match=rf"workdir '{path}'.* is a file; name a folder"):
        getattr(run_config, method)(Workdir(path), config)


def test_reading_from_a_folder_without_a_run(tmp_path):
    for path, problem in ((tmp_path, "holds no config"), (tmp_path / "missing", "no such folder")):
        with pytest.raises(UserError, match=f"workdir '{path}': {problem}"):
            run_config.read(Workdir(path))
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("content", [b"", b'{"seed": 0', b"[]", b"null", b"\xff\xfe"])
def test_a_damaged_config_is_named(tmp_path, config, content):
    run = Workdir(tmp_path)
    run.config.write_bytes(content)
    for act in (lambda: run_config.read(run), lambda: run_config.check(run, config)):
        with pytest.raises(UserError, match=r"config\.json' cannot be read \("):
            act()


def test_a_second_process_is_refused(tmp_path):
    """flock belongs to the open file, so a second one in this process stands for another."""
    first, second = Workdir(tmp_path), Workdir(tmp_path)
    with first.lock(), pytest.raises(UserError, match="another process is using it"), second.lock():
        raise AssertionError("both hold the folder")
    with second.lock():
        pass


def test_the_folder_of_a_study_is_refused_for_a_run(tmp_path):
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(UserError, match="holds a study; choose another --workdir"):
        run_config.check(Workdir(tmp_path), config_lib.get_config("pchvae:smoke"))
    assert [path.name for path in tmp_path.iterdir()] == ["study.json"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_folder_on_a_full_disk_is_a_failed_run(tmp_path, monkeypatch, number):
    def refuse(**_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(
        RunError, match=rf"workdir '.*' cannot take more files \({os.strerror(number)}\); "
    ):
        Workdir(tmp_path).check_writable()


def test_a_config_of_another_version_is_one_line(tmp_path, config):
    run = Workdir(tmp_path)
    with config.unlocked():
        del config.evaluate["metrics"]
    run.config.write_text(config_lib.to_json(config))
    with pytest.raises(
        UserError, match=r"has no config\.evaluate\.metrics, because another version"
    ):
        run_config.read(run)
