"""Arrays pass the same checks as files: names of patients, masks, types, leaks."""

import numpy as np
import pytest
from user_files import write_image, write_mask

from jaxad import config as config_lib
from jaxad.data.files.npz import read_npz
from jaxad.data.sources import DataSet
from jaxad.errors import UserError

SIZE, COUNT = 16, 4
SPLITS = ("train", "val", "test_x")
LABELS = np.array([0, 1, 1, 0])


def _images(seed, dtype=np.uint8):
    return np.random.default_rng(seed).integers(1, 255, (COUNT, SIZE, SIZE)).astype(dtype)


def _masks(labels=LABELS):
    masks = np.zeros((COUNT, SIZE, SIZE), np.uint8)
    masks[labels == 1, 4:9, 4:9] = 1
    return masks


def _write(root, **changes):
    """Writes an npz data set; `changes` are arrays by split, None leaves an array out."""
    for seed, name in enumerate(SPLITS):
        arrays = {"image": _images(seed), **({"label": LABELS} if name == "test_x" else {})}
        arrays |= changes.get(name, {})
        kept = {key: array for key, array in arrays.items() if array is not None}
        np.savez(root / f"{name}.npz", **kept)
    return root


def _data_set(root):
    data = config_lib.base().data
    data.name, data.root, data.image_size = "npz", str(root), SIZE
    return DataSet(data)


def _groups(*names, dtype=None):
    return {"group": np.array(names, dtype)}


# --- Patients.


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (_groups(7, 1, 1, 1), _groups(7.0, 5, 5, 5)),
        (_groups(7, 1, 1, 1), _groups("7", "b", "b", "b")),
        (_groups("7", "a", "a", "a"), _groups(b"7", b"b", b"b", b"b")),
        (_groups(7, 1, 1, 1, dtype=np.float16), _groups(7, 5, 5, 5, dtype=">i8")),
        (_groups("7 ", "a", "a", "a"), _groups("7", "b", "b", "b")),
        (_groups("M\u00fcller", *"aaa"), _groups("Mu\u0308ller", *"bbb")),
    ],
)
def test_a_patient_in_two_splits_is_found_whatever_its_type(tmp_path, train, test):
    with pytest.raises(UserError, match=r"patient '(7|M.*ller)' is in splits 'test_x' and 'train'"):
        _data_set(_write(tmp_path, train=train, test_x=test)).check()


@pytest.mark.parametrize(
    ("one", "other"),
    [("07", 7), ("P7", "p7"), ("7.0", "7"), ("sub-007", "SUB-07"), ("patient 3", "patient3")],
)
def test_spellings_of_one_patient_are_reported(tmp_path, one, other):
    changes = {"train": _groups(one, *"aaa"), "test_x": _groups(str(other), *"bbb")}
    with pytest.raises(UserError, match=f"'{other}' of 'test_x' and patient '{one}' of 'train'"):
        _data_set(_write(tmp_path, **changes)).check()


def test_other_patients_may_have_similar_names(tmp_path):
    train = _groups("P1", "1 2", "1.05", "2020-01-01")
    test = _groups("P10", "12", "1.5", "2020-10-01")
    _data_set(_write(tmp_path, train=train, test_x=test)).check()


@pytest.mark.parametrize(
    "groups",
    [
        _groups("a", "", "c", "d"),
        _groups("a", "nan", "c", "d"),
        _groups(1.0, np.nan, 3.0, 4.0),
        _groups(1.0, np.inf, 3.0, 4.0),
        _groups("a", "None", "<NA>", "d"),
        _groups(b"a", b" ", b"c", b"d"),
    ],
)
def test_a_patient_without_a_name_is_refused(tmp_path, groups):
    with pytest.raises(UserError, match=r"'group' has .* in row 1.*; name the patient of every"):
        _data_set(_write(tmp_path, train=groups)).split("train")


def test_names_of_images_are_text(tmp_path):
    names = {"id": np.array([b"ann", b"bob", b"eve", b"kim"])}
    assert _data_set(_write(tmp_path, train=names)).split("train").ids[0] == "ann"


# --- Names of arrays.


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("labels", "rename it to 'label' or remove it"),
        ("groups", "rename it to 'group' or"),
        ("patient", "rename it to 'group' or"),
        ("patient_id", "rename it to 'group' or"),
        ("masks", "rename it to 'mask' or"),
        ("Segmentations", "rename it to 'mask' or"),
        ("images", "rename it to 'image' or"),
        ("ids", "rename it to 'id' or"),
        ("slices", "rename it to 'position' or"),
        ("arr_0", "rename it or remove it"),
    ],
)
@pytest.mark.parametrize("split", SPLITS)
def test_an_array_of_an_unknown_name_is_refused(tmp_path, split, name, remedy):
    data_set = _data_set(_write(tmp_path, **{split: {name: LABELS}}))
    message = f"{split}.npz: array '{name}' is none of image, label, mask, id, group, position; "
    with pytest.raises(UserError, match=message + remedy):
        data_set.check()


def test_letter_case_of_names_of_arrays_does_not_count(tmp_path):
    changed = {"label": None, "Label": LABELS, "MASK": _masks(), "Group": np.array(list("abca"))}
    split = _data_set(_write(tmp_path, test_x=changed)).split("test_x")
    np.testing.assert_array_equal(split.labels, LABELS)
    np.testing.assert_array_equal(split.masks, _masks())
    assert split.groups == ("a", "b", "c", "a")
    _write(tmp_path, train={"image": None, "Image": _images(0), "Label": LABELS})
    with pytest.raises(UserError, match="'train-1' is labelled anomalous; only normal images"):
        _data_set(tmp_path).split("train")


def test_two_arrays_of_one_name_are_refused(tmp_path):
    data_set = _data_set(_write(tmp_path, test_x={"Label": LABELS}))
    with pytest.raises(UserError, match="the arrays 'label' and 'Label' have the same name"):
        data_set.split("test_x")


# --- Masks and labels.


@pytest.mark.parametrize(
    "masks",
    [
        _masks(),
        _masks().astype(bool),
        _masks().astype(np.int8),
        _masks() * np.int64(2**40),
        _masks().astype(">u2") * 255,
        _masks().astype(np.float64),
        _masks().astype(np.float32) * np.float32(0.99999),  # a scaled integer
        np.asfortranarray(_masks()),
        _masks() * (np.arange(SIZE) % 3 + 1).astype(np.uint8),  # class numbers
    ],
    ids=lambda masks: str(masks.dtype),
)
def test_masks_of_any_type_mark_what_is_not_0(tmp_path, masks):
    split = _data_set(_write(tmp_path, test_x={"mask": masks})).split("test_x")
    np.testing.assert_array_equal(split.masks, _masks())
    assert split.masks.dtype == np.uint8


def _with(value, dtype):
    masks = _masks().astype(dtype)
    masks[2, 5, 5] = value
    return masks


def _soft():
    masks = _masks() * 255
    masks[2, 4, 4:9] = 100
    return masks


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        (_masks().astype(np.int8) * np.int8(-1), "of 'test_x-1': the mask has values below 0"),
        (_with(-1, np.int64), "of 'test_x-2': the mask has values below 0, down to -1"),
        (_with(np.nan, np.float32), "of 'test_x-2': the mask has NaN or infinite values"),
        (_with(0.25, np.float32), "of 'test_x-2': the mask has 2 values beside 0, from 0.25 to 1"),
        (_soft(), "of 'test_x-2': the mask has 2 values beside 0, from 100 to 255"),
        (_masks().astype(np.complex64), "'mask': holds complex64; give real numbers"),
        (_masks().astype(str), "'mask': holds <U3; give real numbers"),
        (
            _masks()[:, :8],
            r"'mask' has shape \(4, 8, 16\), but the images need \(4, 16, 16\); give a",
        ),
        (_masks()[:3], "'mask' has 3 rows, but 'image' has 4"),
        (_masks()[0], "'mask' has 16 rows, but 'image' has 4"),
    ],
)
def test_what_is_no_mask_is_refused_by_its_image(tmp_path, masks, expected):
    with pytest.raises(UserError, match=expected):
        _data_set(_write(tmp_path, test_x={"mask": masks})).split("test_x")


@pytest.mark.parametrize(
    ("masks", "labels", "expected"),
    [
        (_masks() * 0, LABELS, r"is empty, but 2 images \('test_x-1', 'test_x-2'\) are labelled"),
        (_masks(), LABELS * 0, r"marks anomalous pixels of 2 images \('test_x-1', 'test_x-2'\),"),
        (
            np.roll(_masks(), 1, axis=0),
            LABELS,
            "marks anomalous pixels of 'test_x-3', which is labelled normal, and is empty, but "
            "'test_x-1' is labelled anomalous.*in one order",
        ),
        (_masks(), np.roll(LABELS, 1), "of 'test_x-1', which is labelled normal, and is empty"),
        (_masks(1 - LABELS), LABELS, r"of 2 images \('test_x-0', 'test_x-3'\), which are labelled"),
    ],
    ids=["empty", "normal", "masks-shifted", "labels-shifted", "of-another-split"],
)
def test_masks_that_contradict_labels_are_named(tmp_path, masks, labels, expected):
    data_set = _data_set(_write(tmp_path, test_x={"mask": masks, "label": labels}))
    with pytest.raises(UserError, match=f"test_x.npz: 'mask': .*{expected}") as raised:
        data_set.split("test_x")
    assert "\n" not in str(raised.value)


def test_masks_of_images_to_learn_from_are_empty(tmp_path):
    _write(tmp_path, train={"mask": _masks() * 0}, val={"mask": _masks()})
    assert not _data_set(tmp_path).split("train").masks.any()
    with pytest.raises(UserError, match=r"val.npz: 'mask': marks anomalous pixels of 2 images"):
        _data_set(tmp_path).split("val")


def test_files_and_arrays_are_reported_in_the_same_words(tmp_path):
    root = tmp_path / "files"
    for number in range(4):
        write_image(root / f"train/good/{number}.png", 100 + number)
    write_image(root / "test/crack/0.png", 150)
    write_mask(root / "ground_truth/crack/0.png", marked=False)
    data = config_lib.base().data
    data.name, data.root, data.image_size = "folder", str(root), SIZE
    with pytest.raises(UserError) as of_files:
        DataSet(data).split("test")
    labels = np.array([0, 1, 0, 0])
    _write(tmp_path, test_x={"mask": _masks() * 0, "label": labels})
    with pytest.raises(UserError) as of_arrays:
        _data_set(tmp_path).split("test_x")
    text = [str(one.value).partition(": is empty")[2] for one in (of_files, of_arrays)]
    of_file, remedy, _ = text[0].partition(" Or leave out every bad file")
    assert remedy and of_file.replace("test/crack/0.png", "test_x-1") == text[1]


# --- Images.


@pytest.mark.parametrize("dtype", [">u2", ">f4", ">f8", "<f2", ">f2"])
def test_any_order_of_bytes_is_read(tmp_path, dtype):
    images = _images(9, np.uint16) * 257
    written = images.astype(dtype) if dtype == ">u2" else (images / 65535).astype(dtype)
    split = _data_set(_write(tmp_path, train={"image": np.asfortranarray(written)})).split("train")
    assert split.images.dtype.isnative
    np.testing.assert_array_equal(split.images[..., 0], written)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("c8", "'image': holds complex64; give real numbers"),
        ("U3", "'image': holds <U3; give real numbers"),
        (">i4", "images are int32; give uint8, uint16 or float"),
        ("?", "images are bool; give uint8, uint16 or float"),
        ("M8[s]", "'image': holds datetime64.*; give real numbers"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path, dtype, expected):
    data_set = _data_set(_write(tmp_path, train={"image": _images(9).astype(dtype)}))
    with pytest.raises(UserError, match=expected):
        data_set.split("train")


def test_labels_are_0_and_1(tmp_path):
    for labels in (LABELS + 0j, LABELS.astype(str), LABELS * 2, LABELS - 0.5):
        _write(tmp_path, test_x={"label": labels})
        with pytest.raises(UserError, match="'label' holds values other than 0"):
            _data_set(tmp_path).split("test_x")
    for dtype in (bool, ">i4", ">f8", np.int8):
        _write(tmp_path, test_x={"label": LABELS.astype(dtype)})
        np.testing.assert_array_equal(_data_set(tmp_path).split("test_x").labels, LABELS)


def test_an_image_that_is_learnt_from_is_in_no_other_split(tmp_path):
    images = _images(0)[::-1]
    for test in (images, images / 255, images.astype(">u2") * 257, (images / 255).astype("f4")):
        _write(tmp_path, test_x={"image": test})
        with pytest.raises(UserError, match="image 'test_x-0' of 'test_x' is 'train-3' of 'train'"):
            _data_set(tmp_path).check()


def test_constant_images_are_named(tmp_path):
    images = _images(0)
    images[1], images[3] = 0, 7
    with pytest.raises(UserError, match=r"2 images \('train-1', 'train-3'\) are constant"):
        _data_set(_write(tmp_path, train={"image": images})).split("train")
    images[1, 0, 1] = 1  # not in the sample that is compared first
    images[3] = images[0]
    _data_set(_write(tmp_path, train={"image": images})).split("train")


def test_a_file_to_score_may_have_masks_and_no_labels(tmp_path):
    np.savez(tmp_path / "a.npz", image=_images(0), mask=_masks())
    assert len(read_npz(tmp_path / "a.npz", needed=(), is_labelled=False)) == COUNT
