"""Compares the model's roofline with updates timed on this machine, whose peaks are measured."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scaling_programs

from jaxad.profile.profiling import measured_peak
from jaxad.profile.program_costs import program_costs

#: Numbers in the array that is read and written: 256 MB, more than any cache.
COPIED = 2**26
REPEATS = 9


def memory_bandwidth() -> float:
    """Returns bytes/s of reading and writing an array in place, without new memory."""
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    array = jax.block_until_ready(add(jnp.zeros(COPIED, jnp.float32)))
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        array = jax.block_until_ready(add(array))
        times.append(time.perf_counter() - start)
    return 2 * array.nbytes / min(times)


def random_batch(shapes: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns a batch of these shapes with random pixels and features."""
    rng = np.random.default_rng(0)
    batch = {
        name: rng.uniform(size=shape.shape).astype(shape.dtype) for name, shape in shapes.items()
    }
    count = len(batch["label"])
    return {**batch, "_valid": np.ones(count, bool), "_index": np.arange(count, dtype=np.int32)}


def run(names: list[str]) -> None:
    """Prints a row for every phase of every config, at the config's batch.

    Peaks are measured again for each row. Of peaks and of updates the fastest repeat counts,
    because other work on the machine makes both slower.
    """
    print("| config | updates of | GFLOP/s | GB/s | arithmetic, ms | memory, ms | ms | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for name in names:
        config, program = scaling_programs.make(name)
        shapes = scaling_programs.batch_shapes(config, program, config.data.batch_size)
        batch = program.parallel.put_batch(random_batch(shapes))
        state = program.parallel.put_replicated(program.initial_states[0])
        for (phase, _), update in program.updates.items():
            compiled = update.lower(state, batch).compile()
            costs = program_costs(compiled)
            assert costs.flops is not None and costs.bytes_accessed is not None
            peak = measured_peak(program.parallel, "float32").flops_per_second
            bandwidth = memory_bandwidth()
            times = []
            for _ in range(REPEATS + 1):
                start = time.perf_counter()
                state, metrics = update(state, batch)
                jax.block_until_ready((state, metrics))
                times.append(time.perf_counter() - start)
            arithmetic, memory = costs.flops / peak, costs.bytes_accessed / bandwidth
            fastest = min(times[1:])
            print(
                f"| `{name}` | {', '.join(phase)} | {peak / 1e9:.0f} | {bandwidth / 1e9:.1f} | "
                f"{1e3 * arithmetic:.3g} | {1e3 * memory:.3g} | {1e3 * fastest:.3g} | "
                f"{fastest / max(arithmetic, memory):.1f} |",
                flush=True,
            )
