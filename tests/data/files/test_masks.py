"""Masks of a split that mark no anomalies but the background or the foreground."""

import dataclasses
import re

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from user_files import data_config, write_scan

from jaxad.data.files.masks import check_coverage
from jaxad.data.sources import DataSet
from jaxad.errors import UserError
from jaxad.types import Split

SIZE, COUNT = 32, 6


def _disc(radius, row=15.5, column=15.5):
    rows, columns = np.indices((SIZE, SIZE))
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def _split(masks, foreground=None):
    """A split of noise images with these masks; the images are 0 outside of `foreground`."""
    images = np.random.default_rng(0).integers(1, 255, (len(masks), SIZE, SIZE, 1), np.uint8)
    if foreground is not None:
        images *= foreground[..., None].astype(np.uint8)
    masks = np.array(masks, np.uint8)
    return Split(
        images=images,
        labels=masks.any(axis=(1, 2)).astype(np.int32),
        ids=tuple(f"i{place}" for place in range(len(masks))),
        groups=tuple(f"i{place}" for place in range(len(masks))),
        masks=masks,
    )


_GRADIENT = np.linspace(0.2, 0.9, 16).astype(np.float32)[:, None, None]
WHOLE, HOLE = np.ones((SIZE, SIZE), bool), _disc(1, 20, 20)
LESIONS = [_disc(3 + place % 3, 10 + place, 14 + place) for place in range(COUNT)]


@pytest.mark.parametrize(
    ("masks", "foreground"),
    [
        (LESIONS, None),
        (LESIONS, _disc(14)),
        ([*LESIONS, np.ones((SIZE, SIZE), bool)], None),
        ([_disc(15), *LESIONS], None),  # one large lesion: 69 % of the image
        ([_disc(11)] * COUNT, None),  # 37 % of it
        ([np.zeros((SIZE, SIZE), bool)] * 2, None),
        ([~LESIONS[0], *LESIONS], None),  # one of seven is inverted
        ([LESIONS[0], LESIONS[1], np.ones((SIZE, SIZE), bool)], None),
        # One odd mask does not mean that masks of whole images are inverted.
        ([WHOLE] * 2 + [WHOLE & ~HOLE] + LESIONS[:4], None),
        ([WHOLE] * 4 + [~LESIONS[0]] + LESIONS + LESIONS[:2], None),
    ],
)
def test_lesions_of_any_size_pass(masks, foreground):
    assert check_coverage(_split(masks, foreground), "x") == ""


@pytest.mark.parametrize(
    ("masks", "foreground"),
    [
        ([~lesion for lesion in LESIONS], None),
        ([~lesion for lesion in LESIONS], _disc(14)),
        ([~lesion for lesion in LESIONS[:1]], None),
        # A square image that was padded on both sides.
        ([~lesion & (np.arange(SIZE) >= 4) & (np.arange(SIZE) < 28) for lesion in LESIONS], None),
        # Exactly the background, 26 % of the image.
        ([~_disc(15.5)] * COUNT, _disc(15.5)),
        ([~lesion for lesion in LESIONS[:3]] + LESIONS[3:], None),
        # A quarter are inverted, so masks of whole images are, too.
        ([~lesion for lesion in LESIONS[:2]] + [WHOLE] * 4 + LESIONS[:2], None),
    ],
)
def test_inverted_masks_are_refused(masks, foreground):
    with pytest.raises(UserError, match=r"x: \d of \d masks.* cover the background.*: invert them"):
        check_coverage(_split(masks, foreground), "x")


def test_slices_without_a_lesion_are_inverted_where_the_others_are():
    """Most slices of a scan have no lesion: only 2 of 12 masks leave anything out."""
    split = _split([~LESIONS[0], ~LESIONS[1], *[WHOLE] * 10])
    slices = dataclasses.replace(split, positions=np.arange(12, dtype=np.int32))
    with pytest.raises(UserError, match="x: 12 of 12 masks.* cover the background"):
        check_coverage(slices, "x")
    # One odd mask among lesions is no inverted lesion.
    split = _split([WHOLE & ~HOLE, *LESIONS[:3], *[WHOLE] * 4])
    slices = dataclasses.replace(split, positions=np.arange(8, dtype=np.int32))
    assert check_coverage(slices, "x").endswith("do they mark anomalies?")


@pytest.mark.parametrize(
    ("masks", "foreground", "expected"),
    [
        ([_disc(14)] * COUNT, _disc(14), "6 of 6 masks.* cover the whole foreground"),
        ([_disc(14)] * COUNT, None, "cover 60% of an image in the median"),
        ([WHOLE] * COUNT, None, "cover 100% of an image in the median"),
        ([WHOLE] * 3 + [WHOLE & ~HOLE] + LESIONS[:2], None, "cover 100% of an image in the median"),
    ],
)
def test_masks_of_something_else_are_reported(masks, foreground, expected):
    note = check_coverage(_split(masks, foreground), "x")
    assert note.endswith("do they mark anomalies?")
    assert re.search(expected, note), note


def test_inverted_mask_files_end_before_training(mvtec):
    for number in range(2):
        path = mvtec / f"ground_truth/crack/{number}_mask.png"
        pixels = np.full((20, 20), 255, np.uint8)
        pixels[4:9, 4:9] = 0
        Image.fromarray(pixels).save(path)
    with pytest.raises(UserError, match="folder split 'test': 2 of 2 masks.*test/crack/0.png"):
        DataSet(data_config(mvtec)).check()


def test_scans_whose_masks_are_inverted(tmp_path):
    for number in range(5):
        write_scan(tmp_path / f"{number}.nii.gz", number, lesion=16 if number < 2 else None)
    DataSet(data_config(tmp_path, "nifti")).check()
    for number in range(2):
        path = tmp_path / f"{number}_mask.nii.gz"
        mask = nib.load(path)
        inverted = 1 - np.asarray(mask.dataobj)
        nib.save(nib.Nifti1Image(inverted, mask.affine), path)
    with pytest.raises(UserError, match="nifti split 'test': .* cover the background"):
        DataSet(data_config(tmp_path, "nifti")).check()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda mask: mask.astype(np.float32) * 0.5 + 0.5, "2 values and is nowhere 0"),
        (lambda mask: mask + np.uint8(1), "2 values and is nowhere 0"),
        (lambda mask: mask.astype(np.int16) - 1, "values below 0, down to -1"),
        (lambda mask: mask * _GRADIENT, "edge is uncertain"),
        (lambda mask: mask.astype(">i2") * 4, ""),  # class numbers, as in BraTS
        (lambda mask: mask.astype(">f8") * 0.99999, ""),
        (lambda mask: mask.astype(np.uint8) * 255, ""),
    ],
)
def test_masks_of_scans_are_held_to_the_same(tmp_path, change, expected):
    for number in range(5):
        write_scan(tmp_path / f"{number}.nii.gz", number, lesion=16 if number == 0 else None)
    before = DataSet(data_config(tmp_path, "nifti")).split("test").masks
    path = tmp_path / "0_mask.nii.gz"
    mask = nib.load(path)
    nib.save(nib.Nifti1Image(change(np.asarray(mask.dataobj)), mask.affine), path)
    data_set = DataSet(data_config(tmp_path, "nifti"))
    if expected == "":
        np.testing.assert_array_equal(data_set.split("test").masks, before)
        return
    with pytest.raises(UserError, match=expected):
        data_set.split("test")


def test_a_turned_photograph_with_a_mask_of_its_stored_pixels(mvtec):
    image = mvtec / "test/crack/0.png"
    exif = Image.Exif()
    exif[274] = 3
    pixels = np.random.default_rng(0).integers(0, 255, (20, 20), np.uint8)
    Image.fromarray(pixels).save(image, exif=exif)
    with pytest.raises(UserError, match=r"0_mask.png: it is uncertain which way up the mask lies"):
        DataSet(data_config(mvtec)).split("test")
    skipped = DataSet(data_config(mvtec, on_error="skip")).split("test")
    assert "test/crack/0.png" not in skipped.ids and len(skipped) == 3
    # The remedy: without the tag.
    Image.fromarray(pixels).save(image)
    assert len(DataSet(data_config(mvtec)).split("test")) == 4
    # Without a mask, nothing is uncertain.
    Image.fromarray(pixels).save(mvtec / "test/good/0.png", exif=exif)
    assert len(DataSet(data_config(mvtec)).split("test")) == 4
