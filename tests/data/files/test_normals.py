"""Normal images of another site: hints at anomalies among them, and the run's own data."""

import json

import numpy as np
import pytest
from user_files import data_config, write_image, write_scan, write_scans

from jaxad.data import membership
from jaxad.data.files.normals import check_apart, check_one_class
from jaxad.data.files.splitting import Splitting
from jaxad.data.replay import read_files, read_normals
from jaxad.errors import UserError
from jaxad.storage import data_copies
from jaxad.storage.buckets import Objects
from jaxad.storage.locations import locate_data
from jaxad.storage.workdir import Workdir

# --- Masks.


@pytest.mark.parametrize("name", ["brats2017", "brats2021", "hcp"])
@pytest.mark.parametrize("mask", ["x_seg.nii.gz", "x_t2_mask.nii.gz", "y_label.nii"])
def test_masks_of_scans_are_not_dropped_by_runs_on_published_sets(tmp_path, name, mask):
    write_scans(tmp_path / "site", ("x_flair", "x_t2", "y"), mask.removesuffix(".gz") + ".gz")
    with pytest.raises(UserError, match=f"{mask}.*: is named like a mask, but a run on {name} cal"):
        read_normals(tmp_path / "site", data_config("", name))
    # The remedy: without the mask and the scan that it marks.
    for path in (tmp_path / "site").glob("[xy]_[sml]*"):
        path.unlink()
    for path in (tmp_path / "site").glob("x_t2_mask*"):
        path.unlink()
    data = data_config("", name, volume__slices=(1, -1), volume__field_of_view=16.0)
    assert len(read_normals(tmp_path / "site", data))


# --- Classes.


def _tree(root, *folders):
    for seed, folder in enumerate(folders):
        write_image(root / folder / f"{seed}.png", 100 + seed)
    return root


@pytest.mark.parametrize(
    ("folders", "other", "normal"),
    [
        (("NORMAL", "PNEUMONIA"), "PNEUMONIA", "NORMAL"),
        (("test/good", "test/crack"), "test/crack", "test/good"),
        (("train/good", "test/crack"), "test", "train"),
        (("healthy/p1", "healthy/p2", "tumour/p3"), "tumour", "healthy"),
        (("a/b/No Finding", "a/b/nodule/x"), "a/b/nodule", "a/b/No Finding"),
        (("site 1/good", "site 1/scratch", "site 2/good"), "site 1/scratch", "site 1/good"),
    ],
)
def test_classes_beside_a_normal_one_are_refused(tmp_path, folders, other, normal):
    site = _tree(tmp_path / "site", *folders)
    message = f"site: holds '{other}' beside '{normal}', so not all in it may be normal; name the"
    with pytest.raises(UserError, match=message):
        read_normals(site, data_config(""))
    assert len(read_files(site, data_config(""))) == len(folders)  # accepted for scoring
    # The remedy: the normal folder.
    first = next(part for part in folders if part.startswith(normal))
    assert len(read_normals(site / first, data_config("")))


@pytest.mark.parametrize(
    "folders",
    [
        ("NORMAL",),
        ("train/good", "test/good"),
        ("good/p1", "good/p2"),
        ("p1", "p2"),
        ("normal", "healthy"),
        ("train", "val"),
        ("", "more"),
        ("", "good"),
    ],
)
def test_folders_that_may_all_be_normal_are_read(tmp_path, folders):
    site = _tree(tmp_path / "site", *folders)
    assert len(read_normals(site, data_config(""))) == len(folders)


def test_what_is_listed_as_normal_is(tmp_path):
    site = _tree(tmp_path / "site", "0", "1")
    assert len(read_normals(site, data_config(""))) == 2
    with pytest.raises(UserError, match="holds '1' beside '0'"):
        read_normals(site, data_config("", normal_classes=("0",)))
    assert len(read_normals(site, data_config("", normal_classes=("0", "1")))) == 2


def test_folders_of_series_are_classes_too(tmp_path):
    series = [tmp_path / "normal", tmp_path / "lesion"]
    for folder in series:
        folder.mkdir()
    with pytest.raises(UserError, match="holds 'lesion' beside 'normal'"):
        check_one_class(tmp_path, series, Splitting())


def test_folders_of_scans_are_classes_too(tmp_path):
    for seed, name in enumerate(("control/a", "stroke/b")):
        write_scan(tmp_path / f"{name}.nii.gz", seed)
    with pytest.raises(UserError, match="holds 'stroke' beside 'control'"):
        read_normals(tmp_path, data_config("", "nifti"))


# --- The run's own data.


def test_the_arrays_of_a_run_are_its_own(tmp_path):
    for seed, path in enumerate(("own/train", "own/val", "own/test_a", "own/more/x", "site")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        images = np.random.default_rng(seed).integers(1, 255, (3, 16, 16), np.uint8)
        np.savez(tmp_path / f"{path}.npz", image=images, group=np.array(list("abc")))
    data = data_config(tmp_path / "own", "npz")
    for name in ("train", "val", "test_a"):
        with pytest.raises(UserError, match=f"{name}.npz: lies in the run's own data, '.*own'; "):
            read_normals(tmp_path / f"own/{name}.npz", data)
    assert len(read_normals(tmp_path / "site.npz", data)) == 3
    assert len(read_normals(tmp_path / "own/more/x.npz", data)) == 3  # no split lies there


def test_the_arrays_of_a_run_in_the_working_directory(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(1, 255, (3, 16, 16), np.uint8)
    np.savez(tmp_path / "train.npz", image=images, group=np.array(list("abc")))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="lies in the run's own data, '.'"):
        read_normals(tmp_path / "train.npz", data_config("", "npz"))


def test_what_the_table_of_a_run_lists_is_its_own(mvtec):
    names = [f"train/good/{number:02d}.png" for number in range(10)]
    table = mvtec / "list.csv"
    table.write_text("\n".join(["path,label", *(f"{name},0" for name in names)]))
    _tree(mvtec, "site2/good")
    data = data_config(table)
    for place in ("train/good", "train", "", "train/good/03.png", "list.csv"):
        with pytest.raises(UserError, match="(lies in|holds) the run's own data, '.*list.csv'"):
            read_normals(mvtec / place, data)
    other = mvtec / "other.csv"
    other.write_text("path,label\ntest/good/0.png,0\ntrain/good/07.png,0")
    with pytest.raises(UserError, match=r"lists '.*train/good/07.png' of the run's own data"):
        read_normals(other, data)
    # Other files beside them are accepted.
    other.write_text("path,label\ntest/good/0.png,0\ntest/good/1.png,0")
    assert len(read_normals(other, data)) == 2
    assert len(read_normals(mvtec / "site2", data)) == 1


def test_a_table_or_a_folder_above_may_hold_the_run_s_own_data(tmp_path):
    own = _tree(tmp_path / "data/own", "train/good", "test/good")
    data = data_config(own)
    with pytest.raises(UserError, match=f"data: holds the run's own data, '{own}'"):
        read_normals(tmp_path / "data", data)
    table = tmp_path / "data/list.csv"
    table.write_text("path,label\nown/train/good/0.png,0")
    with pytest.raises(UserError, match=r"lists '.*/0.png' of the run's own data"):
        read_normals(table, data)
    assert len(read_normals(_tree(tmp_path / "site", "good"), data)) == 1


def test_the_data_of_config_data_test_are_the_run_s_own(tmp_path):
    other = _tree(tmp_path / "other", "test/good")
    data = data_config(tmp_path / "own", test__name="folder", test__root=str(other))
    with pytest.raises(UserError, match=f"lies in the run's own data, '{other}'"):
        read_normals(other / "test/good", data)


def test_patients_of_the_names_of_the_run_s_are_reported(tmp_path, capsys):
    site = _tree(tmp_path / "site", "P1", "P2", "P3")
    split = read_normals(site, data_config("", group_pattern=r"P\d"))
    run = Workdir(tmp_path / "run")
    membership.warn_of_names(
        run, set(split.groups), "--normals=site", "they mislead"
    )  # a run without splits.json
    run.splits.parent.mkdir()
    members = {"images": 1, "order_of_images": ""}
    kept = {"train": {**members, "patients": ["P2"]}, "val": {**members, "patients": ["P9"]}}
    run.splits.write_text(json.dumps(kept))
    membership.warn_of_names(run, set(split.groups), "--normals=site", "they mislead")
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert (
        "warning: --normals=site: 1 of 3 patients have the same names as patients that the run"
        in text
    )
    kept["train"]["patients"] = ["P10"]
    run.splits.write_text(json.dumps(kept))
    membership.warn_of_names(run, set(split.groups), "--normals=site", "they mislead")
    assert capsys.readouterr().err == ""


def test_the_data_of_a_run_in_a_bucket(bucket):
    """They lie in other copies than the images of the flag, and are not downloaded."""
    for name in ("data/train/0.png", "other/0.png"):
        Objects(bucket).write(name, b"image")
    options = {"is_npz": False, "flag": "--normals", "remedy": "leave it out"}
    own = locate_data(f"{bucket}/data/train")
    with pytest.raises(UserError, match="data/train: lies in the run's own data, '.*data/'"):
        check_apart(own, f"{bucket}/data/", **options)
    with pytest.raises(UserError, match="holds the run's own data"):
        check_apart(own, f"{bucket}/data/train/0.png", **options)
    check_apart(locate_data(f"{bucket}/other"), f"{bucket}/data", **options)
    assert f"{bucket}/data" not in data_copies._copies
