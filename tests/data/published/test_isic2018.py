"""ISIC 2018: skin lesions, labelled by the tables of the challenge."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
import trees
from PIL import Image

from jaxad.data.prepare.preparation import Preparation
from jaxad.data.published.isic2018 import Isic2018
from jaxad.data.published.manual import Choices, config_for, make_config
from jaxad.errors import UserError

#: As wide as the files, whose 24 rows get 4 empty ones above and below.
CHOICES = Choices(preparation=Preparation(32, 3))
TRUTH = "ISIC2018_Task3_{0}_GroundTruth/ISIC2018_Task3_{0}_GroundTruth.csv"
LESIONS = "ISIC2018_Task3_Training_LesionGroupings.csv"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return trees.isic2018(tmp_path_factory.mktemp("isic2018"))


@pytest.fixture(scope="module", autouse=True)
def example_dir(root):
    Isic2018Case.EXAMPLE_DIR = root


@pytest.fixture(scope="module")
def splits(root, read_all):
    return read_all("isic2018", root, CHOICES)


class Isic2018Case(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = Isic2018
    BUILDER_CONFIG_NAMES_TO_TEST = [make_config(CHOICES)]
    # 4 nevi are of 3 lesions; one lesion, of one image, is validated on.
    SPLITS = {"train": 3, "val": 1, "test": 4}


def test_nevi_are_trained_on_and_the_official_validation_images_tested(splits):
    nevi = {name for name, (kind, _) in trees.ISIC_TRAINING.items() if kind == "NV"}
    assert {*splits["train"].ids, *splits["val"].ids} == nevi
    assert not splits["train"].labels.any() and not splits["val"].labels.any()
    test = splits["test"]
    assert test.ids == tuple(trees.ISIC_VALIDATION)
    assert trees.ISIC_VALIDATION["ISIC_0034322"] == "DF"
    np.testing.assert_array_equal(test.labels, [0, 1, 0, 1])


def test_images_of_one_lesion_are_a_group(splits):
    groups = {
        name: group
        for split in splits.values()
        for name, group in zip(split.ids, split.groups, strict=True)
    }
    assert groups["ISIC_0024308"] == groups["ISIC_0024309"] == "HAM_0001477"
    assert groups["ISIC_0034321"] == "ISIC_0034321"  # lesions of the validation are not published
    assert not set(splits["train"].groups) & set(splits["val"].groups)


def test_an_image_is_the_decoded_file_with_empty_rows(root, splits):
    folders = {"train": "Training", "val": "Training", "test": "Validation"}
    for name, split in splits.items():
        assert split.images.dtype == np.uint8
        for image, place in zip(split.images, split.ids, strict=True):
            path = root / f"ISIC2018_Task3_{folders[name]}_Input" / f"{place}.jpg"
            expected = np.pad(np.asarray(Image.open(path)), ((4, 4), (0, 0), (0, 0)))
            np.testing.assert_array_equal(image, expected)


def test_one_channel_is_the_weighted_mean_of_the_colours(root, read_all, splits):
    grey = read_all("isic2018", root, Choices(preparation=Preparation(32, 1)))["test"]
    weighted = splits["test"].images @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    np.testing.assert_allclose(grey.images[..., 0], weighted, atol=0.501)


def test_lesion_groupings_are_optional(tmp_path):
    trees.isic2018(tmp_path)
    (tmp_path / LESIONS).unlink()
    train = Isic2018.layout(tmp_path, Choices())["train"]
    assert [item.group for item in train] == [item.id for item in train]


def test_tables_may_lie_in_the_root(tmp_path):
    trees.isic2018(tmp_path)
    for part in ("Training", "Validation"):
        path = tmp_path / TRUTH.format(part)
        path.rename(tmp_path / path.name)
    assert len(Isic2018.layout(tmp_path, Choices())["test"]) == 4


def test_a_changed_label_or_lesion_changes_the_version(tmp_path):
    """The files of images do not change with the table."""
    trees.isic2018(tmp_path)
    names = [config_for(Isic2018, tmp_path, CHOICES).name]
    truth = tmp_path / TRUTH.format("Validation")
    for path, old, new in (
        (truth, "ISIC_0034321,0.0,1.0,0.0", "ISIC_0034321,1.0,0.0,0.0"),
        (tmp_path / LESIONS, "ISIC_0024307,HAM_0003577", "ISIC_0024307,HAM_0000550"),
    ):
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        names.append(config_for(Isic2018, tmp_path, CHOICES).name)
    assert len(set(names)) == 3
    assert names[-1] == config_for(Isic2018, tmp_path, CHOICES).name


def test_published_sizes(root, monkeypatch):
    assert Isic2018.PUBLISHED == {("train", 0): 6_705, ("test", 0): 123, ("test", 1): 70}
    monkeypatch.setattr(Isic2018, "PUBLISHED", {("train", 0): 4, ("test", 0): 2, ("test", 1): 2})
    Isic2018.splits(root, Choices())
    monkeypatch.setattr(Isic2018, "PUBLISHED", {("train", 0): 4, ("test", 0): 2, ("test", 1): 1})
    with pytest.raises(UserError, match=r"^isic2018: 2 anomalous images in test \(paper: 1\); fe"):
        Isic2018.splits(root, Choices())


HEADER = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, r"' has no ISIC2018_Task3_Validation_GroundTruth\.csv; unpack the ground truth"),
        (b"", r"Validation_GroundTruth\.csv has no rows; download it again\.$"),
        (HEADER.encode(), r"Validation_GroundTruth\.csv has no rows; download it again\.$"),
        (b"\xff\xfe\x00", r"GroundTruth\.csv: not a readable CSV file \("),
        (
            f"{HEADER}ISIC_1,0.0,1.0,0.0,0.0,0.0,0.0,0.0\nISIC_2,1.0,1.0,0.0,0.0,0.0,0.0,0.0\n",
            r"Validation_GroundTruth\.csv line 3: does not give .* classes MEL, NV, BCC,",
        ),
        (f"{HEADER}ISIC_1,0.0,0.0,0.0,0.0,0.0,0.0,0.0\n", r"line 2: does not give an image one of"),
        (f"{HEADER}ISIC_1,0.0,yes,0.0,0.0,0.0,0.0,0.0\n", r"line 2: does not give an image one of"),
        (f"{HEADER}ISIC_1,0.0,1.0\n", r"line 2: does not give an image one of"),
        ("name,NV\nISIC_1,1.0\n", r"line 2: does not give an image one of"),
    ],
)
def test_a_bad_table_is_named(tmp_path, content, expected):
    trees.isic2018(tmp_path)
    path = tmp_path / TRUTH.format("Validation")
    path.unlink()
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=expected) as raised:
        Isic2018.splits(tmp_path, Choices())
    assert "\n" not in str(raised.value)


def test_a_missing_image_is_named(tmp_path, read_all):
    trees.isic2018(tmp_path)
    (tmp_path / "ISIC2018_Task3_Validation_Input/ISIC_0034322.jpg").unlink()
    with pytest.raises(UserError, match=r"Input/ISIC_0034322\.jpg: no such file; restore it or"):
        read_all("isic2018", tmp_path, CHOICES)
