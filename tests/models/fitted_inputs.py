"""What the tests of models that are fitted in one pass share."""

import jax.numpy as jnp
import numpy as np


def images_of(count, size, seed=0):
    """Returns random images [count, size, size, 1]."""
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.uniform(size=(count, size, size, 1)), jnp.float32)


def batches_of(features, size=4):
    """Yields batches of a constant size, the last one padded with NaN."""
    for start in range(0, len(features), size):
        part = features[start : start + size]
        padded = np.full((size, features.shape[1]), np.nan, features.dtype)
        padded[: len(part)] = part
        yield {"features": padded, "_valid": np.arange(size) < len(part)}
