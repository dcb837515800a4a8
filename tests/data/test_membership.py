"""A run notices that its training splits have changed."""

import json

import numpy as np
import pytest
from user_files import data_config, write_image

from jaxad.data import membership
from jaxad.data.sources import DataSet
from jaxad.errors import UserError
from jaxad.storage.workdir import Workdir


@pytest.fixture
def run(mvtec, tmp_path):
    """The workdir of a run that has begun on ten images, one of them in `val`."""
    folder = Workdir(tmp_path / "run")
    membership.remember(folder, DataSet(data_config(mvtec)))
    return folder


def test_members_of_training_splits_are_written(run, mvtec):
    kept = json.loads(run.splits.read_text())
    assert {name: split["images"] for name, split in kept.items()} == {"train": 9, "val": 1}
    both = kept["train"]["patients"] + kept["val"]["patients"]
    assert sorted(both) == [f"train/good/{n:02d}.png" for n in range(10)]
    membership.check(run, DataSet(data_config(mvtec)))
    before = run.splits.read_bytes()
    membership.remember(run, DataSet(data_config(mvtec, val_share=0.5)))
    assert run.splits.read_bytes() == before  # what the run began with stays


def test_an_added_file_is_refused(run, mvtec):
    write_image(mvtec / "train/good/99.png", 77)
    with pytest.raises(
        UserError, match=r"split '(train|val)' is not what it was.*train again"
    ) as raised:
        membership.check(run, DataSet(data_config(mvtec)))
    assert "\n" not in str(raised.value)


def test_a_removed_file_is_refused(run, mvtec):
    (mvtec / "train/good/00.png").unlink()
    with pytest.raises(UserError, match="1 patient removed, such as 'train/good/00.png'"):
        membership.check(run, DataSet(data_config(mvtec)))


def test_other_images_of_the_same_patients_are_refused(mvtec, tmp_path):
    data = data_config(mvtec, group_pattern=r"(\d)\.png")
    folder = Workdir(tmp_path / "run")
    membership.remember(folder, DataSet(data))
    patient = json.loads(folder.splits.read_text())["train"]["patients"][0]
    write_image(mvtec / f"train/good/1{patient}.png", 77)
    with pytest.raises(UserError, match="10 images of the same patients instead of 9"):
        membership.check(folder, DataSet(data))


def test_a_test_split_may_grow(run, mvtec):
    write_image(mvtec / "test/good/99.png", 77)
    membership.check(run, DataSet(data_config(mvtec)))


def test_processes_that_read_other_images_are_refused(mvtec, monkeypatch):
    digests = []

    def of_all(digest):
        digests.append(digest)
        return digests

    monkeypatch.setattr(membership.processes, "are_several", lambda: True)
    monkeypatch.setattr(membership.processes, "of_all", of_all)
    membership.check_processes(DataSet(data_config(mvtec)))
    membership.check_processes(DataSet(data_config(mvtec)))
    assert np.array(digests, np.int32).tolist() == digests  # what processes exchange
    write_image(mvtec / "test/good/99.png", 77)
    with pytest.raises(UserError, match="the processes read different images"):
        membership.check_processes(DataSet(data_config(mvtec)))


def test_a_run_without_a_list_passes_and_a_damaged_list_is_named(mvtec, tmp_path):
    folder = Workdir(tmp_path)
    membership.check(folder, DataSet(data_config(mvtec)))
    folder.splits.write_text("{")
    with pytest.raises(UserError, match=r"splits\.json' cannot be read"):
        membership.check(folder, DataSet(data_config(mvtec)))


def test_initial_weights_that_were_trained_on_what_is_tested_are_reported(run, mvtec, capsys):
    membership.warn_of_trained(run, DataSet(data_config(mvtec)))
    assert "init_from" not in capsys.readouterr().err
    membership.warn_of_trained(run, DataSet(data_config(mvtec, seed=1)))  # draws another val
    err = capsys.readouterr().err
    assert err.count("init_from") == 1
    assert "1 of 1 patients of 'val' have the same names as patients that " in err
    assert "was trained on, such as 'train/good/0" in err
