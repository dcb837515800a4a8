"""Checks of arrays before they are scored: any byte order and memory layout."""

import numpy as np
import pytest

from jaxad import config as config_lib
from jaxad.data.prepare.preprocess import native, to_unit_interval
from jaxad.detector.detector import Detector
from jaxad.errors import UserError
from jaxad.types import Scores

SIDE, COUNT = 16, 4


class MeanDetector(Detector):
    """Scores an image by its mean."""

    def __init__(self, name):
        self.image_shape = (SIDE, SIDE, 1)
        self._config = config_lib.base()
        self._config.data.name, self._config.data.image_size = name, SIDE
        self._config.data.preprocess.intensity = "range"

    @property
    def config(self):
        return self._config

    def score_batches(self, images):
        images = to_unit_interval(images)
        yield Scores(
            image=images.mean(axis=(1, 2, 3)),
            pixel=images[..., 0],
            components={},
            reconstructions={},
        )


PIXELS = np.random.default_rng(0).integers(0, 65535, (COUNT, SIDE, SIDE, 1), np.uint16)
UNIT = PIXELS / 65535


def _read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


ARRAYS = {
    "native": PIXELS,
    "big-endian uint16": PIXELS.astype(">u2"),
    "big-endian float32": UNIT.astype(">f4"),
    "big-endian float64": UNIT.astype(">f8"),
    "float64": UNIT,
    "Fortran": np.asfortranarray(PIXELS),
    "read-only": _read_only(PIXELS.astype(">u2")),
    "view": np.repeat(PIXELS, 3, axis=1)[:, ::3],
    "turned view": PIXELS.transpose(0, 2, 1, 3).copy().transpose(0, 2, 1, 3),
    "not masked": np.ma.masked_array(PIXELS, mask=False),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
@pytest.mark.parametrize("name", ["npz", "folder"])
def test_scores_do_not_depend_on_byte_order_and_layout(array, name):
    detector = MeanDetector(name)
    expected = (PIXELS / np.float32(65535)).astype(np.float32)
    prepared = detector.preprocess(array)
    np.testing.assert_allclose(prepared, expected, atol=1e-6)
    assert prepared.dtype == np.float32 and prepared.dtype.isnative
    for images in (prepared, array):
        scores = detector.score(images).image
        np.testing.assert_allclose(scores, expected.mean(axis=(1, 2, 3)), atol=1e-5)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (PIXELS.astype(object), "holds object; give real numbers"),
        (UNIT.astype(complex), "holds complex128; give real numbers"),
        (PIXELS.astype(str), "holds <U.*; give real numbers"),
        (PIXELS.astype("M8[s]"), "holds datetime64.*; give real numbers"),
        (np.ma.masked_less(PIXELS, 100), "has masked values; fill them in"),
        (PIXELS > 9, "images are bool; give uint8|is bool, which has no"),
        (PIXELS.astype(">i4"), "images are int32; give uint8|is int32, which has no natural range"),
    ],
)
@pytest.mark.parametrize("name", ["npz", "folder"])
def test_arrays_without_pixels_are_rejected_in_one_line(array, expected, name):
    detector = MeanDetector(name)
    with pytest.raises(UserError, match=expected) as raised:
        detector.preprocess(array)
    assert "\n" not in str(raised.value)
    with pytest.raises(UserError):
        detector.score(array)


def test_native_arrays_are_not_copied():
    assert native(PIXELS, "x") is PIXELS
    assert np.shares_memory(native(PIXELS[:, ::2], "x"), PIXELS)


def test_lists_are_converted_to_arrays():
    np.testing.assert_array_equal(native([[1, 2], [3, 4]], "x"), [[1, 2], [3, 4]])
    with pytest.raises(UserError, match="x: is not an array .*; give one of real numbers"):
        native([[1, 2], [3]], "x")


def test_the_unit_interval_does_not_depend_on_byte_order():
    np.testing.assert_array_equal(to_unit_interval(PIXELS.astype(">u2")), to_unit_interval(PIXELS))
