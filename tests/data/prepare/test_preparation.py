"""Prepared images: properties of all of them, and values from independent computations."""

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxad.config.fields import find
from jaxad.data.prepare.preparation import (
    Preparation,
    foreground_of,
    has_noisy_background,
    normalise,
    quantise,
    to_channels,
    to_depth,
)
from jaxad.data.prepare.prepare_images import prepare_image
from jaxad.errors import DataError, UserError

INTENSITIES, FOREGROUNDS, SQUARES = (
    find(f"data.preprocess.{name}").allowed for name in ("intensity", "foreground", "square")
)
FOREGROUNDS = tuple(name for name in FOREGROUNDS if name != "auto")  # decided for a data set
LEVELS = 65535  # of uint16, which stands for [0, 1]

few = settings(max_examples=60, deadline=None, derandomize=True)
sides = st.integers(1, 24)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def preparations(draw, **fixed):
    drawn = {
        "image_size": draw(st.integers(1, 20)),
        "channels": draw(st.sampled_from([1, 3])),
        "intensity": draw(st.sampled_from(INTENSITIES)),
        "foreground": draw(st.sampled_from(FOREGROUNDS)),
        "square": draw(st.sampled_from(SQUARES)),
    }
    return Preparation(**{**drawn, **fixed})


def _image(seed, height, width, channels, dtype, zeros=0.3):
    """Returns random pixels over the range of a type, some of them 0."""
    rng = np.random.default_rng(seed)
    pixels = rng.random((height, width, channels))
    if np.dtype(dtype).kind in "iu":
        pixels *= np.iinfo(dtype).max
    return np.where(rng.random(pixels.shape) < zeros, 0, pixels).astype(dtype)


# --- Properties of every image.


@few
@given(preparations(), sides, sides, st.sampled_from([1, 3]), seeds)
@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "i4", "f2", "f4", "f8"])
def test_an_image_is_square_of_8_or_16_bits_or_refused(dtype, preparation, h, w, c, seed):
    pixels = _image(seed, h, w, c, dtype)
    try:
        image = prepare_image(pixels, preparation, "bob")
    except DataError as error:
        constant = (to_channels(pixels, preparation.channels, "") == pixels[0, 0]).all()
        whole = dtype[0] == "i" and preparation.intensity in ("auto", "range")
        # With few pixels the foreground may be one pixel, or its percentiles equal.
        assert constant or whole or h * w < 40 or "percentiles" in str(error), error
        assert re.match(r"bob: [^\n]+\.$", str(error))
        return
    side = preparation.image_size
    assert image.shape == (side, side, preparation.channels)
    kept = dtype == "u1" and preparation.intensity in ("auto", "range")
    assert image.dtype == (np.uint8 if kept else np.uint16)


@few
@given(
    st.sampled_from(["u1", "u2", "i2", "i4", "i8", "f2", "f4", "f8"]).flatmap(
        lambda dtype: hnp.arrays(
            dtype,
            st.tuples(st.integers(1, 6), st.integers(1, 6), st.sampled_from([1, 3])),
            elements=(
                {"allow_nan": True, "allow_infinity": True, "allow_subnormal": False}
                if dtype[0] == "f"
                else None
            ),
        )
    ),
    preparations(),
)
@example(np.array([[[-1e308], [1e308]]]), Preparation(4, 1, "zscore", "all"))
@example(np.array([[[-1e308], [1e308]]]), Preparation(4, 1, "percentile", "otsu"))
@example(np.array([[[0], [2**31 - 1]]], np.int32), Preparation(4, 1, "zscore", "otsu"))
@example(np.array([[[-3e38], [3e38]]], np.float32), Preparation(4, 1, "zscore", "all"))
@example(np.array([[[1e-45], [0]]], np.float32), Preparation(4, 1, "zscore", "all"))
@example(np.full((2, 2, 3), 1e300) * [1, 2, 3], Preparation(4, 1, "zscore", "all"))
def test_no_values_at_all_do_more_than_be_refused(pixels, preparation):
    try:
        image = prepare_image(pixels, preparation, "bob")
    except DataError as error:
        assert re.match(r"bob: [^\n]+\.$", str(error))
    else:
        assert image.dtype in (np.uint8, np.uint16)


@few
@given(
    preparations(intensity="zscore", channels=1) | preparations(intensity="percentile", channels=1),
    st.sampled_from(["u1", "i2", "f4"]),
    seeds,
)
def test_background_becomes_0_and_the_foreground_does_not(preparation, dtype, seed):
    pixels = _image(seed, 12, 15, 1, dtype)
    values = normalise(pixels, preparation, "bob")
    inside = foreground_of(pixels, preparation.foreground, "bob")
    assert values.dtype == np.float32
    assert (values[~inside] == 0).all()
    assert values[inside].min() >= 1 / 255 and values.max() <= 1  # at least a level of uint8


@few
@given(st.sampled_from(INTENSITIES), st.sampled_from(SQUARES), st.integers(4, 40), seeds)
def test_what_is_empty_stays_empty_when_resized(intensity, square, side, seed):
    pixels = np.zeros((40, 40, 1), np.uint8)
    pixels[:20] = _image(seed, 20, 40, 1, np.uint8)
    image = prepare_image(pixels, Preparation(side, 1, intensity, square=square), "bob")
    # Pixel i sees pixels of the file within 40 / side of its centre, (i + 1/2) * 40 / side.
    first = int(np.ceil(side / 2 + 0.5))
    assert image[: side // 2].any() and not image[first:].any()


@few
@given(
    st.sampled_from(["zscore", "percentile"]), st.floats(0.1, 100), st.floats(-1000, 1000), seeds
)
def test_another_scale_of_intensities_gives_the_same_image(intensity, factor, offset, seed):
    pixels = np.random.default_rng(seed).normal(size=(12, 12, 1))
    preparation = Preparation(9, 1, intensity, foreground="all")
    image = prepare_image(pixels, preparation, "bob").astype(int)
    other = prepare_image(factor * pixels + offset, preparation, "bob").astype(int)
    # A difference of 1e-10 in float64 may round to the next level.
    assert np.abs(image - other).max() <= 1


@few
@given(st.sampled_from([np.uint8, np.uint16]), st.sampled_from([1, 3]), sides, seeds)
def test_an_image_of_the_right_size_stays_as_it_is(dtype, channels, side, seed):
    assume(side > 1)
    pixels = _image(seed, side, side, channels, dtype)
    for square in SQUARES:
        preparation = Preparation(side, channels, "range", square=square)
        image = prepare_image(pixels, preparation, "bob")
        np.testing.assert_array_equal(image, pixels)
        assert image.dtype == dtype


@few
@given(preparations(foreground="nonzero"), sides, sides, seeds)
def test_to_prepare_twice_is_to_prepare_once(preparation, height, width, seed):
    pixels = _image(seed, height + 6, width + 6, 1, np.uint8)
    image = prepare_image(pixels, preparation, "bob")
    assume((image != image[0, 0]).any())
    again = Preparation(preparation.image_size, preparation.channels, "range")
    np.testing.assert_array_equal(prepare_image(image, again, "bob"), image)


# --- Intensities.


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8"])
@pytest.mark.parametrize("clip", [1.0, 3.0])
def test_zscore(dtype, clip):
    pixels = _image(3, 16, 16, 1, dtype) * np.array(1, dtype)
    inside = pixels != 0
    values = pixels[inside].astype(np.float64)
    score = np.clip((pixels - values.mean()) / values.std(), -clip, clip)
    expected = np.where(inside, np.maximum((score + clip) / (2 * clip), 1 / 255), 0)
    image = prepare_image(pixels, Preparation(16, 1, "zscore", clip=clip), "bob")
    np.testing.assert_allclose(image / LEVELS, expected, atol=1.5 / LEVELS)


@pytest.mark.parametrize("percentiles", [(1.0, 99.0), (0.0, 100.0), (10.0, 50.0)])
@pytest.mark.parametrize("foreground", ["nonzero", "all"])
def test_percentile(percentiles, foreground):
    pixels = _image(4, 16, 16, 1, np.int16)
    inside = (pixels != 0) | (foreground == "all")
    ordered = np.sort(pixels[inside]).astype(float)
    # Linear between order statistics; the first is 0 %, the last 100 %.
    low, high = np.interp(np.array(percentiles) / 100, np.linspace(0, 1, len(ordered)), ordered)
    expected = np.where(inside, np.clip((pixels - low) / (high - low), 1 / 255, 1), 0)
    image = prepare_image(
        pixels, Preparation(16, 1, "percentile", foreground, percentiles=percentiles), "bob"
    )
    np.testing.assert_allclose(image / LEVELS, expected, atol=1.5 / LEVELS)


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("shape", [(10, 10, 1), (10, 10, 3), (4, 10, 10)])
def test_otsu_parts_two_levels(dtype, shape):
    """Also if the last axis could be taken for colours."""
    rng = np.random.default_rng(0)
    bright = rng.random(shape) < 0.4
    pixels = np.where(bright, rng.integers(90, 110, shape), rng.integers(0, 20, shape))
    found = foreground_of(pixels.astype(dtype), "otsu", "bob")
    # The threshold is the highest of the dark values, in a histogram of 256 bins.
    assert found[bright].all() and not found[pixels < 19].any()


def test_values_far_from_0_keep_their_differences():
    # These would be equal in float32.
    pixels = 2**30 + np.arange(64, dtype=np.int32).reshape(8, 8, 1)
    image = prepare_image(pixels, Preparation(8, 1, "percentile", percentiles=(0.0, 100.0)), "bob")
    expected = np.maximum(np.arange(64) / 63, 1 / 255)
    np.testing.assert_allclose(image.ravel() / LEVELS, expected, atol=1 / LEVELS)


def test_range_takes_numbers_as_they_are():
    halves = np.array([[0, 0.5], [0.25, 1]])[..., None]
    for dtype in (np.float16, np.float32, np.float64):
        image = prepare_image(halves.astype(dtype), Preparation(2, 1), "bob")
        assert image.ravel().tolist() == [0, 32768, 16384, LEVELS]  # halves round to even


def test_grey_and_colour_become_each_other():
    grey = _image(0, 3, 4, 1, np.uint8)
    colour = to_channels(grey, 3, "bob")
    np.testing.assert_array_equal(colour, np.concatenate([grey] * 3, axis=-1))
    # ITU-R BT.601: 0.299 + 0.587 + 0.114 = 1, so that grey comes back.
    np.testing.assert_array_equal(to_channels(colour, 1, "bob"), grey)
    pure = np.array([[[200, 0, 0], [0, 200, 0], [0, 0, 200]]], np.uint8)
    assert to_channels(pure, 1, "bob").ravel().tolist() == [60, 117, 23]  # 59.8, 117.4, 22.8
    with pytest.raises(DataError, match="bob: has 2 channels, but config.data.channels is 3; only"):
        to_channels(np.zeros((2, 2, 2)), 3, "bob")


def test_depths_become_each_other():
    levels = np.arange(256, dtype=np.uint8)
    deep = to_depth(levels, np.uint16)
    assert deep.dtype == np.uint16 and deep[-1] == LEVELS and deep[51] == LEVELS / 5
    np.testing.assert_array_equal(to_depth(deep, np.uint8), levels)
    assert to_depth(deep, np.uint16) is deep and to_depth(levels, np.uint8) is levels
    assert quantise(deep) is deep and quantise(levels) is levels
    np.testing.assert_array_equal(
        quantise(np.float32([-0.1, 0, 0.2, 1, 1.1])), [0, 0, 13107, LEVELS, LEVELS]
    )


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("percentiles", (99.0, 1.0), r"\(99\.0, 1\.0\); give a lower and an upper percentile"),
        (
            "percentiles",
            (0.0, 101.0),
            r"\(0\.0, 101\.0\); give a lower and an upper percentile between 0 and 100",
        ),
    ],
)
def test_settings_that_mean_nothing_are_named(field, value, expected):
    with pytest.raises(
        UserError, match=rf"config\.data\.preprocess\.{field}: {expected}"
    ) as raised:
        Preparation(16, 1, **{field: value})
    assert "\n" not in str(raised.value) and not isinstance(raised.value, DataError)


@pytest.mark.parametrize(
    ("pixels", "intensity", "expected"),
    [
        (
            np.int16([[0, 5]]),
            "range",
            "is int16, which has no natural range; set config.data.prepr",
        ),
        (np.float32([[0, 5]]), "range", r"has values in \[0, 5\]; scale them to \[0, 1\], or set"),
        (np.uint8([[0, 5]]), "zscore", r"no foreground of more than one value \(.*=nonzero\); lea"),
        (np.uint8([[1] * 999 + [2]]), "percentile", "percentiles .* are both 1; widen config.data"),
    ],
    ids=["integers", "floats", "one value", "percentiles"],
)
def test_intensities_that_cannot_be_taken_are_named(pixels, intensity, expected):
    with pytest.raises(DataError, match=f"^bob: .*{expected}") as raised:
        prepare_image(pixels[..., None], Preparation(4, 1, intensity), "bob")
    assert "\n" not in str(raised.value)


def test_ct_has_another_background_than_0():
    """Air is -1000 in CT; most voxels of a z-scored, skull-stripped scan are 0."""
    rng = np.random.default_rng(0)
    ct = np.full((20, 20), -1000, np.int16)
    ct[5:15, 5:15] = rng.integers(-20, 60, (10, 10))
    with pytest.raises(
        DataError, match="has negative values and hardly any zeros.*foreground to otsu"
    ):
        normalise(ct, Preparation(20, 1, "zscore"), "ct")
    inside = normalise(ct, Preparation(20, 1, "zscore", "otsu"), "ct") > 0
    assert inside[5:15, 5:15].all() and inside.sum() == 100
    scored = np.zeros((20, 20), np.float32)
    scored[5:15, 5:15] = rng.normal(size=(10, 10))
    assert (normalise(scored, Preparation(20, 1, "zscore"), "mri") > 0).sum() == 100


@pytest.mark.parametrize(
    ("background", "is_noisy"),
    [
        ("noise", True),
        ("zero", False),  # skull-stripped
        ("padded noise", True),  # rotated onto a larger grid
        ("object", False),  # the object fills the image
    ],
)
def test_a_background_of_noise_is_recognised(background, is_noisy):
    """A bright ball in a cube, with the background of a scan before skull-stripping or after."""
    rng = np.random.default_rng(0)
    radius = np.linalg.norm(np.mgrid[-16:16, -16:16, -16:16] + 0.5, axis=0)
    noise = np.abs(rng.normal(0, 10, radius.shape))
    scan = np.where(radius < 12, 200 + noise, 0 if background == "zero" else noise)
    if background == "padded noise":
        scan[:, :, :5] = 0
    if background == "object":
        scan = 200 + rng.normal(0, 10, radius.shape)
    zscore = Preparation(16, 1, intensity="zscore")
    scan = scan.astype(np.float32)
    assert has_noisy_background(scan, 3, zscore, "a") == is_noisy
    for other in ({"foreground": "otsu"}, {"foreground": "all"}, {"intensity": "range"}):
        assert not has_noisy_background(scan, 3, dataclasses.replace(zscore, **other), "a")
