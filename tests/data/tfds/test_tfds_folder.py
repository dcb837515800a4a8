"""The data folder of TFDS, and the removal of leftovers."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from jaxad.data.synthetic.icbm_synth import IcbmSynth, make_config
from jaxad.data.tfds import folder as tfds_folder
from jaxad.data.tfds import splits
from jaxad.errors import UserError
from jaxad.storage import data_copies
from jaxad.storage.buckets import Objects

DAY = 86_400


def test_the_config_precedes_the_variable_and_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", "/from/variable")
    monkeypatch.setenv("HOME", "/homes/ann")
    assert tfds_folder.data_folder(str(tmp_path / "a*"), "mnist") == str(tmp_path / "a*")
    assert tfds_folder.data_folder("", "mnist") == "/from/variable"
    monkeypatch.setenv("TFDS_DATA_DIR", "~/data")
    assert tfds_folder.data_folder("", "mnist") == "/homes/ann/data"
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert tfds_folder.data_folder("", "mnist") == "/homes/ann/tensorflow_datasets"


@pytest.mark.parametrize(
    ("root", "variable", "message"),
    [
        ("~nosuchuser/d", "", r"^config\.data\.root: '~nosuchuser/d': there is no user"),
        ("", "~nosuchuser/d", r"^\$TFDS_DATA_DIR: '~nosuchuser/d': there is no user"),
        (
            "/data/\udcff",
            "",
            r"^config\.data\.root: data folder '/data/\\xff': its name is not UTF",
        ),
    ],
)
def test_impossible_folders_are_named(monkeypatch, root, variable, message):
    monkeypatch.setenv("TFDS_DATA_DIR", variable)
    with pytest.raises(UserError, match=message):
        tfds_folder.data_folder(root, "mnist")


def test_without_a_home_folder_data_are_temporary(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(tfds_folder, "home_folder", lambda: None)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = tfds_folder.data_folder("", "mnist")
    assert found == str(tmp_path / f"jaxad-{os.getuid()}" / "tensorflow_datasets")
    assert capsys.readouterr().err.count("\n") == 1
    assert tfds_folder.data_folder("", "mnist") == found  # the next run finds them
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert tfds_folder.data_folder("", "mnist") == str(tmp_path / "cache/tensorflow_datasets")
    assert capsys.readouterr().err.count("\n") == 1  # of the call before
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(tfds_folder, "temporary_folder", lambda: None)
    with pytest.raises(UserError, match="no home folder for data; name a folder in --config.data"):
        tfds_folder.data_folder("", "mnist")


def test_data_of_a_read_only_home_folder_are_used_if_they_exist(monkeypatch, tmp_path):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tfds_folder, "is_writable", lambda _: False)
    assert tfds_folder.data_folder("", "mnist") == str(tmp_path / "cache/tensorflow_datasets")
    (tmp_path / "home/tensorflow_datasets").mkdir(parents=True)
    assert tfds_folder.data_folder("", "mnist") == str(tmp_path / "home/tensorflow_datasets")


def leftover(folder: Path, name: str, age: float) -> Path:
    """Makes incomplete data whose newest file is `age` seconds old."""
    path = folder / f"incomplete.{name}"
    (path / "sub").mkdir(parents=True)
    (path / "sub/shard").touch()
    now = (folder / "sub").stat().st_mtime if (folder / "sub").exists() else path.stat().st_mtime
    for one in (path, path / "sub"):  # older than the file in it
        os.utime(one, (now - age - DAY, now - age - DAY))
    os.utime(path / "sub/shard", (now - age, now - age))
    return path


@pytest.mark.parametrize("is_local", [True, False])
def test_recent_leftovers_stay_on_shared_file_systems(monkeypatch, tmp_path, is_local):
    """A lock may not be seen by other machines."""
    monkeypatch.setattr(tfds_folder, "_is_local", lambda path: is_local)
    old, new = (
        leftover(tmp_path, "OLD_1.0.0", 1.1 * DAY),
        leftover(tmp_path, "NEW_1.0.0", 0.5 * DAY),
    )
    (tmp_path / "1.0.0").mkdir()
    with tfds_folder.exclusive(str(tmp_path)):
        assert not old.exists()
        assert new.exists() == (not is_local)
    assert (tmp_path / "1.0.0").exists()


def test_vanishing_data_count_as_being_written(monkeypatch, tmp_path):
    path = leftover(tmp_path, "OLD_1.0.0", 2 * DAY)
    assert tfds_folder._last_change(path) < path.stat().st_ctime - DAY
    real = Path.rglob

    def vanishing(self, pattern):
        for one in list(real(self, pattern)):
            shutil.rmtree(path, ignore_errors=True)
            yield one

    monkeypatch.setattr(Path, "rglob", vanishing)
    assert tfds_folder._last_change(path) == float("inf")


MOUNTS = b"""\
1 0 8:1 / / rw - ext4 /dev/sda rw
2 1 0:40 / /home rw,relatime shared:1 - nfs4 server:/home rw
3 1 0:41 / /home/a\\040b rw - tmpfs none rw
4 1 0:42 / /gpfs rw - gpfs gpfs rw
5 1 0:43 / /tmp rw - ext4 /dev/sdb rw
6 1 0:44 / /tmp rw - cifs //server/tmp rw
"""


@pytest.mark.parametrize(
    ("place", "is_local"),
    [
        ("/data/x", True), ("/home/ann", False), ("/home/a b/c", True), ("/gpfs/x", False),
        ("/tmp/x", False),  # the later one hides the earlier
    ],
)  # fmt: skip
def test_file_systems_of_this_machine(monkeypatch, place, is_local):
    monkeypatch.setattr(Path, "read_bytes", lambda self: MOUNTS)
    monkeypatch.setattr(Path, "resolve", lambda self: self)
    assert tfds_folder._is_local(Path(place)) == is_local


def test_a_system_without_mountinfo_is_not_local(monkeypatch, tmp_path):
    def missing(self):
        raise FileNotFoundError("no such file")

    monkeypatch.setattr(Path, "read_bytes", missing)
    assert not tfds_folder._is_local(tmp_path)


def test_data_are_generated_once_for_a_bucket(bucket, monkeypatch, capsys):
    """What was not uploaded to the end is generated again."""
    monkeypatch.setattr(data_copies, "_copies", {})
    config = make_config(image_size=16, seed=0, num_subjects=(1, 1, 1, 1))

    def read():
        readers = splits.open_builder(IcbmSynth, config, bucket)
        return readers["test_objects"]().images

    generated = read()
    objects = Objects(bucket)
    names = set(objects.find())
    assert {name.partition("/")[0] for name in names} == {"icbm_synth"}
    info = next(name for name in names if name.endswith("/dataset_info.json"))
    monkeypatch.setattr(data_copies, "_copies", {})
    with monkeypatch.context() as patch:
        patch.setattr(IcbmSynth, "_generate_examples", None)
        np.testing.assert_array_equal(read(), generated)
    monkeypatch.setattr(data_copies, "_copies", {})
    objects.delete([info])
    np.testing.assert_array_equal(read(), generated)
    assert set(objects.find()) == names
