"""The quality of reconstructions, against scikit-image."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from jaxad.evaluate.reconstructions import quality
from jaxad.types import Scores


def scores_of(reconstructions, height=16):
    nothing = np.zeros(3, np.float32)
    return Scores(
        image=nothing, pixel=np.zeros((3, height, 16), np.float32), components={},
        reconstructions=reconstructions,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_it_is_psnr_and_the_mean_ssim_of_each_image(dtype):
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(3, 16, 16, 1)).astype(np.float32)
    if dtype is np.uint8:
        images = (255 * images).astype(np.uint8)
    unit = images / (255 if dtype is np.uint8 else 1)
    output = np.clip(unit + rng.normal(scale=0.1, size=unit.shape), 0, 1).astype(np.float32)
    expected = [
        structural_similarity(
            a[..., 0], b[..., 0], gaussian_weights=True, sigma=1.5, data_range=1.0,
            use_sample_covariance=False, full=True,
        )[1][5:-5, 5:-5].mean()
        for a, b in zip(unit.astype(np.float32), output, strict=True)
    ]  # fmt: skip
    found = quality(scores_of({"reconstruction": output}), images)
    np.testing.assert_allclose(found["reconstruction_ssim"], expected, atol=1e-5)
    ratios = [
        peak_signal_noise_ratio(a, b, data_range=1.0) for a, b in zip(unit, output, strict=True)
    ]
    np.testing.assert_allclose(found["reconstruction_psnr"], ratios, rtol=1e-4)


def test_there_is_none_without_reconstructions_and_no_ssim_in_small_images():
    images, small = np.zeros((3, 16, 16, 1), np.float32), np.zeros((3, 10, 16, 1), np.float32)
    assert quality(scores_of({}), images) == {}
    found = quality(scores_of({"reconstruction": small}, height=10), small)
    assert list(found) == ["reconstruction_psnr"]
    assert np.isinf(found["reconstruction_psnr"]).all()  # no error at all
