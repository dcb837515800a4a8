"""Data of another package: `config.data.name=module:function`, from training to a report."""

import dataclasses
import sys

import numpy as np
import pytest

import jaxad
from jaxad import cli
from jaxad import config as config_lib
from jaxad.data.external import check_columns
from jaxad.data.sources import DataSet
from jaxad.errors import UserError
from jaxad.types import Split

SIZE = 32

MODULE = """
import numpy as np
from jaxad.types import Split

calls = []


def make(name, patients, size, anomalous=False):
    calls.append(name)
    rng = np.random.default_rng(len(name) + patients)
    count = 2 * patients
    images = rng.uniform(0.2, 0.4, (count, size, size, 1)).astype(np.float32)
    masks = np.zeros((count, size, size), np.uint8)
    if anomalous:
        masks[::2, 8:16, 8:16] = 1
        images[masks == 1] += 0.5
    return Split(
        images=images,
        labels=masks.any(axis=(1, 2)).astype(np.int32),
        ids=tuple(f"{name}-{n}" for n in range(count)),
        groups=tuple(f"{name} patient {n // 2}" for n in range(count)),
        masks=masks if anomalous else None,
    )


def open_splits(data):
    size = data.image_size
    return {
        "train": lambda: make("train", 20, size),
        "test_square": lambda: make("square", 6, size, anomalous=True),
    }


def open_and_fail(data):
    raise KeyError("subject_7")


def open_with_late_failure(data):
    def read():
        raise OSError("no such disk")

    return {"train": read}


def open_eagerly(data):
    return {name: make(name, 4, data.image_size) for name in ("train", "val")}


def open_tests_only(data):
    return {"test": make("other", 3, data.image_size), "test_b": make("b", 3, data.image_size)}


def open_with_small_split(data):
    return {**open_splits(data), "val": make("val", 4, 16)}


def open_with_shared_patient(data):
    return {**open_splits(data), "val": make("train", 2, data.image_size)}


def open_list(data):
    return [1, 2]


def open_strange_name(data):
    return {"train": make("train", 4, 16), "../test": make("t", 4, 16)}


def open_array(data):
    return {"train": np.zeros(3)}


def open_lazy_array(data):
    return {"train": lambda: np.zeros(3), "val": make("val", 4, data.image_size)}


def open_without_train(data):
    return {"test": make("t", 4, data.image_size)}


def open_one_patient(data):
    return {"train": make("train", 1, data.image_size)}


number = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The module `my_data` in the current folder, outside the package."""
    (tmp_path / "my_data.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield "my_data"
    sys.modules.pop("my_data", None)


def data_config(name, **fields):
    data = config_lib.base().data
    data.update({"name": name, "image_size": SIZE, **fields})
    return data


def test_splits_are_read_when_needed_and_val_is_drawn_by_patient(module):
    data_set = DataSet(data_config("my_data:open_splits", val_share=0.2))
    calls = sys.modules["my_data"].calls
    assert data_set.split_names == ("train", "val", "test_square") and calls == []
    train, val = data_set.split("train"), data_set.split("val")
    assert calls == ["train"]
    # A fifth of 20 patients of two images each.
    assert len(val) == 8 and len(train) == 32
    assert not set(train.groups) & set(val.groups)
    data_set.check()
    again = DataSet(data_config("my_data:open_splits", val_share=0.2)).split("val")
    assert again.ids == val.ids
    assert data_set.split("test_square").masks.sum() == 6 * 64


def test_splits_may_be_given_at_once_with_val(module):
    data_set = DataSet(data_config("my_data:open_eagerly"))
    data_set.check()
    assert [len(data_set.split(name)) for name in ("train", "val")] == [8, 8]


def test_test_splits_for_another_data_set(module):
    data = data_config("my_data:open_splits")
    data.test.name = "my_data:open_tests_only"
    data_set = DataSet(data)
    names = ("test_square", "test_my_data", "test_my_data_b")
    assert data_set.test_split_names == names
    data_set.check()
    assert data_set.split("test_my_data").groups[0] == "my_data:other patient 0"


def test_natural_objects_are_rendered_into_a_test_split(module):
    data = data_config("my_data:open_splits", natural_objects="test_my_data")
    with pytest.raises(UserError, match="my_data:open_splits has no split 'test_my_data'"):
        DataSet(data)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("missing", "config.data.name: module 'my_data' has no 'missing'"),
        ("number", "'my_data:number' is a int; name a function"),
        ("open_list", "returned a list; return a mapping from the names of splits"),
        ("open_strange_name", "'../test' is not the name of a split; use 'train', 'val', 'test'"),
        (
            "open_and_fail",
            r"my_data:open_and_fail: raised KeyError: 'subject_7' \(my_data.py, line ",
        ),
        (
            "open_with_late_failure",
            r"split 'train': raised OSError: no such disk \(my_data.py, line",
        ),
        ("open_array", "split 'train' is a ndarray; return a jaxad.types.Split, or a function"),
        ("open_lazy_array", "split 'train': is a ndarray; return a jaxad.types.Split."),
        ("open_without_train", r"returned no split 'train', only \['test'\]"),
        ("open_one_patient", "val_share 0.1 of 1 patients leaves a split empty; return a split"),
        ("open_with_small_split", r"split 'val': images are \(16, 16, 1\)"),
        ("open_with_shared_patient", "patient 'train patient 0' is in splits 'train' and 'val'"),
    ],
)
def test_mistakes_are_reported_in_one_line(module, function, message):
    with pytest.raises(UserError, match=message) as error:
        DataSet(data_config(f"my_data:{function}")).check()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value", "is_refused"),
    [
        ("regroup", True, True),
        ("check_sizes", False, True),
        ("normal_classes", ("healthy",), False),
        ("modality", "flair", False),
    ],
)
def test_fields_of_our_own_readers_are_refused_and_others_reach_the_function(
    module, field, value, is_refused
):
    data = data_config("my_data:open_splits", **{field: value})
    if is_refused:
        with pytest.raises(UserError, match=f"config.data.{field}: "):
            DataSet(data)
    else:
        DataSet(data)


# --- The fields of one split.

COUNT = 3


def _split(**changes):
    split = Split(
        images=np.zeros((COUNT, 4, 4, 1), np.uint8),
        labels=np.array([0, 1, 0], np.int32),
        ids=("a", "b", "c"),
        groups=("p", "p", "q"),
    )
    for name, value in changes.items():  # past the types that tests check
        object.__setattr__(split, name, value)
    return split


def _masks(marked):
    masks = np.zeros((COUNT, 4, 4), np.uint8)
    masks[marked, 0, 0] = 1
    return masks


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": [[0]]}, "images is a list; give a NumPy array"),
        ({"labels": [0, 1, 0]}, "labels is a list; give a NumPy array"),
        ({"labels": np.zeros(2)}, r"labels has shape \(2,\), but images have shape \(3, 4, 4, 1\)"),
        ({"labels": np.zeros((3, 1))}, r"labels has shape \(3, 1\)"),
        ({"labels": np.array([0, 2, 0])}, "labels hold values other than 0 and 1"),
        ({"ids": ("a", "b")}, r"ids has shape \(2,\)"),
        ({"ids": ("a", 2, "c")}, "ids holds 2; give non-empty strings"),
        ({"groups": ("p", "", "q")}, "groups holds ''; give non-empty strings"),
        ({"positions": np.zeros(3)}, "positions are float64; give slice indices"),
        ({"extra": {"age": ("1", "2")}}, r"extra column 'age' has shape \(2,\), but images have"),
        ({"masks": np.zeros((3, 4, 5), np.uint8)}, r"masks have shape \(3, 4, 5\)"),
        ({"masks": 255 * _masks(1)}, "masks hold values other than 0 and 1"),
        ({"masks": _masks(0)}, "masks: marks anomalous pixels of 'a', which is labelled normal"),
        ({"masks": _masks([])}, "masks: is empty, but 'b' is labelled anomalous"),
    ],
)
def test_a_wrong_field_is_named(changes, message):
    with pytest.raises(UserError, match=f"^mine: .*{message}") as error:
        check_columns(_split(**changes), "mine")
    assert "\n" not in str(error.value)


def test_types_that_mean_the_same_are_converted():
    split = check_columns(
        _split(
            labels=np.array([False, True, False]),
            ids=["a", "b", "c"],
            groups=np.array(["a", "b", "c"]),
            masks=_masks(1).astype(bool),
            positions=np.arange(3),
        ),
        "mine",
    )
    assert split.labels.dtype == split.positions.dtype == np.int32
    assert split.masks.dtype == np.uint8 and split.ids == split.groups == ("a", "b", "c")
    assert split.unnamed == {"a", "b", "c"}  # every image counts as a patient
    assert dataclasses.replace(split).ids == split.ids  # passes the checks of types


# --- The whole way.


def test_a_run_trains_scores_calibrates_exports_and_reports(module, tmp_path, capsys):
    workdir, scored = tmp_path / "run", tmp_path / "scored"
    config = [
        "--config=pchvae:smoke", f"--workdir={workdir}", "--config.data.name=my_data:open_splits",
        f"--config.data.image_size={SIZE}", "--config.train.num_epochs=1",
        "--config.cpu_devices=8", "--config.evaluate.num_examples=1",
    ]  # fmt: skip
    assert cli.main(["--mode=inspect", *config]) == 0, capsys.readouterr().err
    assert cli.main(config) == 0, capsys.readouterr().err
    assert "my_data:open_splits" in (workdir / "report.html").read_text()
    assert (workdir / "eval/test_square/metrics.json").exists()
    rng = np.random.default_rng(1)
    images = rng.uniform(0.2, 0.4, (20, SIZE, SIZE, 1)).astype(np.float32)
    np.savez(tmp_path / "site.npz", image=images, group=np.arange(20))
    sys.modules.pop("my_data")  # calibration, scoring and export need no module
    (tmp_path / "my_data.py").unlink()
    for mode in (
        ["--mode=calibrate", f"--normals={tmp_path / 'site.npz'}"],
        ["--mode=score", f"--input={tmp_path / 'site.npz'}", f"--output={scored}"],
        ["--mode=export"],
    ):
        assert cli.main([*mode, f"--workdir={workdir}"]) == 0, capsys.readouterr().err
    assert len((scored / "scores.csv").read_text().splitlines()) == 21
    detector = jaxad.load(workdir)
    np.testing.assert_array_equal(detector.preprocess(images), images)
    with pytest.raises(UserError, match="a run on 'my_data:open_splits' takes prepared images"):
        detector.read(tmp_path)
