"""What the permutation of a flow's channels costs, and what other ways of writing it would.

python benchmarks/permutations.py
"""

import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxad.nn.flow.permutations import ChannelPermutation, ChannelReversal

SHAPE = (8, 16, 16, 1024)


def milliseconds(task: Callable[[jax.Array], jax.Array], x: jax.Array) -> float:
    start = time.perf_counter()
    jax.block_until_ready(task(x))
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=SHAPE), jnp.float32)
    order = jax.random.permutation(jax.random.key(0), SHAPE[-1])
    matrix = jnp.eye(SHAPE[-1])[order]
    permute, reverse = ChannelPermutation(order).forward, ChannelReversal().forward
    tasks = {
        "copy (times 2)": lambda x: 2 * x,
        "permutation": permute,
        "permutation, gradient": jax.grad(lambda x: jnp.sum(permute(x) * x)),
        "indexing, gradient by autodiff": jax.grad(lambda x: jnp.sum(x[..., order] * x)),
        "product with its matrix": lambda x: x @ matrix.T,
        "reversal": reverse,
    }
    compiled = {name: jax.jit(task) for name, task in tasks.items()}
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for round_number in range(16):
        for name, task in compiled.items():
            elapsed = milliseconds(task, x)
            if round_number:  # the first one compiles
                times[name].append(elapsed)
    print(f"{SHAPE}, jax {jax.__version__} on {jax.default_backend()}")
    print("| | ms | min | max |\n|---|---|---|---|")
    for name, found in times.items():
        print(f"| {name} | {statistics.median(found):.1f} | {min(found):.1f} | {max(found):.1f} |")


if __name__ == "__main__":
    main()
