"""Slices of scans: orientation, selection, intensities, labels and masks."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxad.data.prepare.cutting import Cutting, cut
from jaxad.data.prepare.preparation import Preparation
from jaxad.data.readers.volumes import Volume
from jaxad.errors import DataError, UserError

SIDE = 8
RIGHT, FRONT, TOP = 0, 1, 2  # axes of voxels


def _volume(voxels, spacing=(1.0, 1.0, 1.0), name="scan.nii"):
    return Volume(voxels, np.diag([*spacing, 1.0]), Path(name))


def _cube(seed=0, dtype=np.uint8, shape=(SIDE, SIDE, SIDE)):
    return np.random.default_rng(seed).integers(1, 255, shape).astype(dtype)


#: Keeps the intensities and, for a cube of SIDE, the size.
PLAIN = Preparation(SIDE, 1, "range")


def _cut(voxels, mask=None, preparation=PLAIN, spacing=(1.0, 1.0, 1.0), **cutting):
    marked = None if mask is None else _volume(mask, spacing, "mask.nii")
    return cut([_volume(voxels, spacing)], marked, preparation, Cutting(**cutting))


@pytest.mark.parametrize(
    ("plane", "through", "up", "right"),
    [("axial", TOP, FRONT, RIGHT), ("coronal", FRONT, TOP, RIGHT), ("sagittal", RIGHT, TOP, FRONT)],
)
def test_which_way_slices_are_shown(plane, through, up, right):
    voxels = _cube()
    slices = _cut(voxels, plane=plane)
    assert slices.images.shape == (SIDE, SIDE, SIDE, 1) and slices.images.dtype == np.uint16
    assert slices.positions.tolist() == list(range(SIDE)) and slices.num_left_out == 0
    assert slices.labels is None and slices.masks is None
    for number, row, column in np.ndindex(SIDE, SIDE, SIDE):
        place = [0, 0, 0]
        place[through], place[up], place[right] = number, SIDE - 1 - row, column
        assert slices.images[number, row, column, 0] == 257 * int(voxels[tuple(place)])


def test_masks_lie_where_their_scan_does():
    voxels, mask = np.zeros((SIDE,) * 3, np.uint8), np.zeros((SIDE,) * 3, np.int16)
    mask[1:5, 2:6, 3:7] = -4  # whatever is not 0
    voxels[mask != 0] = 200
    for plane in ("axial", "coronal", "sagittal"):
        slices = _cut(voxels, mask, plane=plane)
        assert slices.labels.tolist() == [1, 1, 1, 1] and slices.masks.dtype == np.uint8
        np.testing.assert_array_equal(slices.masks, slices.images[..., 0] > 0)


@pytest.mark.parametrize(
    ("slices", "expected"),
    [((), range(8)), ((2, 5), range(2, 5)), ((2, -2), range(2, 6)), ((0, 8, 3), (0, 3, 6))],
)
def test_which_slices(slices, expected):
    assert _cut(_cube(), slices=slices).positions.tolist() == list(expected)


def test_no_slice_in_range():
    with pytest.raises(
        DataError, match=r"scan\.nii: has 8 slices, none in .*slices=\(8, 20\); wid"
    ):
        _cut(_cube(), slices=(8, 20))


def test_slices_with_little_in_them_are_left_out():
    voxels = np.zeros((10, 10, 4), np.uint8)
    for number, count in enumerate((0, 1, 2, 50)):  # of 100 pixels
        voxels.reshape(100, 4)[:count, number] = 9
    slices = _cut(voxels, min_foreground=0.02)
    assert slices.positions.tolist() == [2, 3] and slices.num_left_out == 2
    assert _cut(voxels, min_foreground=0.0).positions.tolist() == [1, 2, 3]  # but never empty ones
    assert _cut(voxels, min_foreground=0.9).images.shape == (0, SIDE, SIDE, 1)


def test_all_channels_are_foreground():
    left, right = np.zeros((2, SIDE, SIDE, SIDE), np.uint8)
    left[:4], right[:, :, 3] = 100, 100
    volumes = [_volume(left), _volume(right, name="other.nii")]
    slices = cut(volumes, None, Preparation(SIDE, 2, "range"), Cutting(min_foreground=0.6))
    assert slices.positions.tolist() == [3]
    np.testing.assert_array_equal(slices.images[0, ..., 0] > 0, left[:, ::-1, 3].T > 0)
    np.testing.assert_array_equal(slices.images[0, ..., 1] > 0, np.ones((SIDE, SIDE), bool))
    moved = Volume(right, np.diag([1.0, 1.0, 2.0, 1.0]), Path("other.nii"))
    with pytest.raises(DataError, match=r"other\.nii: the modality lies up to 7 mm away"):
        cut([volumes[0], moved], None, Preparation(SIDE, 2), Cutting())


def test_a_slice_is_normalised_with_its_scan():
    """A slice that is darker than others stays so."""
    voxels = np.random.default_rng(0).normal(size=(SIDE,) * 3) + np.linspace(500, 1500, SIDE)
    images = _cut(voxels, preparation=Preparation(SIDE, 1)).images[..., 0] / 65535
    score = np.clip((voxels - voxels.mean()) / voxels.std(), -3, 3)  # `auto` is zscore
    expected = np.maximum((score + 3) / 6, 1 / 255)
    np.testing.assert_allclose(images, expected.transpose(2, 1, 0)[:, ::-1], atol=1 / 65535)
    assert (np.diff(images.mean(axis=(1, 2))) > 0.05).all()


def test_pixels_are_square_whatever_the_voxels_are():
    """A ball is round in every plane; 16 slices of 2 mm, 32 columns of 1 mm, 64 rows of 0.5 mm."""
    spacing = (1.0, 0.5, 2.0)
    axes = [(np.arange(32 / step) + 0.5) * step - 16 for step in spacing]
    ball = sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")) < 12**2
    for plane in ("axial", "coronal", "sagittal"):
        slices = _cut(
            ball * np.uint8(255),
            preparation=Preparation(32, 1, "range"),
            spacing=spacing,
            plane=plane,
        )
        middle = slices.images[len(slices.images) // 2, ..., 0] > 32768
        heights, widths = middle.sum(axis=0).max(), middle.sum(axis=1).max()
        assert abs(heights - 24) <= 2 and abs(widths - 24) <= 2  # 24 mm, to a voxel
        rows, columns = (np.flatnonzero(middle.any(axis=axis)) for axis in (1, 0))
        assert abs(rows.mean() - 15.5) <= 1 and abs(columns.mean() - 15.5) <= 1


def test_a_field_of_view_is_what_is_seen():
    voxels = _cube(shape=(16, 16, 2))
    seen = _cut(voxels, field_of_view=8.0).images
    np.testing.assert_array_equal(seen, _cut(voxels[4:-4, 4:-4]).images)
    wide = _cut(voxels, field_of_view=32.0).images[..., 0]  # 16 mm in the middle of 8 pixels
    assert wide[:, 2:6, 2:6].all() and wide.sum() == wide[:, 2:6, 2:6].sum()


def test_slices_at_another_distance():
    """12 slices at 1 mm become 6 at 2 mm: a triangle filter with weights 1, 3, 3, 1."""
    voxels = _cube(dtype=np.float64, shape=(SIDE, SIDE, 12)) / 255
    slices = _cut(voxels)
    resampled = cut([_volume(voxels)], None, PLAIN, Cutting(spacing=2.0))
    assert len(slices.images) == 12 and resampled.positions.tolist() == list(range(6))
    planes = voxels.transpose(2, 1, 0)[:, ::-1]
    expected = np.average(planes[3:7], axis=0, weights=(1, 3, 3, 1))  # around 5 mm, the third
    np.testing.assert_allclose(resampled.images[2, ..., 0] / 65535, expected, atol=1e-5)


def _marked(*counts):
    """Returns a mask of 16 x 16 pixels with `counts` marked pixels per slice, near the middle."""
    mask = np.zeros((16, 16, len(counts)), np.uint8)
    for number, count in enumerate(counts):
        inner = np.zeros(64, np.uint8)
        inner[:count] = 1
        mask[4:-4, 4:-4, number] = inner.reshape(8, 8)
    return mask


@pytest.mark.parametrize(
    ("least", "labels"),
    [(0, [0, 1, 1, 1, 1]), (10, [0, None, None, 1, 1]), (63, [0, None, None, None, 1])],
)
def test_slices_that_are_hardly_anomalous_are_left_out(least, labels):
    mask = _marked(0, 1, 10, 11, 64)
    slices = _cut(_cube(shape=mask.shape), mask, min_lesion_pixels=least)
    assert slices.positions.tolist() == [n for n, label in enumerate(labels) if label is not None]
    assert slices.labels.tolist() == [label for label in labels if label is not None]
    assert slices.num_left_out == labels.count(None)
    np.testing.assert_array_equal(slices.masks.any(axis=(1, 2)), slices.labels)


def test_a_lesion_out_of_view_makes_a_slice_neither_normal_nor_anomalous():
    mask = np.zeros((16, 16, 3), np.uint8)
    mask[:2, :, 1] = 1  # 32 pixels at the border
    mask[:6, 4:-4, 2] = 1  # 48 pixels, 16 of them within the middle 8 mm
    slices = _cut(_cube(shape=mask.shape), mask, field_of_view=8.0)
    assert slices.positions.tolist() == [0, 2] and slices.labels.tolist() == [0, 1]
    assert slices.masks.sum(axis=(1, 2)).tolist() == [0, 16]
    whole = _cut(_cube(shape=mask.shape), mask)
    assert whole.labels.tolist() == [0, 1, 1]


def test_a_lesion_between_slices_makes_none_of_them_normal():
    """One marked slice of 1 mm is a third of one slice of 3 mm, and touches two more."""
    mask = np.zeros((SIDE, SIDE, 15), np.uint8)
    mask[2:6, 2:6, 7] = 1
    slices = cut([_volume(_cube(shape=mask.shape))], _volume(mask), PLAIN, Cutting(spacing=3.0))
    assert slices.positions.tolist() == [0, 1, 3, 4] and not slices.labels.any()
    mask[2:6, 2:6, 6:9] = 1
    slices = cut([_volume(_cube(shape=mask.shape))], _volume(mask), PLAIN, Cutting(spacing=3.0))
    # The neighbouring slices are marked in part: neither normal nor anomalous.
    assert slices.positions.tolist() == [0, 2, 4] and slices.labels.tolist() == [0, 1, 0]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.tuples(*[st.integers(4, 20)] * 3),
    st.tuples(*[st.sampled_from([0.5, 1.0, 2.5])] * 3),
    st.sampled_from(["axial", "coronal", "sagittal"]),
    st.sampled_from(["pad", "crop", "stretch"]),
    st.sampled_from([0.0, 5.0, 30.0]),
    st.sampled_from([0.0, 0.7, 3.0]),
    st.integers(0, 2**32 - 1),
)
def test_labels_and_masks_agree(shape, steps, plane, square, view, spacing, seed):
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, np.uint8)
    start = [rng.integers(length) for length in shape]
    mask[tuple(slice(first, first + rng.integers(1, 8)) for first in start)] = 1
    slices = cut(
        [_volume(rng.uniform(1, 2, shape), steps)],
        _volume(mask, steps, "mask.nii"),
        Preparation(12, 1, square=square),
        Cutting(plane, (), spacing, view, 0.0, 0),
    )
    np.testing.assert_array_equal(slices.masks.any(axis=(1, 2)), slices.labels)
    assert slices.images.shape == (len(slices.positions), 12, 12, 1)
    assert (np.diff(slices.positions) > 0).all()


@pytest.mark.parametrize("slices", [(1,), (1, 2, 0), (5, 1, -1)])
def test_slices_that_mean_nothing_are_named(slices):
    with pytest.raises(UserError, match=r"^config\.data\.volume\.slices: .*\.$") as raised:
        Cutting(slices=slices)
    assert "\n" not in str(raised.value)
