"""Compares SSIM and its gradient in dm_pix and in `jaxad.nn.ops`, in turn in one run.

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
from jaxad.runtime.huge_pages import restart_with_huge_pages

Similarity = Callable[[jax.Array, jax.Array], jax.Array]
#: (batch, side) of AE-FLOW's demo, and of its paper's images at batch 8.
SHAPES = ((32, 128), (8, 256))


def dm_pix_ssim(x: jax.Array, y: jax.Array) -> jax.Array:
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
    print("| batch, side | | dm_pix, ms | jaxad, ms | dm_pix / jaxad | min | max |")
    print("|---|---|---|---|---|---|---|")
    for batch, side in SHAPES:
        rng = np.random.default_rng(0)
        x, y = (jnp.asarray(rng.uniform(size=(batch, side, side, 1)), jnp.float32) for _ in "xy")
        similarities: tuple[Similarity, Similarity] = (dm_pix_ssim, ops.structural_similarity)
        kinds = {
            "value": [jax.jit(function) for function in similarities],
            "gradient": [
                jax.jit(jax.grad(lambda x, y, function=function: jnp.mean(function(x, y))))
                for function in similarities
            ],
        }
        for name, pair in kinds.items():
            times = [
                [milliseconds(task, x, y) for task in pair] for _ in range(options.repeats + 1)
            ]
            ratios = [a / b for a, b in times[1:]]
            medians = [statistics.median(column) for column in zip(*times[1:], strict=True)]
            print(
                f"| {batch}, {side} | {name} | {medians[0]:.1f} | {medians[1]:.1f} | "
                f"{statistics.median(ratios):.1f} | {min(ratios):.1f} | {max(ratios):.1f} |"
            )


if __name__ == "__main__":
    restart_with_huge_pages()
    main()
