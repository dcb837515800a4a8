"""Checks of image arrays: a bad image is named with a remedy."""

import re

import numpy as np
import pytest

from jaxad.data.prepare.preprocess import check_images, to_unit_interval
from jaxad.errors import UserError

SHAPE = (4, 4, 1)
IDS = ("ann", "bob", "eve")


def _images(dtype=np.float32, fill=0.5):
    return np.full((3, *SHAPE), fill, dtype)


def _with_pixel(value, dtype=np.float32):
    """Returns images of which the second, 'bob', has one pixel of this value."""
    images = _images(dtype)
    images[1, 2, 3, 0] = value
    return images


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (_images()[..., 0], r"my scans: .*rank 3 \(shape \(3, 4, 4\)\); .*\[N, 4, 4, 1\]"),
        (_images()[0, ..., 0], r"my scans: .*rank 2 \(shape \(4, 4\)\)"),
        (_images()[:, :3], r"\(3, 4, 1\) \(first image: 'ann'\), .*needs \(4, 4, 1\).*image_size"),
        (np.concatenate([_images()] * 3, axis=-1), r"are \(4, 4, 3\) .*needs \(4, 4, 1\)"),
        (_images(np.int32, 1), r"int32; give uint8, uint16 or float"),
        (_images(bool, True), r"bool; give uint8, uint16 or float"),
        (_images(np.complex64), r"complex64; give uint8, uint16 or float"),
        (_with_pixel(np.nan), r"image 'bob' has NaN or infinite pixels; repair it or leave it out"),
        (_with_pixel(np.inf), r"image 'bob' has NaN or infinite pixels"),
        (_with_pixel(-np.inf), r"image 'bob' has NaN or infinite pixels"),
        (_with_pixel(1.5), r"image 'bob' has values in \[0\.5, 1\.5\]; scale images to \[0, 1\]"),
        (_with_pixel(-0.25), r"image 'bob' has values in \[-0\.25, 0\.5\]; scale images"),
        (_with_pixel(np.nan, np.float16), r"image 'bob' has NaN"),
    ],
)
def test_unusable_images_are_named_with_the_remedy(images, expected):
    with pytest.raises(UserError, match=expected) as raised:
        check_images(images, IDS, SHAPE, "my scans")
    assert re.match("my scans: ", str(raised.value))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "images",
    [
        _images(np.uint8, 255),
        _images(np.uint16, 65535),
        _images(np.float16),
        _images(np.float32, 0.0),
        _images(np.float64, 1.0),
        np.zeros((0, *SHAPE), np.float32),
    ],
    ids=lambda images: f"{images.dtype}x{len(images)}",
)
def test_good_images_pass(images):
    check_images(images, IDS[: len(images)], SHAPE, "my scans")


def test_wrong_size_is_reported_even_without_a_first_image():
    with pytest.raises(UserError, match=r"images are \(5, 4, 1\), but the config needs"):
        check_images(np.zeros((0, 5, 4, 1), np.uint8), (), SHAPE, "my scans")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (np.array([0, 51, 255], np.uint8), [0.0, 0.2, 1.0]),
        (np.array([0, 13107, 65535], np.uint16), [0.0, 0.2, 1.0]),
        (np.array([0.0, 0.2, 1.0], np.float64), [0.0, 0.2, 1.0]),
    ],
    ids=["uint8", "uint16", "float64"],
)
def test_unit_interval(raw, expected):
    converted = to_unit_interval(raw)
    assert converted.dtype == np.float32
    np.testing.assert_array_equal(converted, np.float32(expected))


def test_unit_interval_does_not_share_memory_with_its_argument():
    images = _images()
    to_unit_interval(images)[0] = 0.0
    assert images[0, 0, 0, 0] == 0.5
