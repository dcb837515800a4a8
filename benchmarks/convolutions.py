"""The weight gradient of 3x3 convolutions: XLA's own against the products of
`jaxad.nn.convolution`, in turn in one run, with the matrix-product ceiling.

    python benchmarks/weight_gradients.py
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxad.nn.convolution import conv_general_dilated

#: Batch, side, channels, features: those of AE-FLOW at paper size and of its demo.
SHAPES = (
    (8, 128, 64, 64),
    (8, 64, 256, 256),
    (8, 32, 512, 512),
    (8, 16, 512, 512),
    (16, 16, 56, 56),
    (16, 8, 56, 112),
)


def seconds(task: Callable[[], jax.Array]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(task())
    return time.perf_counter() - start


def weight_gradient(
    function: Callable, x: jax.Array, kernel: jax.Array, gradient: jax.Array
) -> Callable[[], jax.Array]:
    """A task that computes it with the derivative of `function`."""
    compiled = jax.jit(lambda x, k, g: jax.vjp(lambda k: function(x, k), k)[1](g)[0])
    return lambda: compiled(x, kernel, gradient)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    matrix = jnp.asarray(rng.normal(size=(2048, 2048)), jnp.float32)
    product = jax.jit(jnp.matmul)
    rate = [2 * 2048**3 / 1e9 / seconds(lambda: product(matrix, matrix)) for _ in range(6)][1:]
    print(f"jax {jax.__version__} on {jax.default_backend()}, matrix product "
          f"{statistics.median(rate):.0f} GFLOP/s")  # fmt: skip
    print("| batch, side, channels, features | XLA, GFLOP/s | here, GFLOP/s | ratio | min | max |")
    print("|---|---|---|---|---|---|")
    numbers = ("NHWC", "HWIO", "NHWC")

    def theirs(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)

    def ours(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return conv_general_dilated(x, kernel, (1, 1), "SAME")

    for batch, side, channels, features in SHAPES:
        x = jnp.asarray(rng.normal(size=(batch, side, side, channels)), jnp.float32)
        kernel = jnp.asarray(rng.normal(size=(3, 3, channels, features)), jnp.float32)
        gradient = jnp.asarray(rng.normal(size=(batch, side, side, features)), jnp.float32)

        tasks = [weight_gradient(function, x, kernel, gradient) for function in (theirs, ours)]
        times = [[seconds(task) for task in tasks] for _ in range(options.repeats + 1)][1:]
        work = 2 * batch * side**2 * 9 * channels * features / 1e9
        ratios = [a / b for a, b in times]
        rates = " | ".join(f"{work / statistics.median(t):.0f}" for t in zip(*times, strict=True))
        print(
            f"| {batch}, {side}, {channels}, {features} | {rates} | "
            f"{statistics.median(ratios):.1f} | {min(ratios):.1f} | {max(ratios):.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
