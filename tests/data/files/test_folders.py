"""Data sets that are folders: which files are in which split, and which layouts are refused."""

import shutil

import numpy as np
import pytest
from PIL import Image
from user_files import SIZE, data_config, write_image, write_mask, write_scan

from jaxad.data.files.folders import read_folder
from jaxad.data.files.items import Item
from jaxad.data.files.splitting import Splitting, draw_splits
from jaxad.data.sources import DataSet
from jaxad.errors import UserError

# --- What is read.


def test_the_mvtec_layout(mvtec):
    data_set = DataSet(data_config(mvtec))
    data_set.check()
    assert data_set.split_names == ("train", "val", "test")
    train, val, test = (data_set.split(name) for name in data_set.split_names)
    # A tenth of ten patients: every file is one.
    assert (len(train), len(val)) == (9, 1)
    assert not set(train.groups) & set(val.groups)
    assert test.ids == (
        "test/crack/0.png",
        "test/crack/1.png",
        "test/good/0.png",
        "test/good/1.png",
    )
    np.testing.assert_array_equal(test.labels, [1, 1, 0, 0])
    assert test.images.dtype == np.uint8 and test.images.shape == (4, SIZE, SIZE, 1)
    # 5 of 20 pixels per side become 4 of 16; normal images have empty masks.
    np.testing.assert_array_equal(test.masks.sum(axis=(1, 2)), [16, 16, 0, 0])
    assert test.positions is None
    assert test.files.sizes == {"20x20": 4}
    assert (test.files.lowest, test.files.highest) == (None, None)
    measured = DataSet(data_config(mvtec), measure=True).split("test").files
    assert (measured.lowest, measured.highest) == (130, 142)


def test_a_val_folder_is_taken_as_it_is(mvtec):
    write_image(mvtec / "val/good/a.png")
    data_set = DataSet(data_config(mvtec))
    assert len(data_set.split("train")) == 10
    assert data_set.split("val").ids == ("val/good/a.png",)


def test_normal_means_good_or_normal_or_what_is_listed(mvtec):
    (mvtec / "test/good").rename(mvtec / "test/normal")
    np.testing.assert_array_equal(DataSet(data_config(mvtec)).split("test").labels, [1, 1, 0, 0])
    with pytest.raises(UserError, match="holds 'good', but only normal images are used for"):
        DataSet(data_config(mvtec, normal_classes=("crack",)))
    (mvtec / "train/good").rename(mvtec / "train/crack")
    (mvtec / "test/normal").rename(mvtec / "test/other")
    shutil.rmtree(mvtec / "ground_truth")
    split = DataSet(data_config(mvtec, normal_classes=("crack",))).split("test")
    assert [name.split("/")[1] for name, label in zip(split.ids, split.labels, strict=True) if label
            ] == ["other", "other"]  # fmt: skip


def test_patients_are_found_in_paths(mvtec):
    for number in range(10):
        path = mvtec / f"train/good/{number:02d}.png"
        path.rename(path.with_name(f"p{number // 2}_slice{number}.png"))
    data = data_config(mvtec, group_pattern=r"/(p\d+)_|test/(.+)", val_share=0.2)
    splits = read_folder(mvtec, "image", Splitting(0.2, group_pattern=r"p\d+|test/.*"))
    assert {item.group for item in splits["train"]} | {item.group for item in splits["val"]} == {
        "p0", "p1", "p2", "p3", "p4",
    }  # fmt: skip
    # A fifth of five patients, with both images.
    assert len(splits["val"]) == 2
    data.group_pattern = r"p(\d+)_"
    with pytest.raises(UserError, match=r"'p\(\\d\+\)_' finds no patient in 'test/crack/0.png'"):
        DataSet(data)


def test_16_bits_and_colour_in_one_folder(mvtec):
    deep = np.arange(400, dtype=np.uint16).reshape(20, 20) * 160
    Image.fromarray(deep).save(mvtec / "train/good/deep.png")
    colour = np.stack([np.full((20, 20), v, np.uint8) for v in (200, 100, 50)], axis=-1)
    colour[0, 0] = 0
    Image.fromarray(colour).save(mvtec / "train/good/colour.png")
    split = DataSet(data_config(mvtec)).split("train")
    # If one image has 16 bits, all have: 8-bit values times 257.
    assert split.images.dtype == np.uint16
    places = dict(zip(split.ids, range(len(split)), strict=True))
    grey = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    assert split.images[places["train/good/colour.png"], 8, 8, 0] == grey * 257


def test_names_with_spaces_and_other_letters(mvtec):
    write_image(mvtec / "train/good/Größe 3 – Ödem.PNG")
    split = DataSet(data_config(mvtec)).split("train")
    assert "train/good/Größe 3 – Ödem.PNG" in split.ids


def test_scans_are_labelled_by_their_masks(tmp_path):
    for number in range(4):
        write_scan(tmp_path / f"train/good/{number}.nii.gz", number)
    write_scan(tmp_path / "test/good/a.nii.gz", 8)
    write_scan(tmp_path / "test/tumour/b.nii", 9, lesion=16)
    data = data_config(tmp_path, "nifti")
    split = DataSet(data).split("test")
    # 12 of 16 slices have foreground; the one with 16 > 10 marked voxels is anomalous.
    assert len(split) == 24 and split.labels.sum() == 1
    assert split.ids[list(split.labels).index(1)] == "test/tumour/b.nii-006"
    assert split.positions.tolist() == [*range(2, 14)] * 2
    assert split.groups == ("test/good/a.nii.gz",) * 12 + ("test/tumour/b.nii",) * 12
    assert split.masks.any(axis=(1, 2)).sum() == 1
    # With at most 10 marked voxels a slice is neither normal nor anomalous.
    write_scan(tmp_path / "test/tumour/b.nii", 9, lesion=10)
    split = DataSet(data).split("test")
    assert len(split) == 23 and split.labels.sum() == 0
    assert split.files.slices_left_out == 4 + 4 + 1


def test_an_anomalous_scan_without_a_mask_is_anomalous_throughout(tmp_path):
    for number in range(4):
        write_scan(tmp_path / f"train/good/{number}.nii.gz", number)
    write_scan(tmp_path / "test/tumour/b.nii.gz", 9)
    np.testing.assert_array_equal(DataSet(data_config(tmp_path, "nifti")).split("test").labels, 1)


def test_scans_right_in_the_root(tmp_path):
    for number in range(5):
        write_scan(tmp_path / f"{number}.nii.gz", number)
    write_scan(tmp_path / "ill.nii.gz", 9, lesion=16)
    data_set = DataSet(data_config(tmp_path, "nifti"))
    data_set.check()
    patients = {name: set(data_set.split(name).groups) for name in data_set.split_names}
    # A fifth and a tenth of five normal patients, at least one; the one with a mask is tested.
    assert {name: len(found) for name, found in patients.items()} == {
        "train": 3, "val": 1, "test": 2,
    }  # fmt: skip
    assert "ill.nii.gz" in patients["test"]


def test_draws_depend_on_names_and_seed_alone():
    items = [Item(str(n), f"patient {n // 2}", (), 0) for n in range(40)]
    first = draw_splits(items, Splitting())
    again = draw_splits(items[::-1], Splitting())
    assert {name: {item.group for item in found} for name, found in first.items()} == {
        name: {item.group for item in found} for name, found in again.items()
    }
    assert [len({item.group for item in first[name]}) for name in ("train", "val", "test")] == [
        14, 2, 4,
    ]  # fmt: skip
    other = draw_splits(items, Splitting(seed=1))
    assert {item.group for item in other["test"]} != {item.group for item in first["test"]}


# --- What is refused.


def lone_train(root):
    (root / "train").rename(root / "training")


def empty_class(root):
    (root / "test/scratch").mkdir()


def empty_train(root):
    for path in (root / "train/good").iterdir():
        path.unlink()


def anomalies_to_learn_from(root):
    write_image(root / "train/crack/0.png")


def loose_test(root):
    write_image(root / "test/0.png")


def missing_mask(root):
    (root / "ground_truth/crack/1_mask.png").unlink()


def one_patient(root):
    for path in sorted((root / "train/good").iterdir())[1:]:
        path.unlink()


def link_loop(root):
    (root / "train/good/again").symlink_to(root / "train")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lone_train, r"has no folder train; expected train/good/, test/good/ and test/<any other"),
        (empty_class, r"test/scratch: holds no images \(.png, .*\); add some or remove the folder"),
        (empty_train, r"train: holds no images .*expected train/good"),
        (anomalies_to_learn_from, r"train: holds 'crack', but only normal images are used for"),
        (loose_test, r"test/0.png: lies in test/ itself; put it into test/good/"),
        (
            missing_mask,
            r"crack/1.png: has no mask in .*truth/crack.*; 1 of 2 anomalous .* add '1_mask.png'",
        ),
        (one_patient, r"'train' has only one patient; give at least two"),
        (link_loop, r"train/good/again: a symbolic link that leads back to itself; remove it"),
    ],
)
def test_other_layouts_are_refused_in_one_line(mvtec, spoil, message):
    spoil(mvtec)
    with pytest.raises(UserError, match=message) as raised:
        DataSet(data_config(mvtec))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("marked", "folder", "message"),
    [
        (False, "crack", "0_mask.png: is empty, but 'test/crack/0.png' is labelled anomalous"),
        (True, "good", "marks anomalous pixels of 'test/good/0.png', which is labelled normal"),
    ],
)
def test_masks_and_labels_that_disagree(mvtec, marked, folder, message):
    write_mask(mvtec / f"ground_truth/{folder}/0_mask.png", marked)
    with pytest.raises(UserError, match=message):
        DataSet(data_config(mvtec)).split("test")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"group_pattern": "("},
            "config.data.group_pattern: '.' is not a valid regular expression",
        ),
        ({"val_share": 1.0}, "config.data.val_share: 1.0 is not in .0, 1."),
        ({"on_error": "ignore"}, "config.data.on_error: unknown 'ignore'; known: raise, skip"),
        ({"preprocess__square": "squash"}, "preprocess.square: unknown 'squash'; known: pad, crop"),
        ({"preprocess__clip": 0.0}, "preprocess.clip: 0.0 is not in .0, inf."),
        (
            {"preprocess__percentiles": (9.0, 5.0)},
            "percentiles: .*give a lower and an upper percentile",
        ),
        ({"volume__plane": "axiall"}, "volume.plane: unknown 'axiall'; did you mean 'axial'"),
        ({"volume__slices": (3,)}, r"volume.slices: \(3,\); give \(start, stop\)"),
        ({"volume__spacing": -1.0}, "volume.spacing: -1.0 is not in .0, 1e6."),
        ({"volume__spacing": 2.0}, "data.volume.spacing: has no effect on data set 'folder'"),
        ({"regroup": True}, "regroup: has no effect on data set 'folder', only on oct2017"),
        ({"preprocess__clip": 2.0}, "clip: has no effect with intensity 'range'; .* to zscore"),
        (
            {"preprocess__intensity": "zscore", "preprocess__percentiles": (5.0, 95.0)},
            "percentiles: has no effect with intensity 'zscore'",
        ),
    ],
)
def test_fields_that_cannot_be_are_named(mvtec, changes, message):
    with pytest.raises(UserError, match=message):
        DataSet(data_config(mvtec, **changes))


def test_a_root_is_needed():
    with pytest.raises(UserError, match="config.data.root: missing; name the folder of your ima"):
        DataSet(data_config(""))


def test_a_lesion_in_a_scan_to_learn_from_is_refused(tmp_path):
    for number in range(4):
        write_scan(tmp_path / f"train/good/{number}.nii.gz", number, lesion=16 * (number == 2))
    data = data_config(tmp_path, "nifti", val_share=0.3)
    with pytest.raises(UserError, match=r"2_mask.nii.gz: marks anomalous pixels of 'train/good/2"):
        DataSet(data).check()


def test_shares_that_leave_nobody_are_named(mvtec):
    with pytest.raises(UserError, match="config.data.val_share: 0.99 of 10 patients leaves none"):
        DataSet(data_config(mvtec, val_share=0.99))


def test_a_root_that_does_not_exist_is_reported(tmp_path):
    (tmp_path / "cohort").mkdir()
    (tmp_path / "x.txt").write_text("x")
    for name, words in (
        ("cohrt", f"no such file or folder; did you mean '{tmp_path / 'cohort'}'?"),
        ("zzz", "no such file or folder; set --config.data.root to where the data are."),
        (
            "zzz/cohort",
            f"no such file or folder, nor '{tmp_path / 'zzz'}'; set --config.data.root to ",
        ),
        ("x.txt", "is a file; name a folder, a table or an .npz file."),
    ):
        with pytest.raises(UserError) as raised:
            DataSet(data_config(tmp_path / name, "nifti"))
        message = str(raised.value)
        assert message.startswith(f"config.data.root '{tmp_path / name}': {words}")
        assert "train/good" not in message


def test_another_folder_is_tested_too(mvtec, tmp_path_factory):
    """Its patients are different ones, whatever their names."""
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(mvtec, other, dirs_exist_ok=True)
    data = data_config(mvtec, test__name="folder", test__root=str(other))
    data_set = DataSet(data)
    data_set.check()
    assert data_set.test_split_names == ("test", "test_folder")
    assert data_set.split("test_folder").groups[0] == "folder:test/crack/0.png"
    data.test.name = ""
    with pytest.raises(UserError, match="config.data.test.root: names no data set"):
        DataSet(data)
    data.test.name, data.test.root = "folder", str(other / "nowhere")
    with pytest.raises(
        UserError,
        match="config.data.test.root '.*nowhere': no such .*; set --config.data.test.root",
    ):
        DataSet(data)


def test_an_image_that_is_learnt_from_is_not_tested_under_another_name(mvtec):
    data_set = DataSet(data_config(mvtec))
    data_set.check()
    with Image.open(mvtec / data_set.split("train").ids[0]) as image:
        image.save(mvtec / "test/good/another.tiff")
    with pytest.raises(UserError, match=r"'test/good/another.tiff' of 'test' is 'train/good/"):
        DataSet(data_config(mvtec)).check()
    (mvtec / "test/good/another.tiff").unlink()
    shutil.copy(mvtec / "test/good/0.png", mvtec / "test/good/again.png")  # no leak
    DataSet(data_config(mvtec)).check()


def test_unknown_names_of_normal_classes_are_offered_as_such(mvtec):
    (mvtec / "train/good").rename(mvtec / "train/no_tumor")
    with pytest.raises(UserError, match=r"set config\.data\.normal_classes=\('no_tumor',\)"):
        DataSet(data_config(mvtec))
    write_image(mvtec / "train/good/99.png", 9)
    with pytest.raises(UserError, match=r"normal_classes=\('good', 'no_tumor'\)"):
        DataSet(data_config(mvtec))
    DataSet(data_config(mvtec, normal_classes=("good", "no_tumor")))


@pytest.mark.parametrize("place", ["runs", "train/run", "test/run"])
@pytest.mark.parametrize(
    "names",
    [
        ("config.json", "checkpoints/1"),
        ("inspect.json", "inspect.png"),
        ("eval/b/metrics.json", "report.html"),
    ],
)
def test_a_workdir_inside_the_data_is_not_read(mvtec, capsys, place, names):
    before = DataSet(data_config(mvtec))
    ids = {name: before.split(name).ids for name in before.split_names}
    capsys.readouterr()
    write_image(mvtec / place / "figures/roc.png", 9)
    for name in names:
        (mvtec / place / name).parent.mkdir(exist_ok=True, parents=True)
        (mvtec / place / name).write_bytes(b"")
    data_set = DataSet(data_config(mvtec))
    assert {name: data_set.split(name).ids for name in data_set.split_names} == ids
    assert capsys.readouterr().err == ""
