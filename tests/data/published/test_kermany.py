"""OCT2017 and chest X-rays: JPEG files by class; published splits share patients."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
import trees
from PIL import Image

from jaxad.data.prepare.preparation import Preparation
from jaxad.data.published.kermany import Chestxray, Oct2017
from jaxad.data.published.manual import Choices, make_config
from jaxad.errors import UserError

#: As wide as the files, whose 24 rows get 4 empty ones above and below.
CHOICES = Choices(preparation=Preparation(32, 1))


@pytest.fixture(scope="module")
def oct_root(tmp_path_factory):
    return trees.oct2017(tmp_path_factory.mktemp("oct2017"))


@pytest.fixture(scope="module")
def chest_root(tmp_path_factory):
    return trees.chestxray(tmp_path_factory.mktemp("chestxray"))


@pytest.fixture(scope="module", autouse=True)
def example_dirs(oct_root, chest_root):
    Oct2017Case.EXAMPLE_DIR, ChestxrayCase.EXAMPLE_DIR = oct_root, chest_root


class Oct2017Case(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = Oct2017
    # The config that it is registered with, of 64 pixels. Of 6 patients who are learnt from one
    # is validated on, with one image.
    SPLITS = {"train": 7, "val": 1, "test": 5}


class ChestxrayCase(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = Chestxray
    BUILDER_CONFIG_NAMES_TO_TEST = [make_config(CHOICES)]
    # 6 normal images in train and 2 in val are of 8 patients.
    SPLITS = {"train": 7, "val": 1, "test": 5}


def _ids(items):
    return [item.id for item in items]


@pytest.mark.parametrize("name", ["oct2017", "chestxray"])
def test_an_image_is_the_decoded_file_with_empty_rows(name, oct_root, chest_root, read_all):
    root = {"oct2017": oct_root, "chestxray": chest_root}[name]
    for split in read_all(name, root, CHOICES).values():
        assert split.images.dtype == np.uint8 and split.positions is None and split.masks is None
        for image, place in zip(split.images, split.ids, strict=True):
            pixels = np.asarray(Image.open(root / place))
            np.testing.assert_array_equal(image[..., 0], np.pad(pixels, ((4, 4), (0, 0))))


def test_images_are_labelled_by_their_folders(oct_root, read_all):
    splits = read_all("oct2017", oct_root, CHOICES)
    test = splits["test"]
    expected = [
        ("test/NORMAL/NORMAL-1025847-1.jpeg", "1025847", 0),
        ("test/NORMAL/NORMAL-1038998-3.jpeg", "1038998", 0),
        ("test/CNV/CNV-103044-1.jpeg", "103044", 1),
        ("test/DME/DME-1081406-1.jpeg", "1081406", 1),
        ("test/DRUSEN/DRUSEN-1083159-1.jpeg", "1083159", 1),
    ]
    assert list(zip(test.ids, test.groups, test.labels, strict=True)) == expected
    learnt = {*splits["train"].ids, *splits["val"].ids}
    assert learnt == {f"train/NORMAL/{name}.jpeg" for name in trees.OCT2017["train/NORMAL"]}
    assert not splits["train"].labels.any() and not splits["val"].labels.any()
    assert not set(splits["train"].groups) & set(splits["val"].groups)


@pytest.mark.parametrize(
    ("builder", "name", "patient"),
    [
        (Oct2017, "NORMAL-1001666-1", "1001666"),
        (Oct2017, "DRUSEN-1083159-12", "1083159"),
        (Oct2017, "unknown", "unknown"),
        (Chestxray, "IM-0115-0001", "IM-0115"),
        (Chestxray, "IM-0011-0001-0002", "IM-0011"),
        (Chestxray, "NORMAL2-IM-0027-0001-0002", "NORMAL2-IM-0027"),
        # The two archives of normal images count from 1 again.
        (Chestxray, "NORMAL2-IM-0115-0001", "NORMAL2-IM-0115"),
        (Chestxray, "person1_virus_6", "person1"),
        (Chestxray, "person1_bacteria_1", "person1"),
        (Chestxray, "person100_bacteria_475", "person100"),
    ],
)
def test_the_patient_is_found_in_the_name_of_a_file(builder, name, patient):
    assert builder.patient(Path(f"{name}.jpeg")) == patient


def test_patients_in_train_and_test_are_a_warning(oct_root, capsys):
    """Two images of 1038998 and one of 1083159; one eye may be normal and the other not."""
    assert len(Oct2017.layout(oct_root, Choices())["train"]) == 8
    assert capsys.readouterr().err == (
        "warning: oct2017: 3 training images belong to 2 patients who are also in the test split: "
        "the published split leaks. --config.data.regroup=True leaves these images out.\n"
    )


def test_regroup_leaves_shared_patients_out(oct_root, read_all, capsys):
    splits = read_all("oct2017", oct_root, Choices(preparation=Preparation(32, 1), regroup=True))
    assert capsys.readouterr().err == ""
    groups = {name: set(split.groups) for name, split in splits.items()}
    learnt = groups["train"] | groups["val"]
    assert learnt == {"1001666", "1005456", "1017237", "1021152"}
    assert not learnt & groups["test"] and len(splits["test"]) == 5


def test_no_warning_of_leaks_with_test_only(oct_root, capsys):
    splits = Oct2017.splits(oct_root, Choices(test_only=True))
    assert list(splits) == ["test"] and len(splits["test"]) == 5
    assert capsys.readouterr().err == ""


def test_val_of_chest_xrays_is_trained_on(chest_root, tmp_path, capsys):
    layout = Chestxray.layout(chest_root, Choices())
    names = [*trees.CHESTXRAY["train/NORMAL"], *trees.CHESTXRAY["val/NORMAL"]]
    assert [Path(place).stem for place in _ids(layout["train"])] == names
    # The archive of Mendeley has no val; its images are in train.
    merged = {**trees.CHESTXRAY, "train/NORMAL": tuple(names)}
    del merged["val/NORMAL"], merged["val/PNEUMONIA"]
    root = trees.chestxray(tmp_path, merged)
    assert [Path(place).stem for place in _ids(Chestxray.layout(root, Choices())["train"])] == names
    assert capsys.readouterr().err == ""


def test_val_of_oct_images_is_not_trained_on(tmp_path):
    """Kaggle's images of `val` are copies of others."""
    root = trees.oct2017(tmp_path, {**trees.OCT2017, "val/NORMAL": ("NORMAL-5171640-1",)})
    assert len(Oct2017.layout(root, Choices())["train"]) == 8


@pytest.mark.parametrize("name", ["OCT2017", "OCT2017 "])
def test_the_parent_folder_is_accepted(tmp_path, name):
    """Kaggle's archive has a space at the end of its folder's name."""
    trees.oct2017(tmp_path).rename(tmp_path / name)
    layout = Oct2017.layout(tmp_path, Choices())
    assert [len(layout["train"]), len(layout["test"])] == [8, 5]
    assert layout["test"][0].id == "test/NORMAL/NORMAL-1025847-1.jpeg"


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("", "' has no train/NORMAL; name the folder with train/NORMAL, test/NORMAL, test/PNEU"),
        ("train/NORMAL", "chest_xray' has no train/NORMAL; name the folder with train/NORMAL"),
        ("test/PNEUMONIA", "chest_xray' has no test/PNEUMONIA; name the folder"),
    ],
)
def test_a_missing_folder_is_named(tmp_path, missing, expected):
    if missing:
        root = trees.chestxray(tmp_path)
        (root / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=expected) as raised:
        Chestxray.splits(tmp_path, Choices())
    assert "\n" not in str(raised.value) and str(tmp_path) in str(raised.value)


def test_an_empty_folder_is_named(tmp_path):
    root = trees.oct2017(tmp_path)
    for path in (root / "test/DME").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="^oct2017: '.*test/DME' holds no images; unpack it again"):
        Oct2017.splits(root, Choices())


# --- Sizes. The tree has 8 normal images in train, and 2 normal and 3 anomalous ones in test.

SIZES = {("train", 0): 8, ("test", 0): 2, ("test", 1): 3}


def _splits_of_sizes(root, monkeypatch, sizes, **choices):
    monkeypatch.setattr(Oct2017, "PUBLISHED", {**SIZES, **sizes})
    return Oct2017.splits(root, Choices(**choices))


def test_published_sizes():
    assert Oct2017.PUBLISHED == {("train", 0): 26_315, ("test", 0): 242, ("test", 1): 726}
    assert Chestxray.PUBLISHED == {("train", 0): 1_349, ("test", 0): 234, ("test", 1): 390}


def test_the_copy_of_chest_x_rays_without_its_val_is_taken_for_the_published_one():
    counts = {("train", 0): 1_341, ("test", 0): 234, ("test", 1): 390}
    Chestxray.check_sizes(counts, Choices())
    with pytest.raises(UserError, match=r"1,342 normal images in train \(paper: 1,349\)"):
        Chestxray.check_sizes({**counts, ("train", 0): 1_342}, Choices())


def test_all_data_of_another_size_are_refused(oct_root, monkeypatch):
    _splits_of_sizes(oct_root, monkeypatch, {})
    with pytest.raises(UserError) as raised:
        _splits_of_sizes(oct_root, monkeypatch, {("train", 0): 7, ("test", 1): 1})
    assert str(raised.value) == (
        "oct2017: 8 normal images in train (paper: 7), 3 anomalous images in test (paper: 1); "
        "fetch the version that the instructions name, or set config.data.check_sizes to False."
    )


@pytest.mark.parametrize(
    ("sizes", "choices"),
    [
        # Less than nine tenths of the published number counts as a part.
        ({("train", 0): 9}, {}),
        ({("train", 0): 7, ("test", 1): 300}, {}),
        ({("train", 0): 7}, {"check_sizes": False}),
        # These choices change the number of images.
        ({("train", 0): 7}, {"regroup": True}),
        ({("train", 0): 7}, {"test_only": True}),
    ],
)
def test_a_part_of_the_data_or_a_choice_is_accepted(oct_root, monkeypatch, sizes, choices):
    assert len(_splits_of_sizes(oct_root, monkeypatch, sizes, **choices)["test"]) == 5


def test_a_mask_among_the_images_is_refused(tmp_path):
    root = trees.oct2017(tmp_path)
    image = sorted((root / "train/NORMAL").iterdir())[0]
    image.with_name(f"{image.stem}_mask.jpeg").write_bytes(image.read_bytes())
    with pytest.raises(UserError, match="_mask.jpeg: is a mask, not an image: .*; move masks away"):
        Oct2017.splits(root, CHOICES)
