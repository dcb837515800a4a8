"""Label maps, also softened ones, and images that are none."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jaxad.data.files.label_maps import is_label_map

ROWS, COLUMNS = np.mgrid[:256, :256]


def disc(radius, row=128, column=128):
    return (ROWS - row) ** 2 + (COLUMNS - column) ** 2 < radius**2


MASK = np.where(disc(40) | disc(25, 60, 60), 255, 0).astype(np.uint8)


def texture(sigma, seed=0):
    """Smooth noise from 0 to 1."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(256, 256)), sigma)
    return (noise - noise.min()) / np.ptp(noise)


def instances(number, radius):
    labels, rng = np.zeros((256, 256), np.int32), np.random.default_rng(0)
    for label in range(1, number + 1):
        labels[disc(radius, *rng.integers(0, 256, 2))] = label
    return labels


def parcels(number):
    """Voronoi cells in a round brain, with labels like those of FreeSurfer."""
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(0, 256, (2, number))
    nearest = ((ROWS[..., None] - rows) ** 2 + (COLUMNS[..., None] - columns) ** 2).argmin(-1)
    labels = rng.choice(np.arange(1000, 2036), number, replace=False)
    return np.where(disc(100), labels[nearest], 0)


@pytest.mark.parametrize("sigma", [1, 1.4, 2, 3, 5])
def test_a_blurred_mask_is_a_label_map(sigma):
    blurred = ndimage.gaussian_filter(MASK.astype(np.float64), sigma)
    assert len(np.unique(blurred.astype(np.uint8))) > 8  # fewer would be labels anyway
    assert is_label_map(blurred.astype(np.uint8)) and is_label_map(blurred.astype(np.float32))
    assert is_label_map(255 - blurred.astype(np.uint8)) and is_label_map(blurred / 255)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_a_smoothly_resized_mask_is_a_label_map(size):
    for filter_ in (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC):
        resized = Image.fromarray(MASK).resize((size, size), filter_)
        assert is_label_map(np.asarray(resized))
        assert is_label_map(np.asarray(resized.resize((256, 256), filter_)))


@pytest.mark.parametrize("quality", [10, 30, 60, 95])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_mask_in_a_jpeg_file_is_a_label_map(quality, mode):
    file = io.BytesIO()
    Image.fromarray(MASK).convert(mode).save(file, "JPEG", quality=quality)
    assert is_label_map(np.asarray(Image.open(file)))


@pytest.mark.parametrize(("number", "radius"), [(20, 6), (170, 5), (170, 8), (400, 4), (60, 10)])
def test_instances_are_labels(number, radius):
    assert is_label_map(instances(number, radius))
    assert is_label_map(instances(number, radius).astype(np.float32))


@pytest.mark.parametrize("number", [12, 70, 90, 150])
def test_parcels_are_labels(number):
    labels = parcels(number)
    assert is_label_map(labels) and is_label_map(labels / labels.max())
    assert is_label_map(np.repeat(labels[::4, ::4, None], 16, axis=2))
    colours = np.random.default_rng(0).integers(0, 256, (2036, 3)).astype(np.uint8)
    assert is_label_map(colours[labels])


def test_a_mask_in_colour():
    red = np.zeros((256, 256, 3), np.uint8)
    red[..., 0] = ndimage.gaussian_filter(MASK.astype(np.float64), 2)
    assert is_label_map(red)


def test_few_values_are_labels():
    values = np.random.default_rng(0).integers(0, 4, (20, 20))
    assert is_label_map(values) and is_label_map(values / 3) and is_label_map(values > 1)


def _black_outside(sigma, radius):
    return np.where(disc(radius), 20 + 200 * texture(sigma), 0)


IMAGES = {
    "texture": lambda sigma: 255 * texture(sigma),
    "MR": lambda sigma: _black_outside(sigma, 90),
    "small MR": lambda sigma: _black_outside(sigma, 30),
    "clipped MR": lambda sigma: (
        255
        * np.clip(_black_outside(sigma, 60) / np.percentile(_black_outside(sigma, 60), 99), 0, 1)
    ),
    "64 levels": lambda sigma: _black_outside(sigma, 60) // 4,
    "16 levels": lambda sigma: _black_outside(sigma, 60) // 16 * 16,
    "CT": lambda sigma: np.where(disc(90), -200 + 400 * texture(sigma), -1024),
    "small CT": lambda sigma: np.where(disc(50), -200 + 400 * texture(sigma), -1024),
    "bright on black": lambda sigma: np.where(disc(50), 230 + 25 * texture(sigma), 0),
    "white background": lambda sigma: np.where(disc(60), 200 * texture(sigma), 255),
    "bright spot": lambda sigma: np.where(disc(4), 255, 20 * texture(sigma)),
    "enlarged": lambda sigma: 255 * ndimage.zoom(texture(sigma)[:64, :64], 4, order=1),
    "enlarged by repeats": lambda sigma: np.kron(255 * texture(sigma)[:32, :32], np.ones((8, 8))),
    "large": lambda sigma: 255 * ndimage.zoom(texture(sigma), 6, order=1),
}


@pytest.mark.parametrize("sigma", [0.5, 1, 2, 4, 8])
@pytest.mark.parametrize("name", IMAGES)
def test_images_are_no_label_maps(name, sigma):
    pixels = IMAGES[name](sigma)
    assert not is_label_map(pixels.astype(np.int16))
    assert not is_label_map(pixels.astype(np.float32) if "levels" not in name else pixels + 0.5)


def test_a_ramp_and_what_is_no_number_are_no_labels():
    assert not is_label_map(np.indices((40, 40)).sum(axis=0) % 25)
    assert not is_label_map(np.indices((400, 40))[0] // 4)
    assert not is_label_map(np.full((9, 9), np.nan)) and not is_label_map(np.zeros((0, 3)))
