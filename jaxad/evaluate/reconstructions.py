"""The quality of reconstructions."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxad.data.prepare.preprocess import to_unit_interval
from jaxad.evaluate.metrics import RECONSTRUCTION_PSNR, RECONSTRUCTION_SSIM
from jaxad.nn import ops
from jaxad.types import Images, PerExample, Scores


def quality(scores: Scores, images: np.ndarray) -> dict[str, Float[np.ndarray, " batch"]]:
    """Returns the peak signal-to-noise ratio, in dB, and the SSIM of reconstructions, each [B].

    Returns `{}` for a system without reconstructions, and no SSIM for images smaller than its
    window. The range of images is 1.

    Args:
        scores: the scores of a batch.
        images: the images of the batch, of any type of `jaxad.types.Split`.
    """
    if "reconstruction" not in scores.reconstructions:
        return {}
    image, output = to_unit_interval(images), np.asarray(scores.reconstructions["reconstruction"])
    with np.errstate(divide="ignore"):
        ratio = -10 * np.log10(np.mean((image - output) ** 2, axis=(1, 2, 3)))
    found = {RECONSTRUCTION_PSNR: ratio}
    if min(images.shape[1:3]) >= ops.SSIM_WINDOW:
        found[RECONSTRUCTION_SSIM] = np.asarray(_mean_ssim(image, output))
    return found


@jax.jit
def _mean_ssim(x: Images, y: Images) -> PerExample:
    return jnp.mean(ops.structural_similarity(x, y), axis=(1, 2, 3))
