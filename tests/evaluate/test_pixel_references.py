"""Reference scores of pixels, against independent expressions for single images and pixels."""

import numpy as np
import pytest

from jaxad import config as config_lib
from jaxad.data.sources import DataSet
from jaxad.evaluate.references import TITLES, pixels
from jaxad.evaluate.references.pixels import PCA_COMPONENTS, PixelScores, fit_pixel_scores

NAMES = {"mean", "standard_deviation", "area", "total_variation", "pixel_gaussian", "pca_64"}


def _images(rng, count, size=6):
    """Images in [0, 1] whose first two columns are background."""
    images = rng.uniform(0.05, 1.0, (count, size, size, 1)).astype(np.float32)
    images[:, :, :2] = 0.0
    return images


def _total_variation(image):
    height, width = image.shape
    down = [abs(image[y + 1, x] - image[y, x]) for y in range(height - 1) for x in range(width)]
    across = [abs(image[y, x + 1] - image[y, x]) for y in range(height) for x in range(width - 1)]
    return np.mean(down) + np.mean(across)


def _pixel_gaussian(image, train):
    center = sum(train) / len(train)
    variance = sum((other - center) ** 2 for other in train) / len(train)
    return np.mean((image - center) ** 2 / np.maximum(variance, 1e-2**2))


EXPECTED = {
    "mean": lambda image, train: image.sum() / image.size,
    "standard_deviation": lambda image, train: np.sqrt(np.mean(image**2) - np.mean(image) ** 2),
    "area": lambda image, train: np.count_nonzero(image) / image.size,
    "total_variation": lambda image, train: _total_variation(image),
    "pixel_gaussian": _pixel_gaussian,
}


def test_names(rng):
    assert set(fit_pixel_scores(_images(rng, 3))) == NAMES
    assert PCA_COMPONENTS == 64
    assert set(TITLES) > NAMES


@pytest.mark.parametrize("name", EXPECTED)
def test_score_equals_its_expression(rng, name):
    train, images = _images(rng, 20), _images(rng, 5)
    images[0] = 0.0
    images[1, :, :2] = 0.3  # where training has background alone
    actual = fit_pixel_scores(train)[name](images)
    flat_train = [image[..., 0].astype(np.float64) for image in train]
    expected = [EXPECTED[name](image[..., 0].astype(np.float64), flat_train) for image in images]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-7)


def test_area_counts_a_pixel_with_any_channel(rng):
    train = rng.uniform(size=(5, 2, 2, 3)).astype(np.float32)
    image = np.zeros((1, 2, 2, 3), np.float32)
    image[0, 0, 0] = 1.0
    image[0, 1, 1, 2] = 0.1
    np.testing.assert_allclose(fit_pixel_scores(train)["area"](image), [0.5])


def _subspace(rng, rank, count, size=12):
    """Returns images that are a constant plus a combination of `rank` patterns."""
    patterns = rng.normal(size=(rank, size * size)) / size
    weights = rng.normal(size=(count, rank))
    return (0.5 + weights @ patterns).reshape(count, size, size, 1).astype(np.float32), patterns


def test_pca_residual_is_zero_inside_the_training_subspace(rng):
    images, patterns = _subspace(rng, rank=64, count=210)
    residual = fit_pixel_scores(images[:200])["pca_64"]
    variance = images.var()
    assert residual(images[200:]).max() < 1e-8 * variance

    # What lies outside of it is all that is left: a direction across the patterns, of length 3.
    across = rng.normal(size=144)
    span = np.linalg.qr(np.vstack([patterns, np.ones(144)]).T)[0]
    across -= span @ (span.T @ across)
    across *= 3.0 / np.linalg.norm(across)
    changed = images[200:] + across.reshape(12, 12, 1).astype(np.float32)
    np.testing.assert_allclose(residual(changed), 9.0 / 144, rtol=1e-3)


def test_pca_is_the_projection_onto_the_leading_64_directions(rng):
    """Compares with NumPy's exact SVD; variances fall fast, so both agree."""
    basis = np.linalg.qr(rng.normal(size=(144, 144)))[0]
    spread = 0.9 ** np.arange(144)
    flat = 0.5 + (rng.normal(size=(330, 144)) * spread) @ basis.T
    train, images = flat[:300].astype(np.float32), flat[300:].astype(np.float32)
    center = train.mean(axis=0, dtype=np.float64)
    leading = np.linalg.svd(train - center, full_matrices=False)[2][:64]
    rest = (images - center) - (images - center) @ leading.T @ leading
    residual = fit_pixel_scores(train.reshape(300, 12, 12, 1))["pca_64"]
    np.testing.assert_allclose(
        residual(images.reshape(30, 12, 12, 1)), (rest**2).mean(axis=1), rtol=0.05
    )


def test_pca_of_fewer_images_than_components(rng):
    train = _images(rng, 3)
    scores = fit_pixel_scores(train)["pca_64"](train)
    np.testing.assert_allclose(scores, 0.0, atol=1e-10)


def test_fits_are_deterministic_and_scores_independent_of_other_images(rng):
    train, images = _images(rng, 80, size=10), _images(rng, 5, size=10)
    first, second = fit_pixel_scores(train), fit_pixel_scores(train)
    for name in NAMES:
        together = first[name](images)
        assert together.shape == (5,)
        np.testing.assert_array_equal(together, second[name](images), err_msg=name)
        alone = np.concatenate([first[name](images[row : row + 1]) for row in range(5)])
        np.testing.assert_allclose(alone, together, rtol=1e-4, err_msg=name)


def test_many_images_are_fitted_evenly_spaced_and_scored_in_parts(rng, tmp_path, monkeypatch):
    for name, count in (("train", 9), ("val", 1), ("test_a", 7)):
        np.savez(tmp_path / f"{name}.npz", image=_images(rng, count), label=np.zeros(count, int))
    data = config_lib.base().data
    data.name, data.root, data.image_size = "npz", str(tmp_path), 6
    data_set = DataSet(data)
    whole = PixelScores(data_set).of("test_a")
    train, test = data_set.split("train").images, data_set.split("test_a").images
    # Room for three images: the first, the middle and the last one, and parts of 3, 3 and 1.
    monkeypatch.setattr(pixels, "MOST_NUMBERS", 3 * train[0].size)
    parts = PixelScores(data_set).of("test_a")
    scores = fit_pixel_scores(train[[0, 4, 8]])
    for name in NAMES:
        expected = np.concatenate([scores[name](test[i : i + 3]) for i in (0, 3, 6)])
        np.testing.assert_array_equal(parts[name], expected, err_msg=name)
        assert whole[name].shape == (7,)
        if name in ("mean", "standard_deviation", "area", "total_variation"):  # not fitted
            np.testing.assert_array_equal(parts[name], whole[name], err_msg=name)
