"""Data sets of TensorFlow Datasets, as one-class and leave-one-out detection."""

import numpy as np
import pytest

from jaxad import config as config_lib
from jaxad.data.sources import DataSet
from jaxad.errors import UserError

tfds = pytest.importorskip("tensorflow_datasets")

CLASSES = ("circle", "cross", "dot")
COUNTS = {"train": 60, "test": 15}


class TinyShapes(tfds.core.GeneratorBasedBuilder):
    """Noise whose mean depends on the class; 20 training and 5 test images of each."""

    VERSION = tfds.core.Version("1.0.0")
    WITH_LABEL = True

    def _info(self):
        features = {"image": tfds.features.Image(shape=(None, None, 1))}
        if self.WITH_LABEL:
            features["label"] = tfds.features.ClassLabel(names=CLASSES)
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(name, count) for name, count in COUNTS.items()}

    def _generate_examples(self, split, count):
        rng = np.random.default_rng(count)
        for number in range(count):
            noise = rng.integers(0, 20, (20 + number % 3, 24, 1), np.uint8)
            row = {"image": noise + np.uint8(80 * (number % 3))}
            if self.WITH_LABEL:
                row["label"] = number % 3
            yield number, row


class TinyUnlabelled(TinyShapes):
    """Without a label."""

    WITH_LABEL = False


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    for builder in (TinyShapes, TinyUnlabelled):
        builder(data_dir=folder).download_and_prepare()
    return folder


def data_config(root, name="tfds:tiny_shapes", **fields):
    data = config_lib.base().data
    data.name, data.root, data.image_size = name, str(root), 16
    data.update(fields)
    return data


@pytest.mark.parametrize(
    ("fields", "anomalous"),
    [
        ({"normal_classes": ("dot",)}, 10),  # one-class: the other two, 5 of each
        ({"anomalous_classes": ("dot",)}, 5),  # leave-one-out
    ],
)
def test_one_class_and_leave_one_out(root, fields, anomalous):
    data_set = DataSet(data_config(root, **fields))
    data_set.check()
    train, val, test = (data_set.split(name) for name in ("train", "val", "test"))
    # Of the 20 images a class to learn from, those of normal classes.
    assert len(train) + len(val) == 20 * (3 - anomalous // 5)
    assert 0 < len(val) < len(train)
    assert not set(train.ids) & set(val.ids)
    assert not train.labels.any() and not val.labels.any()
    assert len(test) == 15 and test.labels.sum() == anomalous
    assert test.images.shape == (15, 16, 16, 1) and test.images.dtype == np.uint8
    # Dots are the brightest: their mean is 160 + 9.5 of 255.
    bright = test.images.max(axis=(1, 2, 3)) > 150
    np.testing.assert_array_equal(bright, test.labels == ("anomalous_classes" in fields))


def test_the_same_images_are_drawn_each_time(root):
    first, second = (
        DataSet(data_config(root, normal_classes=("dot",))).split("val") for _ in range(2)
    )
    assert first.ids == second.ids
    np.testing.assert_array_equal(first.images, second.images)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("tfds:tiny_shapes", {}, "normal_classes: name the normal classes .*circle, cross, dot"),
        (
            "tfds:tiny_shapes",
            {"normal_classes": ("dot",), "anomalous_classes": ("cross",)},
            "normal_classes: name the normal classes",
        ),
        ("tfds:tiny_shapes", {"normal_classes": ("dott",)}, "has no class 'dott'; it has circle"),
        ("tfds:tiny_shapes", {"normal_classes": CLASSES}, "all classes .* are named; omit some"),
        ("tfds:tiny_unlabelled", {"normal_classes": ("dot",)}, "1 images and 0 labels"),
        ("tfds:no_such_set", {"normal_classes": ("dot",)}, "tfds:no_such_set cannot be opened"),
        (
            "tfds:tiny_shapes",
            {"normal_classes": ("dot",), "regroup": True},
            "regroup: has no effect",
        ),
    ],
)
def test_mistakes_are_named_in_one_line(root, name, fields, message):
    with pytest.raises(UserError, match=message) as raised:
        DataSet(data_config(root, name, **fields))
    assert "\n" not in str(raised.value)
