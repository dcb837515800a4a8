"""Resizing: a triangle filter, and properties of every resized image and mask."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import resize as skimage_resize

from jaxad.data.prepare.framing import Frame, resample_axis
from jaxad.data.prepare.preparation import Preparation
from jaxad.data.prepare.prepare_images import prepare_image

few = settings(max_examples=60, deadline=None, derandomize=True)
squares = st.sampled_from(["pad", "crop", "stretch"])
sides = st.integers(1, 24)
seeds = st.integers(0, 2**32 - 1)


def _frame(height, width, side, square="pad"):
    return Frame.of((height, width), Preparation(side, 1, square=square))


@few
@given(sides, sides, st.integers(1, 20))
def test_padding_keeps_the_content_in_the_middle(height, width, side):
    frame = _frame(height, width, side)
    square = frame.resize(np.ones((height, width, 1), np.float32))[..., 0]
    rows, columns = np.flatnonzero(square.any(axis=1)), np.flatnonzero(square.any(axis=0))
    longer = max(height, width)
    for length, seen in ((height, rows), (width, columns)):
        # Proportional, rounded, at least one pixel.
        assert len(seen) == max(1, round(side * length / longer))
        before, after = seen[0], side - 1 - seen[-1]
        assert after - before in (0, 1) and seen[-1] - seen[0] == len(seen) - 1
    np.testing.assert_allclose(square[np.ix_(rows, columns)], 1, rtol=1e-6)


@few
@given(sides, sides, st.integers(1, 20), squares, st.floats(0, 1))
def test_a_constant_stays_constant(height, width, side, square, value):
    frame = _frame(height, width, side, square)
    seen = frame.resize(np.full((height, width, 1), value, np.float32))
    covered = frame.resize(np.ones((height, width, 1), np.float32)) > 0.5
    np.testing.assert_allclose(seen, covered * np.float32(value), rtol=1e-6)
    bytes_ = frame.resize(np.full((height, width, 1), 200, np.uint8))
    np.testing.assert_array_equal(bytes_, covered * np.uint8(200))


@few
@given(st.integers(2, 5), st.integers(6, 12), seeds)
def test_downsampling_keeps_the_mean(factor, side, seed):
    """Triangles of width 2 * factor at a distance of factor add up to 1 away from the border."""
    length = side * factor
    margin = 2 * factor
    pixels = np.zeros((length, length, 1), np.float32)
    inner = length - 2 * margin
    pixels[margin:-margin, margin:-margin] = np.random.default_rng(seed).random((inner, inner, 1))
    frame = _frame(length, length, side)
    assert frame.resize(pixels).mean() == pytest.approx(pixels.mean(), rel=1e-5)
    # Each step of uint8, rows and columns, rounds by at most half a level.
    levels = np.rint(pixels * 255).astype(np.uint8)
    assert frame.resize(levels).mean() == pytest.approx(levels.mean(), abs=1)


def _triangle(length, count, start, end):
    """Returns [count, length] weights of triangles of at least one pixel to either side."""
    scale = (end - start) / count
    middles = start + (np.arange(count) + 0.5) * scale
    distances = np.abs(np.arange(length) + 0.5 - middles[:, None])
    weights = np.maximum(0, 1 - distances / max(scale, 1))
    return weights / weights.sum(axis=1, keepdims=True)


@few
@given(sides, sides, st.integers(1, 20), squares, seeds)
def test_resizing_is_a_triangle_filter(height, width, side, square, seed):
    pixels = np.random.default_rng(seed).random((height, width, 3), np.float32)
    # See `Preparation.square`: the longer side, the shorter side or each side becomes `side`.
    seen = {"pad": (height, width), "crop": (min(height, width),) * 2, "stretch": (height, width)}
    longer = max(seen[square])
    sizes = [
        side if square == "stretch" else max(1, round(side * n / longer)) for n in seen[square]
    ]
    rows, columns = (
        _triangle(whole, size, (whole - part) / 2, (whole + part) / 2)
        for whole, size, part in zip((height, width), sizes, seen[square], strict=True)
    )
    expected = np.zeros((side, side, 3))
    top, left = (side - sizes[0]) // 2, (side - sizes[1]) // 2
    expected[top : top + sizes[0], left : left + sizes[1]] = np.einsum(
        "ah,bw,hwc->abc", rows, columns, pixels
    )
    frame = _frame(height, width, side, square)
    np.testing.assert_allclose(frame.resize(pixels), expected, atol=2e-6)


def test_resizing_agrees_with_another_library_where_nothing_is_fine():
    # For waves of at least 25 pixels, the filter hardly matters.
    x, y = np.meshgrid(np.arange(100), np.arange(100))
    pixels = (0.5 + 0.3 * np.sin(x / 4) * np.cos(y / 6)).astype(np.float32)
    frame = _frame(100, 100, 50)
    expected = skimage_resize(pixels, (50, 50), order=1, anti_aliasing=True)
    resized = frame.resize(pixels[..., None])[..., 0]
    np.testing.assert_allclose(resized[2:-2, 2:-2], expected[2:-2, 2:-2], atol=0.01)


def test_detail_finer_than_a_pixel_becomes_grey():
    pixels = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None]
    image = prepare_image(pixels, Preparation(16, 1), "board")
    assert np.abs(image[1:-1, 1:-1].astype(int) - 127).max() <= 1


def test_field_of_view():
    # 40 rows of 0.5 mm and 10 columns of 4 mm: 20 x 40 mm.
    spacing, preparation = (0.5, 4.0), Preparation(32, 1)
    whole = Frame.of((40, 10), preparation, spacing)
    assert whole.box == (0, 0, 40, 10) and whole.size == (16, 32)
    wider = Frame.of((40, 10), preparation, spacing, field_of_view=80.0)
    assert wider.box == (0, 0, 40, 10) and wider.size == (8, 16)
    # The middle 10 mm: 20 rows and 2.5 columns.
    narrow = Frame.of((40, 10), preparation, spacing, field_of_view=10.0)
    assert narrow.box == (10, 3.75, 30, 6.25) and narrow.size == (32, 32)
    crop = Frame.of((40, 10), Preparation(32, 1, square="crop"), spacing)
    assert crop.box == (0, 2.5, 40, 7.5) and crop.size == (32, 32)


@pytest.mark.parametrize(
    ("spacing", "wanted", "count"), [(1.0, 2.0, 6), (2.0, 1.0, 24), (3.0, 7.0, 5)]
)
def test_slices_at_another_distance(spacing, wanted, count):
    voxels = np.random.default_rng(0).random((12, 3, 4)).astype(np.float32)
    resampled = resample_axis(voxels, spacing, wanted)  # 12 * spacing / wanted, rounded
    expected = np.einsum("an,nhw->ahw", _triangle(12, count, 0, 12), voxels)
    np.testing.assert_allclose(resampled, expected, atol=1e-6)


# --- Masks.


@few
@given(sides, sides, st.integers(1, 20), st.sampled_from(["pad", "stretch"]), seeds)
def test_a_mask_that_marks_something_goes_on_to(height, width, side, square, seed):
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), bool)
    frame = _frame(height, width, side, square)
    assert not frame.resize_mask(mask).any()
    mask[rng.integers(height), rng.integers(width)] = True
    assert frame.resize_mask(mask).any()
    some = rng.random((height, width)) < rng.random()
    resized = frame.resize_mask(some)
    assert resized.dtype == np.uint8 and resized.max() <= 1
    assert resized.any() == some.any()
    # Padding marks nothing.
    covered = frame.resize(np.ones((height, width, 1), np.float32))[..., 0] > 0.5
    assert not resized[~covered].any()


@few
@given(sides, sides, st.integers(1, 20), st.floats(2, 30), seeds)
def test_what_is_seen_of_a_mask_marks_something(height, width, side, field_of_view, seed):
    frame = Frame.of((height, width), Preparation(side, 1), (1.0, 1.0), field_of_view)
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), bool)
    mask[rng.integers(height), rng.integers(width)] = True
    if frame.seen(mask[None]).any():
        assert frame.resize_mask(mask).any()


def test_a_mask_marks_pixels_that_it_fills_by_half():
    mask = np.zeros((40, 40), bool)
    mask[8:20, 12:28] = True
    resized = _frame(40, 40, 10).resize_mask(mask)
    expected = np.zeros((10, 10), np.uint8)
    expected[2:5, 3:7] = 1  # blocks of 4 x 4 pixels
    # Triangles at the corners are marked by less than a half.
    assert (resized != expected).sum() <= 4
    assert (resized[3:4, 3:7] == 1).all() and (resized[2:5, 4:6] == 1).all()
