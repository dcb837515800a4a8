"""Pure functions on arrays: divergences, likelihoods, reparameterisation, smoothing and SSIM."""

import dataclasses

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxad.types import ExampleKeys, Images, PerExample


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DiagonalGaussian:
    """A Gaussian with diagonal covariance, one per example.

    Attributes:
        mean: float32 [B, ...].
        log_variance: natural logarithm of the variance, float32, the shape of `mean`.
    """

    mean: Float[Array, "batch *event"]
    log_variance: Float[Array, "batch *event"]


def full_precision(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Casts to at least float32, which likelihoods, scores and images need."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _sum_per_example(x: Float[Array, "batch *event"]) -> PerExample:
    return jnp.sum(x, axis=tuple(range(1, x.ndim)))


def standard_normal_kl(posterior: DiagonalGaussian) -> PerExample:
    """Returns KL(posterior || N(0, I)) of each example in nats, summed over dimensions; [B], >= 0.

    0.5 * sum(mean^2 + variance - log variance - 1): Kingma and Welling 2013, Appendix B; terms 4
    and 5 of pchVAE Eq. 9.
    """
    mean, log_variance = posterior.mean, posterior.log_variance
    # expm1(v) - v keeps its digits if the posterior is close to the prior.
    return 0.5 * _sum_per_example(mean**2 + jnp.expm1(log_variance) - log_variance)


def gaussian_negative_log_likelihood(
    x: Float[Array, "batch *event"], mean: Float[Array, "batch *event"], variance: float
) -> PerExample:
    """Returns -log N(x; mean, variance I) of each example in nats, summed over dimensions; [B].

    The norms of pchVAE Eq. 9 before `c` is chosen (its Eq. 8): `variance` is the constant c.
    """
    squared_error = (x - mean) ** 2
    return 0.5 * _sum_per_example(squared_error / variance + jnp.log(2 * jnp.pi * variance))


def reparameterise(
    posterior: DiagonalGaussian, keys: ExampleKeys | None
) -> Float[Array, "batch *event"]:
    """Draws from each example's posterior, or returns its mean if `keys` is None; [B, ...].

    Each example has a key, so that its noise depends neither on the layout of the batch over
    devices nor on other examples.
    """
    if keys is None:
        return posterior.mean
    noise = jax.vmap(lambda key: jax.random.normal(key, posterior.mean.shape[1:]))(keys)
    noise = noise.astype(posterior.mean.dtype)
    return posterior.mean + jnp.exp(0.5 * posterior.log_variance) * noise


def fold_in_all(keys: ExampleKeys | None, data: int) -> ExampleKeys | None:
    """Applies `jax.random.fold_in` to every example's key; None (deterministic) stays None."""
    if keys is None:
        return None
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, data)


def gaussian_smoothing(
    maps: Float[Array, "batch height width"], deviation: float
) -> Float[Array, "batch height width"]:
    """Smooths maps with a Gaussian, cut at four deviations and reflected at the border.

    `scipy.ndimage.gaussian_filter`; deviation in pixels.
    """
    down, along = (_smoothing_matrix(side, deviation) for side in maps.shape[1:])
    rows = jnp.einsum("rh,bhw->brw", down, maps, precision="highest")
    return jnp.einsum("sw,brw->brs", along, rows, precision="highest")


def _smoothing_matrix(side: int, deviation: float) -> Float[Array, "side side"]:
    """Returns the matrix that smooths a line of pixels."""
    matrix = scipy.ndimage.gaussian_filter1d(np.eye(side), deviation, axis=0)
    return jnp.asarray(matrix, jnp.float32)


#: Side of SSIM's Gaussian window, and its standard deviation, in pixels (Wang et al. 2004).
SSIM_WINDOW, SSIM_DEVIATION = 11, 1.5


def structural_similarity(x: Images, y: Images) -> Float[Array, "batch rows columns channels"]:
    """Returns SSIM at every position where the window lies inside the image.

    Wang et al. 2004 with a Gaussian window, K1 = .01, K2 = .03 and a data range of 1, the range of
    images in this package: a range taken from the data would make a score depend on other images.

    Returns:
        [B, H - 10, W - 10, C], between -1 and 1; 1 where the images are equal.
    """
    return dm_pix.ssim(x, y, max_val=1.0, filter_fn=_blurred, return_map=True)


def _blurred(images: Images) -> Float[Array, "batch rows columns channels"]:
    """Returns the Gaussian window's mean at every position where it lies inside the image.

    Products with banded matrices: on a CPU convolutions of a single channel take five to eight
    times as long (`benchmarks/similarity.py`).
    """
    down, along = (_window_means(side, images.dtype) for side in images.shape[1:3])
    rows = jnp.einsum("rh,bhwc->brwc", down, images, precision="highest")
    return jnp.einsum("sw,brwc->brsc", along, rows, precision="highest")


def _window_means(side: int, dtype: DTypeLike) -> Float[Array, "places side"]:
    """Returns the matrix that maps a line of pixels to the means of windows inside it."""
    distance = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    window = np.exp(-0.5 * (distance / SSIM_DEVIATION) ** 2)
    places = side - SSIM_WINDOW + 1
    bands = [np.pad(window / window.sum(), (place, places - 1 - place)) for place in range(places)]
    return jnp.asarray(np.stack(bands), dtype)
