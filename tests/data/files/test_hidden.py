"""Hidden files that systems leave beside others: ignored in folders, refused if named."""

import numpy as np
import pytest
from user_files import data_config, write_image, write_scan

from jaxad.data.files.tree import find_files, find_folders
from jaxad.data.readers.checks import is_hidden
from jaxad.data.replay import find_items, read_normals
from jaxad.data.sources import DataSet
from jaxad.errors import UserError

HIDDEN = ["._0.png", ".DS_Store", ".ipynb_checkpoints/0-checkpoint.png", "__MACOSX/._0.png",
              "__MACOSX/0.png", "Thumbs.db", "desktop.ini", "@eaDir/0.png",
              "$RECYCLE.BIN/0.png", "lost+found/0.png", "#recycle/0.png"]  # fmt: skip


@pytest.mark.parametrize("name", HIDDEN)
@pytest.mark.parametrize("place", ["", "train", "train/good", "test", "test/crack", "ground_truth"])
def test_hidden_files_in_a_folder_of_images(mvtec, name, place, capsys):
    items = find_items(mvtec / "test", data_config(mvtec))
    path = mvtec / place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    data_set = DataSet(data_config(mvtec))
    data_set.check()
    assert [len(data_set.split(split)) for split in data_set.split_names] == [9, 1, 4]
    assert find_items(mvtec / "test", data_config(mvtec)) == items
    assert len(read_normals(mvtec / "test/good", data_config("elsewhere"))) == 2
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["._train.npz", ".hidden.npz", "__MACOSX/train.npz", "Thumbs.db"])
def test_hidden_files_of_arrays(tmp_path, name):
    for split in ("train", "val"):
        images = np.random.default_rng(len(split)).random((4, 16, 16)).astype(np.float32)
        np.savez(tmp_path / f"{split}.npz", image=images)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"x")
    assert set(DataSet(data_config(tmp_path, "npz")).split_names) == {"train", "val"}


def test_hidden_files_of_scans(tmp_path):
    for number in range(5):
        write_scan(tmp_path / f"{number}.nii.gz", number)
    (tmp_path / "._0.nii.gz").write_bytes(b"x")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX/1.nii.gz").write_bytes(b"x")
    DataSet(data_config(tmp_path, "nifti")).check()
    assert len(find_items(tmp_path, data_config(tmp_path, "nifti"))) == 5


@pytest.mark.parametrize("name", ["._0.png", ".0.png", "Thumbs.db", "desktop.ini", "._list.csv"])
def test_a_hidden_file_that_is_named_itself_is_refused(mvtec, name):
    (mvtec / "test/crack" / name).write_bytes(b"x")
    data = data_config(mvtec)
    for use in (find_items, read_normals):
        with pytest.raises(UserError, match="is a hidden file, probably made by the operating"):
            use(mvtec / "test/crack" / name, data if use is find_items else data_config("no"))


def test_a_hidden_folder_that_is_named_itself_is_read(mvtec, monkeypatch):
    (mvtec / "test").rename(mvtec / ".test")
    assert len(find_items(mvtec / ".test", data_config(mvtec))) == 4
    monkeypatch.chdir(mvtec / ".test")
    assert len(find_items(mvtec / ".test/crack/..", data_config(mvtec))) == 4


@pytest.mark.parametrize(
    "name", ["x.png", "thumbs.png", "desktop.tif", "MACOSX", "_x.png", "eaDir"]
)
def test_other_names_are_not_hidden(tmp_path, name):
    assert not is_hidden(name)
    write_image(tmp_path / "a" / "x.png").rename(tmp_path / name)
    assert len(find_files(tmp_path, ("",))) == 1 and len(find_folders(tmp_path)) == 1
