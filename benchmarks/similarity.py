"""SSIM and its gradient: dm_pix's own Gaussian filter against `jaxad.nn.ops`, in turn in one run.

python benchmarks/similarity.py
"""

import argparse
import statistics
import time
from collections.abc import Callable

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np

from jaxad.nn import ops

Similarity = Callable[[jax.Array, jax.Array], jax.Array]
#: Batch, side: AE-FLOW's demo, and its paper's images at batch 8.
SHAPES = ((32, 128), (8, 256))


def theirs(x: jax.Array, y: jax.Array) -> jax.Array:
    return dm_pix.ssim(
        x, y, filter_size=ops.SSIM_WINDOW, filter_sigma=ops.SSIM_DEVIATION, return_map=True
    )


def milliseconds(function: Callable[..., jax.Array], *arguments: jax.Array) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    print(f"jax {jax.__version__} on {jax.default_backend()}\n")
    print("| batch, side | | dm_pix, ms | here, ms | dm_pix / here | min | max |")
    print("|---|---|---|---|---|---|---|")
    for batch, side in SHAPES:
        rng = np.random.default_rng(0)
        x, y = (jnp.asarray(rng.uniform(size=(batch, side, side, 1)), jnp.float32) for _ in "xy")
        similarities: tuple[Similarity, Similarity] = (theirs, ops.structural_similarity)
        kinds = {
            "value": [jax.jit(one) for one in similarities],
            "gradient": [
                jax.jit(jax.grad(lambda x, y, one=one: jnp.mean(one(x, y)))) for one in similarities
            ],
        }
        for name, pair in kinds.items():
            times = [[milliseconds(one, x, y) for one in pair] for _ in range(options.repeats + 1)]
            ratios = [a / b for a, b in times[1:]]
            medians = [statistics.median(found) for found in zip(*times[1:], strict=True)]
            print(
                f"| {batch}, {side} | {name} | {medians[0]:.1f} | {medians[1]:.1f} | "
                f"{statistics.median(ratios):.1f} | {min(ratios):.1f} | {max(ratios):.1f} |"
            )


if __name__ == "__main__":
    main()
