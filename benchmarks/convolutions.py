"""Compares the convolutions of `jaxad.nn.convolution` with XLA's own, in turn in one run.

    python benchmarks/convolutions.py

Covers 3x3 convolutions, their weight gradients, depthwise and 1x1 convolutions, and prints the rate
of a matrix product as the ceiling.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxad.nn.convolution import conv_general_dilated
from jaxad.runtime.huge_pages import restart_with_huge_pages

#: (batch, side, channels, features) of AE-FLOW at paper size and of its demo.
WIDE = (
    (8, 128, 64, 64),
    (8, 64, 256, 256),
    (8, 32, 512, 512),
    (8, 16, 512, 512),
    (32, 32, 32, 32),
    (32, 8, 56, 112),
    (16, 16, 60, 60),
)
#: (batch, side, channels, features) of FastFlow, AE-FLOW and VQ-VAE-2, whose channels do not fill
#: vector registers, and of pchVAE and a decoder, whose channels do.
FORWARD = (
    (32, 32, 12, 12),
    (32, 16, 20, 20),
    (32, 8, 56, 56),
    (16, 16, 60, 60),
    (16, 16, 16, 60),
    (16, 8, 48, 48),
    (32, 32, 32, 32),
)
#: The paper's batch; only its memory is measured.
LARGE = (64, 128, 64, 64)
#: (batch, side, channels, side of the kernel, stride) of EfficientNet-Lite0 at 128 px.
DEPTHWISE = ((32, 64, 32, 3, 1), (32, 64, 96, 3, 2), (32, 32, 144, 3, 1), (32, 8, 672, 5, 1))
#: (batch, side, channels, features, stride) of Wide-ResNet-50-2 at paper size and of
#: EfficientNet-Lite0 at 128 px.
POINTWISE = (
    (8, 64, 256, 128, 1),
    (8, 64, 128, 256, 1),
    (8, 64, 256, 512, 2),
    (8, 32, 256, 512, 1),
    (8, 16, 1024, 512, 1),
    (32, 32, 144, 24, 1),
    (32, 8, 672, 112, 1),
)

Convolution = Callable[..., jax.Array]
Task = Callable[[], jax.Array]


def seconds(task: Task) -> float:
    start = time.perf_counter()
    jax.block_until_ready(task())
    return time.perf_counter() - start


def normal(shape: tuple[int, ...]) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def gradient_of(function: Convolution) -> jax.stages.Wrapped:
    """Returns a compiled function (x, kernel, gradient of the output) -> gradient of the kernel."""
    convolve = partial(function, strides=(1, 1))
    return jax.jit(lambda x, k, g: jax.vjp(lambda k: convolve(x, k), k)[1](g)[0])


def weight_gradient(
    function: Convolution, batch: int, side: int, inputs: int, outputs: int
) -> Task:
    x, kernel = normal((batch, side, side, inputs)), normal((3, 3, inputs, outputs))
    gradient = normal((batch, side, side, outputs))
    compiled = gradient_of(function)
    return lambda: compiled(x, kernel, gradient)


def forward(function: Convolution, batch: int, side: int, inputs: int, outputs: int) -> Task:
    x, kernel = normal((batch, side, side, inputs)), normal((3, 3, inputs, outputs))
    compiled = jax.jit(partial(function, strides=(1, 1)))
    return lambda: compiled(x, kernel)


def temporaries(function: Convolution, batch: int, side: int, inputs: int, outputs: int) -> int:
    """Returns the bytes of temporaries of a compiled weight gradient; nothing is run."""
    shapes = ((batch, side, side, inputs), (3, 3, inputs, outputs), (batch, side, side, outputs))
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    compiled = gradient_of(function).lower(*arrays).compile()
    return int(compiled.memory_analysis().temp_size_in_bytes)


def depthwise(
    function: Convolution, batch: int, side: int, channels: int, size: int, stride: int
) -> Task:
    x, kernel = normal((batch, side, side, channels)), normal((size, size, 1, channels))
    convolve = partial(function, strides=(stride, stride), feature_group_count=channels)
    compiled = jax.jit(convolve)
    return lambda: compiled(x, kernel)


def pointwise(
    function: Convolution, batch: int, side: int, inputs: int, outputs: int, stride: int
) -> Task:
    x, kernel = normal((batch, side, side, inputs)), normal((1, 1, inputs, outputs))
    compiled = jax.jit(partial(function, strides=(stride, stride)))
    return lambda: compiled(x, kernel)


def xla(x: jax.Array, kernel: jax.Array, strides: tuple[int, int], **settings: int) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, strides, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), **settings
    )


def ours(x: jax.Array, kernel: jax.Array, strides: tuple[int, int], **settings: int) -> jax.Array:
    return conv_general_dilated(x, kernel, strides, "SAME", **settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    matrix, product = normal((2048, 2048)), jax.jit(jnp.matmul)
    rates = [2 * 2048**3 / 1e9 / seconds(lambda: product(matrix, matrix)) for _ in range(6)][1:]
    print(f"jax {jax.__version__} on {jax.default_backend()}, matrix product "
          f"{statistics.median(rates):.0f} GFLOP/s")  # fmt: skip
    megabytes = [temporaries(function, *LARGE) / 1e6 for function in (xla, ours)]
    print(f"temporaries of the weight gradient of {LARGE}: XLA {megabytes[0]:.0f} MB, jaxad "
          f"{megabytes[1]:.0f} MB")  # fmt: skip
    parts = (
        ("3x3: batch, side, channels, features", forward, FORWARD),
        ("weight gradient: batch, side, channels, features", weight_gradient, WIDE),
        ("depthwise: batch, side, channels, kernel, stride", depthwise, DEPTHWISE),
        ("1x1: batch, side, channels, features, stride", pointwise, POINTWISE),
    )
    for heading, make, shapes in parts:
        print(
            f"\n| {heading} | XLA, ms | jaxad, ms | XLA / jaxad | min | max |\n"
            "|---|---|---|---|---|---|"
        )
        for shape in shapes:
            tasks = [make(function, *shape) for function in (xla, ours)]
            times = [[seconds(task) for task in tasks] for _ in range(options.repeats + 1)][1:]
            ratios = [a / b for a, b in times]
            medians = " | ".join(
                f"{1e3 * statistics.median(column):.1f}" for column in zip(*times, strict=True)
            )
            print(
                f"| {', '.join(map(str, shape))} | {medians} | {statistics.median(ratios):.1f} | "
                f"{min(ratios):.1f} | {max(ratios):.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    restart_with_huge_pages()
    main()
