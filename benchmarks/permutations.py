"""What the permutation of a flow's channels costs as a gather and as a product with its matrix.

python benchmarks/permutations.py
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxad.nn.flow.permutations import gather_channels, multiply_channels

#: Batch, side, channels: FastFlow's levels and AE-FLOW's default, then wider ones to the paper's.
SHAPES = ((32, 32, 24), (32, 16, 40), (32, 8, 112), (8, 32, 256), (8, 16, 512), (8, 16, 1024))
WAYS = {
    "gather": gather_channels,
    "product": lambda x, order, inverse: multiply_channels(x, order),
    "indexing": lambda x, order, inverse: x[..., order],
}


def milliseconds(task: jax.stages.Wrapped, *arguments: jax.Array) -> float:
    start = time.perf_counter()
    jax.block_until_ready(task(*arguments))
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    print(f"jax {jax.__version__} on {jax.default_backend()}; ms (min to max)\n\n"
          f"| batch, side, channels | | {' | '.join(WAYS)} |\n"
          f"|---|---|{'---|' * len(WAYS)}")  # fmt: skip
    for batch, side, channels in SHAPES:
        shape = (batch, side, side, channels)
        x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
        # An argument, as in training: of a constant order XLA compiles something else.
        order = jax.random.permutation(jax.random.key(0), channels)
        inverse = jnp.argsort(order)
        tasks = {
            "value": {name: jax.jit(way) for name, way in WAYS.items()},
            "value and gradient": {
                name: jax.jit(jax.grad(lambda x, o, i, way=way: jnp.sum(jnp.sin(way(x, o, i)))))
                for name, way in WAYS.items()
            },
        }
        for kind, ways in tasks.items():
            found = [
                [milliseconds(task, x, order, inverse) for task in ways.values()]
                for _ in range(options.repeats + 1)
            ][1:]  # the first one compiles
            cells = [
                f"{statistics.median(times):.1f} ({min(times):.1f} to {max(times):.1f})"
                for times in zip(*found, strict=True)
            ]
            print(f"| {batch}, {side}, {channels} | {kind} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
