"""MIIC: images of circuits in the layout of `folder`, a mask for every anomalous one."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
import trees
from PIL import Image

from jaxad.data.prepare.preparation import Preparation
from jaxad.data.published.manual import Choices, make_config
from jaxad.data.published.miic import Miic
from jaxad.errors import UserError

#: The size of the files.
CHOICES = Choices(preparation=Preparation(32, 1))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return trees.miic(tmp_path_factory.mktemp("miic"))


@pytest.fixture(scope="module", autouse=True)
def example_dir(root):
    MiicCase.EXAMPLE_DIR = root


@pytest.fixture(scope="module")
def splits(root, read_all):
    return read_all("miic", root, CHOICES)


class MiicCase(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = Miic
    BUILDER_CONFIG_NAMES_TO_TEST = [make_config(CHOICES)]
    # Of 5 images in train/good a tenth, at least one, is validated on.
    SPLITS = {"train": 4, "val": 1, "test": 4}


def test_images_are_those_of_the_files(root, splits):
    for split in splits.values():
        assert split.images.dtype == np.uint8 and split.positions is None
        for image, place in zip(split.images, split.ids, strict=True):
            np.testing.assert_array_equal(image[..., 0], np.asarray(Image.open(root / place)))
        assert split.groups == split.ids
    learnt = {*splits["train"].ids, *splits["val"].ids}
    assert learnt == {f"train/good/{number:05d}.png" for number in range(5)}


def test_masks_belong_to_the_anomalous_images(root, splits):
    test = splits["test"]
    for place, label, mask in zip(test.ids, test.labels, test.masks, strict=True):
        _, folder, name = place.split("/")
        assert label == (folder == "anomalous")
        if label:
            path = root / "ground_truth" / folder / name
            np.testing.assert_array_equal(mask, np.asarray(Image.open(path)) > 0)
        else:
            assert not mask.any()
    assert sorted(test.labels) == [0, 0, 1, 1]
    assert splits["train"].masks is None  # in it nothing is anomalous


def test_a_val_folder_is_merged_into_train(tmp_path):
    """`val` is drawn from all training images, as for other data sets."""
    trees.miic(tmp_path)
    trees.save_picture(tmp_path / "val" / "good" / "00009.png", (32, 32), 99)
    splits = Miic.splits(tmp_path, Choices())
    assert [len(splits[name]) for name in ("train", "val")] == [5, 1]


def test_published_sizes(root, monkeypatch):
    assert Miic.PUBLISHED == {("train", 0): 23_888, ("test", 0): 1_272, ("test", 1): 116}
    monkeypatch.setattr(Miic, "PUBLISHED", {("train", 0): 5, ("test", 0): 2, ("test", 1): 2})
    Miic.splits(root, Choices())
    monkeypatch.setattr(Miic, "PUBLISHED", {("train", 0): 5, ("test", 0): 1, ("test", 1): 2})
    with pytest.raises(UserError, match=r"^miic: 2 normal images in test \(paper: 1\); fetch"):
        Miic.splits(root, Choices())


def _no_mask(root):
    (root / "ground_truth/anomalous/00001.png").unlink()


def _no_masks(root):
    (root / "ground_truth").rename(root.parent / "masks")


def _other_names(root):
    (root / "train").rename(root / "training")


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (_no_mask, r"anomalous/00001\.png: has no mask in .*ground_truth/anomalous, while other"),
        (_no_masks, r"anomalous/00000\.png: has no mask; .*put them into ground_truth/anomalous/"),
        (_other_names, r"^config\.data\.root '.*': has no folder train; expected train/good/, "),
    ],
)
def test_another_layout_is_refused(tmp_path, spoil, expected):
    root = trees.miic(tmp_path / "miic")
    spoil(root)
    with pytest.raises(UserError, match=expected) as raised:
        Miic.splits(root, Choices())
    assert "\n" not in str(raised.value)
