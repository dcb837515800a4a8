"""Each augmentation against its definition."""

import numpy as np
import pytest
import scipy.ndimage

from jaxad.data.pipeline import augment as augment_lib
from jaxad.data.pipeline.augment import Augmentation, augment
from jaxad.runtime.cpu_tensorflow import tensorflow

EVERYTHING = Augmentation(mirror=True, rotation=10.0, scale=0.1, brightness=0.3, noise=0.1)


def _augment(images, augmentation, *, seed=0, positions=None):
    tf = tensorflow()
    positions = np.arange(len(images)) if positions is None else np.asarray(positions)
    augmented = augment(tf.constant(images), tf.constant(positions, tf.int64), seed, augmentation)
    return augmented.numpy()


def _similarity(images, degrees, magnification):
    tf = tensorflow()
    return augment_lib._similarity(
        tf.constant(images),
        tf.constant(np.deg2rad(degrees), tf.float32),
        tf.constant(magnification, tf.float32),
    ).numpy()


def _grey(count, value=0.5, size=24):
    return np.full((count, size, size, 1), value, np.float32)


def _smooth(rng, count, size=24):
    """Smooth images with content up to the border, in [0, 1]."""
    noise = scipy.ndimage.gaussian_filter(rng.normal(size=(count, size, size, 1)), (0, 2, 2, 0))
    return ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)


def test_without_settings_images_do_not_change(rng):
    images = rng.uniform(size=(5, 6, 7, 2)).astype(np.float32)
    np.testing.assert_array_equal(_augment(images, Augmentation()), images)


def test_mirror_flips_left_and_right_of_half_of_the_images(rng):
    images = rng.uniform(size=(400, 3, 4, 2)).astype(np.float32)
    augmented = _augment(images, Augmentation(mirror=True))
    flipped = (augmented == images[:, :, ::-1]).all(axis=(1, 2, 3))
    kept = (augmented == images).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(flipped, ~kept)
    # Binomial(400, 1/2) has a standard deviation of 10: five of them.
    assert 150 < flipped.sum() < 250


@pytest.mark.parametrize("shape", [(24, 24), (17, 25)], ids=["even", "odd-and-oblong"])
@pytest.mark.parametrize(
    ("degrees", "magnification"),
    [(0.0, 1.0), (20.0, 1.0), (-35.0, 1.0), (0.0, 1.3), (0.0, 0.7), (12.0, 1.15)],
)
def test_similarity_is_scipys_affine_transform(rng, shape, degrees, magnification):
    image = rng.uniform(size=shape).astype(np.float32)
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    # scipy's matrix takes output (row, column) to input (row, column): the inverse of a
    # magnification is a division; x is the column, so the sine's sign is that of (y, x).
    matrix = np.array([[cosine, sine], [-sine, cosine]]) / magnification
    center = (np.array(shape) - 1) / 2
    # `grid-constant` interpolates with the zeros outside, as TensorFlow does.
    expected = scipy.ndimage.affine_transform(
        image, matrix, offset=center - matrix @ center, order=1, mode="grid-constant", cval=0.0
    )
    actual = _similarity(image[None, :, :, None], [degrees], [magnification])[0, :, :, 0]
    np.testing.assert_allclose(actual, expected, atol=2e-5)


def test_magnification_above_one_enlarges():
    square = np.zeros((1, 33, 33, 1), np.float32)
    square[:, 12:21, 12:21] = 1.0  # 81 pixels
    enlarged = _similarity(square, [0.0], [1.5])
    assert enlarged.sum() == pytest.approx(81 * 1.5**2, rel=0.05)


def test_each_image_of_a_batch_gets_its_own_transform(rng):
    images = _smooth(rng, 2)
    together = _similarity(images, [15.0, -5.0], [1.1, 0.9])
    for number, (degrees, magnification) in enumerate([(15.0, 1.1), (-5.0, 0.9)]):
        alone = _similarity(images[number : number + 1], [degrees], [magnification])
        np.testing.assert_array_equal(together[number], alone[0])


def test_rotation_has_the_configured_standard_deviation():
    """A horizontal bar leans by the angle that it was turned by."""
    asked, count, size = 10.0, 300, 41
    bar = np.zeros((count, size, size, 1), np.float32)
    bar[:, 18:23, 6:35] = 1.0
    turned = _augment(bar, Augmentation(rotation=asked))[..., 0]
    offset = np.arange(size) - (size - 1) / 2
    mass = turned.sum(axis=(1, 2))
    spread_xx = (turned * offset**2).sum(axis=(1, 2)) / mass
    spread_yy = (turned * offset[:, None] ** 2).sum(axis=(1, 2)) / mass
    spread_xy = (turned * offset * offset[:, None]).sum(axis=(1, 2)) / mass
    degrees = np.rad2deg(np.arctan2(2 * spread_xy, spread_xx - spread_yy) / 2)
    # The standard error of a standard deviation is its value / sqrt(2 n): 4 %; four of them.
    assert degrees.std() == pytest.approx(asked, rel=0.16)
    assert abs(degrees.mean()) < 4 * asked / np.sqrt(count)


def test_scale_is_the_standard_deviation_of_the_log_magnification():
    asked, count = 0.1, 300
    square = np.zeros((count, 33, 33, 1), np.float32)
    square[:, 10:23, 10:23] = 1.0  # 169 pixels
    area = _augment(square, Augmentation(scale=asked)).sum(axis=(1, 2, 3))
    log_magnification = np.log(area / 169) / 2
    assert log_magnification.std() == pytest.approx(asked, rel=0.16)  # as for the rotation
    assert abs(log_magnification.mean()) < 4 * asked / np.sqrt(count)


def test_brightness_is_one_log_normal_factor_per_image():
    asked, count = 0.2, 400
    images = _grey(count, 0.2, size=4)  # 0.2 exp(3.5 * 0.2) = .4: nothing is clipped
    images[:, 0, 0] = 0.1
    augmented = _augment(images, Augmentation(brightness=asked))
    factor = augmented / images
    np.testing.assert_allclose(factor, factor[:, :1, :1] + 0 * factor, rtol=1e-5)
    log_factor = np.log(factor[:, 0, 0, 0])
    assert log_factor.std() == pytest.approx(asked, rel=0.14)  # 4 / sqrt(2 * 400)
    assert abs(log_factor.mean()) < 4 * asked / np.sqrt(count)


def test_noise_has_the_configured_standard_deviation():
    asked = 0.03
    images = _grey(20)  # .5 is 16 standard deviations from both ends: nothing is clipped
    noise = _augment(images, Augmentation(noise=asked)) - images
    # 20 * 24 * 24 = 11,520 independent values: 4 / sqrt(2 n) = 2.6 %.
    assert noise.std() == pytest.approx(asked, rel=0.026)
    assert abs(noise.mean()) < 4 * asked / np.sqrt(noise.size)
    correlation = np.corrcoef(noise.reshape(20, -1))
    # Images have noise of their own: sampling alone gives 1 / sqrt(576) = .04 per pair.
    assert np.abs(correlation - np.eye(20)).max() < 0.25


def test_background_stays_zero_under_noise_and_brightness(rng):
    images = _smooth(rng, 8)
    images[:, :6] = 0.0
    augmented = _augment(images, Augmentation(brightness=0.5, noise=0.3))
    assert np.all(augmented[images == 0] == 0)
    assert np.mean(augmented[images > 0] != images[images > 0]) > 0.9


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(brightness=1.0),
        Augmentation(noise=1.0),
        Augmentation(rotation=30.0, scale=0.5),
        EVERYTHING,
    ],
)
def test_values_stay_in_the_unit_interval(rng, augmentation):
    augmented = _augment(_smooth(rng, 32), augmentation)
    assert augmented.dtype == np.float32
    assert augmented.min() >= 0.0
    # Bilinear weights sum to 1 within rounding.
    assert augmented.max() <= 1.0 + 1e-6


def test_the_draw_depends_on_seed_and_position_alone(rng):
    """Bit-identical in every row of a batch: vectorised loops round the last rows differently."""
    count = 19
    images, positions = _smooth(rng, count), [2**40, *range(70, 88)]
    together = _augment(images, EVERYTHING, seed=5, positions=positions)
    for batch_size in (1, 4, 7):
        parts = [
            _augment(
                images[start : start + batch_size],
                EVERYTHING,
                seed=5,
                positions=positions[start : start + batch_size],
            )
            for start in range(0, count, batch_size)
        ]
        np.testing.assert_array_equal(np.concatenate(parts), together)
    for change in ({"seed": 6}, {"positions": [position + 100 for position in positions]}):
        other = _augment(images, EVERYTHING, **{"seed": 5, "positions": positions, **change})
        differs = (other != together).any(axis=(1, 2, 3))
        assert differs.all(), change


def test_one_augmentation_does_not_change_the_draw_of_another(rng):
    """Switching noise on does not change rotations, so that ablations are comparable."""
    bright = np.clip(_smooth(rng, 16), 0.3, 0.5)
    rotated = _augment(bright, Augmentation(rotation=10.0))
    with_noise = _augment(bright, Augmentation(rotation=10.0, noise=1e-3))
    inside = rotated > 0.1
    assert np.abs(with_noise - rotated)[inside].max() < 0.01  # ten standard deviations of noise
