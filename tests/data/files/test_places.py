"""Names of folders: letter case, synonyms, two spellings, unknown names."""

import shutil

import numpy as np
import pytest
from user_files import data_config, write_image, write_mask, write_scan

from jaxad.data.replay import find_items, read_normals
from jaxad.data.sources import DataSet
from jaxad.errors import UserError


def _labels(root, **changes):
    return DataSet(data_config(root, **changes)).split("test").labels.tolist()


def _rename(root, place, name):
    """Renames via another name: some file systems ignore a change of letter case."""
    (root / place).rename((root / place).with_name("between")).rename(
        (root / place).with_name(name)
    )


# --- Clear names.


@pytest.mark.parametrize("name", ["Good", "GOOD", "NORMAL", "Normal"])
def test_normal_folders_in_any_letter_case(mvtec, name):
    _rename(mvtec, "test/good", name)
    _rename(mvtec, "train/good", name)
    assert sorted(_labels(mvtec)) == [0, 0, 1, 1]
    assert sorted(_labels(mvtec, normal_classes=(name.lower(),))) == [0, 0, 1, 1]


@pytest.mark.parametrize(
    "name",
    ["Ground_Truth", "GROUND_TRUTH", "GroundTruth", "groundtruth", "ground truth", "ground-truth"],
)
def test_ground_truth_however_it_is_written(mvtec, name, capsys):
    _rename(mvtec, "ground_truth", name)
    masks = DataSet(data_config(mvtec)).split("test").masks
    assert masks.any(axis=(1, 2)).tolist() == [True, True, False, False]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("val", ["VAL", "valid", "Valid", "validation", "Validation"])
@pytest.mark.parametrize(("train", "test"), [("Train", "TEST"), ("TRAIN", "Test")])
def test_splits_in_any_letter_case(mvtec, train, val, test):
    write_image(mvtec / "val/good/v.png", 150)
    for place, name in (("train", train), ("val", val), ("test", test)):
        if place != name:
            _rename(mvtec, place, name)
    data_set = DataSet(data_config(mvtec))
    data_set.check()
    assert data_set.split_names == ("train", "val", "test")
    assert [len(data_set.split(split)) for split in data_set.split_names] == [10, 1, 4]
    assert data_set.split("val").ids == (f"{val}/good/v.png",)


def test_scans_in_folders_in_any_letter_case(tmp_path):
    for number in range(4):
        write_scan(tmp_path / f"Train/NORMAL/{number}.nii.gz", number)
    write_scan(tmp_path / "Test/Normal/a.nii.gz", 8)
    write_scan(tmp_path / "Test/tumour/b.nii.gz", 9, lesion=16)
    test = DataSet(data_config(tmp_path, "nifti")).split("test")
    assert test.labels.sum() == 1 and len(set(test.groups)) == 2


# --- Unclear names.


@pytest.mark.parametrize(
    "name", ["healthy", "Healthy", "no_finding", "No Finding", "normals", "negative", "good_images"]
)
def test_a_folder_that_seems_normal_is_not_anomalous_in_silence(mvtec, name):
    shutil.rmtree(mvtec / "ground_truth")
    _rename(mvtec, "test/good", name)
    with pytest.raises(UserError, match=f"test/{name}: is named like normal images") as raised:
        DataSet(data_config(mvtec))
    assert f"config.data.normal_classes=('good', 'normal', '{name}')" in str(raised.value)
    # All remedies work.
    assert "or, if it is anomalous, set config.data.normal_classes=('good', 'normal')." in str(
        raised.value
    )
    assert _labels(mvtec, normal_classes=("good", "normal")) == [1, 1, 1, 1]
    assert sorted(_labels(mvtec, normal_classes=("good", "normal", name))) == [0, 0, 1, 1]
    assert _labels(mvtec, normal_classes=("good",)) == [1, 1, 1, 1]
    _rename(mvtec, f"test/{name}", "good")
    assert sorted(_labels(mvtec)) == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("name", "meant"), [("god", "good"), ("nomral", "normal"), ("Goood_images", "good")]
)
def test_a_misspelt_normal_folder_is_not_anomalous_in_silence(mvtec, name, meant):
    """Its missing masks are not what is reported."""
    _rename(mvtec, "test/good", name)
    with pytest.raises(UserError, match=f"test/{name}: .*did you mean '{meant}'") as raised:
        DataSet(data_config(mvtec))
    # Both remedies work.
    assert "if it is anomalous, set config.data.normal_classes=('good', 'normal')." in str(
        raised.value
    )
    shutil.rmtree(mvtec / "ground_truth")
    assert _labels(mvtec, normal_classes=("good", "normal")) == [1, 1, 1, 1]
    _rename(mvtec, f"test/{name}", meant)
    assert sorted(_labels(mvtec)) == [0, 0, 1, 1]


@pytest.mark.parametrize("name", ["good", "Normal"])
def test_good_and_normal_are_not_anomalous_in_silence_if_other_words_are_listed(mvtec, name):
    shutil.rmtree(mvtec / "ground_truth")
    _rename(mvtec, "train/good", "ok")
    _rename(mvtec, "test/good", name)
    with pytest.raises(UserError, match=f"test/{name}: is named like normal images") as raised:
        _labels(mvtec, normal_classes=("ok",))
    assert f"set --config.data.normal_classes=ok,{name}, or, if" in str(raised.value)
    assert sorted(_labels(mvtec, normal_classes=("ok", name))) == [0, 0, 1, 1]


@pytest.mark.parametrize("name", ["god", "GOD"])
def test_a_listed_class_that_does_not_exist(mvtec, name):
    message = f"normal_classes: '{name}' names no folder of a class .* did you mean 'good'"
    with pytest.raises(UserError, match=message):
        DataSet(data_config(mvtec, normal_classes=(name,)))
    with pytest.raises(UserError, match="'nevus' .*has crack, good; correct or remove the name"):
        DataSet(data_config(mvtec, normal_classes=("good", "nevus")))


def test_a_listed_class_of_another_test_set(mvtec, tmp_path):
    site = tmp_path / "site"
    write_image(site / "test/nevus/a.png", 160)
    write_image(site / "test/crack/a.png", 161)
    data = data_config(mvtec, normal_classes=("good", "nevus"))
    data.test.name, data.test.root = "folder", str(site)
    assert DataSet(data).split("test_folder").labels.tolist() == [1, 0]


def test_a_misspelt_normal_folder_beside_the_right_one(mvtec):
    write_image(mvtec / "test/nomral/a.png", 160)
    with pytest.raises(UserError, match="test/nomral: .*did you mean 'normal'"):
        DataSet(data_config(mvtec))


def test_a_test_split_of_one_class_is_noted(mvtec, capsys):
    shutil.rmtree(mvtec / "test/good")
    assert _labels(mvtec) == [1, 1]
    note = "note: folder split 'test' has no normal images: all 2 are anomalous.\n"
    assert capsys.readouterr().err == note
    shutil.rmtree(mvtec / "test/crack")
    write_image(mvtec / "test/good/a.png", 160)
    assert _labels(mvtec) == [0]
    assert "'test' has no anomalous images: all 1 are normal." in capsys.readouterr().err


def test_a_misspelt_folder_of_masks(mvtec):
    _rename(mvtec, "ground_truth/crack", "crak")
    write_image(mvtec / "test/hole/a.png", 161)
    write_mask(mvtec / "ground_truth/hole/a.png")
    message = "No folder of test/ has the name of ground_truth/crak: rename one"
    with pytest.raises(UserError, match=message):
        DataSet(data_config(mvtec))


@pytest.mark.parametrize("name", ["no_screw", "without_cap", "No lid", "clean"])
def test_the_remedy_for_an_anomaly_that_sounds_normal(mvtec, name):
    shutil.rmtree(mvtec / "ground_truth")
    _rename(mvtec, "test/crack", name)
    with pytest.raises(UserError, match=f"test/{name}: is named like normal") as raised:
        DataSet(data_config(mvtec))
    remedy = "or, if it is anomalous, set config.data.normal_classes=('good', 'normal')."
    assert remedy in str(raised.value)
    test = DataSet(data_config(mvtec, normal_classes=("good", "normal"))).split("test")
    assert dict(zip(test.ids, test.labels.tolist(), strict=True)) == {
        f"test/{name}/0.png": 1,
        f"test/{name}/1.png": 1,
        "test/good/0.png": 0,
        "test/good/1.png": 0,
    }


@pytest.mark.parametrize(
    ("place", "other"),
    [
        ("test/good", "Good"),
        ("train/good", "GOOD"),
        ("test/good", "gOOd"),
        ("val/normal", "Normal"),
    ],
)
def test_two_spellings_of_a_class_are_refused(mvtec, place, other):
    write_image(mvtec / place / "x.png", 160)
    path = write_image((mvtec / place).with_name(other) / "y.png", 161)
    if len(list((mvtec / place).parent.glob("[gGnN]*"))) < 2:
        pytest.skip("the file system knows no letter case")
    with pytest.raises(
        UserError, match="are two spellings of one word; merge them into one folder"
    ):
        DataSet(data_config(mvtec))
    path.rename(mvtec / place / "y.png")
    path.parent.rmdir()
    DataSet(data_config(mvtec))


@pytest.mark.parametrize(
    ("first", "second", "meaning"),
    [
        ("val", "validation", "val"),
        ("valid", "VAL", "val"),
        ("Test", "test", "test"),
        ("train", "TRAIN", "train"),
        ("ground_truth", "GroundTruth", "ground_truth"),
    ],
)
def test_two_folders_of_one_meaning_are_refused(mvtec, first, second, meaning):
    for name in (first, second):
        write_image(mvtec / name / "good/x.png", 160)
    message = f"'({first}|{second})' and '({first}|{second})' are both {meaning}; merge them"
    with pytest.raises(UserError, match=message):
        DataSet(data_config(mvtec))


@pytest.mark.parametrize(
    ("name", "like", "meant"),
    [
        ("train", "training", "train"),
        ("train", "Train_data", "train"),
        ("train", "trian", "train"),
        ("test", "Testing", "test"),
        ("test", "Test2", "test"),
        ("test", "tests", "test"),
        ("val", "validation set", "val"),
        ("val", "dev", "val"),
        ("ground_truth", "masks", "ground_truth"),
        ("ground_truth", "Segmentations", "ground_truth"),
        ("ground_truth", "GT", "ground_truth"),
        ("ground_truth", "ground_thruth", "ground_truth"),
    ],
)
def test_a_folder_that_is_nearly_understood_is_refused(mvtec, name, like, meant):
    write_image(mvtec / "val/good/v.png", 150)
    _rename(mvtec, name, like)
    message = (
        f"has no folder {meant}; expected .* There is '{like}': rename it to {meant}, or move it"
    )
    with pytest.raises(UserError, match=message) as raised:
        DataSet(data_config(mvtec))
    assert "\n" not in str(raised.value)
    _rename(mvtec, like, meant)
    DataSet(data_config(mvtec))


@pytest.mark.parametrize(
    ("kind", "folders"),
    [
        ("nifti", ("imagesTr", "labelsTr", "imagesTs")),  # nnU-Net
        ("nifti", ("scans", "Segmentations")),
        ("folder", ("images", "masks", "dev")),
        ("folder", ("test", "GT")),
    ],
)
def test_the_first_that_is_missing_is_what_to_learn_from(tmp_path, kind, folders, capsys):
    for seed, name in enumerate(folders):
        if kind == "nifti":
            write_scan(tmp_path / name / "a.nii.gz", seed)
        else:
            write_image(tmp_path / name / "good/a.png", 100 + seed)
    with pytest.raises(UserError, match="has no folder train; expected train/good/") as raised:
        DataSet(data_config(tmp_path, kind))
    assert "rename" not in str(raised.value)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["Test2", "docs", "train_backup", "labels", "testing"])
def test_a_folder_that_is_not_understood_is_reported(mvtec, name, capsys):
    """If the folder that it might be exists, a warning is enough."""
    write_image(mvtec / "val/good/v.png", 150)
    assert DataSet(data_config(mvtec)) and capsys.readouterr().err == ""
    write_image(mvtec / name / "x.png")
    DataSet(data_config(mvtec)).check()
    message = capsys.readouterr().err
    assert (
        f"ignored '{name}' (1 file); expected train/good/" in message and message.count("\n") == 1
    )


def test_empty_folders_and_those_that_jaxad_wrote_are_not_mentioned(mvtec, capsys):
    write_image(mvtec / "val/good/v.png", 150)
    (mvtec / "run_in").mkdir()  # a workdir at the start of its run
    for name in ("config.json", "checkpoints/x", "figures/a.png"):
        (mvtec / "runs/first" / name).parent.mkdir(parents=True, exist_ok=True)
        (mvtec / "runs/first" / name).write_text("x")
    DataSet(data_config(mvtec)).check()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["test_results", "labels"])
def test_folders_without_images_are_reported_alone(mvtec, name, capsys):
    shutil.rmtree(mvtec / "test")
    shutil.rmtree(mvtec / "ground_truth")
    (mvtec / name).mkdir()
    (mvtec / name / "notes.txt").write_text("x")
    assert DataSet(data_config(mvtec)).split_names == ("train", "val")
    assert f"ignored '{name}'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["Training", "test", "masks", "val"])
def test_folders_beside_scans_in_the_root_are_not_passed_over(tmp_path, name):
    for number in range(4):
        write_scan(tmp_path / f"{number}.nii.gz", number)
    write_scan(tmp_path / name / "more/x.nii.gz", 9)
    with pytest.raises(UserError, match=f"folder '{name}', which would be ignored"):
        DataSet(data_config(tmp_path, "nifti"))


@pytest.mark.parametrize("name", ["set.csv", "set.npz", "set.png", "v1.2"])
def test_a_folder_may_have_a_dot_in_its_name(mvtec, name):
    """It is neither a table nor an archive."""
    root = mvtec / name
    root.mkdir()
    for place in ("train", "test", "ground_truth"):
        (mvtec / place).rename(root / place)
    assert sorted(_labels(root)) == [0, 0, 1, 1]
    data = data_config("elsewhere")
    assert len(find_items(root / "test", data)) == 4 and len(find_items(root, data)) == 14
    (root / "train").rename(mvtec / name / "site.csv")
    assert len(read_normals(root / "site.csv", data)) == 10


# --- Arrays.


def _write_arrays(root, names):
    for place, name in enumerate(names):
        images = np.random.default_rng(place).uniform(size=(4, 16, 16)).astype(np.float32)
        labels = {} if place < 2 else {"label": np.array([0, 1, 0, 1])}
        np.savez(root / "x.npz", image=images, **labels)
        (root / "x.npz").rename(root / name)
    return data_config(root, "npz")


@pytest.mark.parametrize(
    "names",
    [
        ("Train.npz", "VAL.npz", "Test_a.npz"),
        ("TRAIN.NPZ", "valid.npz", "TEST_a.npz"),
        ("train.npz", "Validation.npz", "test_a.Npz"),
    ],
)
def test_names_of_arrays_in_any_letter_case(tmp_path, names, capsys):
    data_set = DataSet(_write_arrays(tmp_path, names))
    assert set(data_set.split_names) == {"train", "val", "test_a"}
    assert data_set.split("test_a").labels.sum() == 2
    assert capsys.readouterr().err == ""  # none is reported as unread


def test_two_files_of_one_split(tmp_path):
    data = _write_arrays(tmp_path, ("train.npz", "val.npz", "test_a.npz", "validation.npz"))
    with pytest.raises(UserError, match=r"val.npz and validation.npz are both split 'val'; move"):
        DataSet(data)
