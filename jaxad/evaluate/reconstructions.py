"""How similar reconstructions are to their images."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxad.data.prepare.preprocess import to_unit_interval
from jaxad.evaluate.metrics import SIMILARITY
from jaxad.nn import ops
from jaxad.types import Images, PerExample, Scores


def similarity(scores: Scores, images: np.ndarray) -> dict[str, Float[np.ndarray, " batch"]]:
    """Returns the mean SSIM of each reconstruction and its image, `{SIMILARITY: [B]}`.

    Returns `{}` for a system without reconstructions, and for images smaller than SSIM's window.

    Args:
        scores: the scores of a batch, which has this column as a component or not.
        images: the images of the batch, of any type of `jaxad.types.Split`.
    """
    if "reconstruction" not in scores.reconstructions or SIMILARITY in scores.components:
        return {}
    if min(images.shape[1:3]) < ops.SSIM_WINDOW:
        return {}
    reconstruction = np.asarray(scores.reconstructions["reconstruction"])
    return {SIMILARITY: np.asarray(_mean_ssim(to_unit_interval(images), reconstruction))}


@jax.jit
def _mean_ssim(x: Images, y: Images) -> PerExample:
    return jnp.mean(ops.structural_similarity(x, y), axis=(1, 2, 3))
