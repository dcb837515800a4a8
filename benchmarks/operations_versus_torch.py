"""Compares the convolutions of AE-FLOW's forward pass at paper size with PyTorch's, one by one.

    pip install -e '.[benchmark]' && python benchmarks/operations_versus_torch.py

Both sides are measured in turn in one run.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F

from jaxad.nn.convolution import conv_general_dilated
from jaxad.runtime.huge_pages import restart_with_huge_pages

#: Occurrences in a forward pass, side of the input, channels, features, kernel, stride.
ENCODER = (
    (1, 256, 3, 64, 7, 2), (1, 64, 64, 128, 1, 1), (3, 64, 128, 128, 3, 1),
    (4, 64, 128, 256, 1, 1), (2, 64, 256, 128, 1, 1), (1, 64, 256, 256, 1, 1),
    (1, 64, 256, 256, 3, 2), (1, 64, 256, 512, 1, 2), (3, 32, 256, 256, 3, 1),
    (4, 32, 256, 512, 1, 1), (3, 32, 512, 256, 1, 1), (1, 32, 512, 512, 1, 1),
    (1, 32, 512, 512, 3, 2), (1, 32, 512, 1024, 1, 2), (5, 16, 512, 512, 3, 1),
    (6, 16, 512, 1024, 1, 1), (5, 16, 1024, 512, 1, 1),
)  # fmt: skip
FLOW = ((8, 16, 512, 512, 3, 1), (8, 16, 512, 1024, 1, 1))
DECODER = ((1, 32, 512, 512, 3, 1), (1, 64, 256, 256, 3, 1), (1, 128, 64, 64, 3, 1))


def milliseconds(task: Callable[[], object]) -> float:
    start = time.perf_counter()
    task()
    return 1e3 * (time.perf_counter() - start)


def tasks(
    batch: int, side: int, inputs: int, outputs: int, size: int, stride: int
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Returns the same convolution in PyTorch (channels last) and in JAX."""
    x = np.random.default_rng(0).normal(size=(batch, side, side, inputs)).astype(np.float32)
    kernel = np.random.default_rng(1).normal(size=(size, size, inputs, outputs)).astype(np.float32)
    pad = size // 2
    x_torch = torch.from_numpy(x.transpose(0, 3, 1, 2))  # a view: channels last
    kernel_torch = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
    kernel_torch = kernel_torch.contiguous(memory_format=torch.channels_last)
    padding = "SAME" if stride == 1 else [(pad, pad)] * 2
    x_jax, kernel_jax = jnp.asarray(x), jnp.asarray(kernel)
    compiled = jax.jit(lambda x, k: conv_general_dilated(x, k, (stride, stride), padding))

    def of_torch() -> object:
        with torch.no_grad():
            return F.conv2d(x_torch, kernel_torch, stride=stride, padding=pad)

    return of_torch, lambda: jax.block_until_ready(compiled(x_jax, kernel_jax))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    print(f"batch {options.batch_size}, torch {torch.__version__} on {torch.get_num_threads()} "
          f"threads, jax {jax.__version__}; ms of all occurrences")  # fmt: skip
    print("| | side, in, out, kernel, stride | times | PyTorch | jaxad | PyTorch / jaxad |")
    print("|---|---|---|---|---|---|")
    for part, shapes in {"encoder": ENCODER, "flow": FLOW, "decoder": DECODER}.items():
        totals = np.zeros(2)
        for times, *shape in shapes:
            sides = tasks(options.batch_size, *shape)
            rows = [[milliseconds(task) for task in sides] for _ in range(options.repeats + 2)][2:]
            medians = times * np.array([statistics.median(c) for c in zip(*rows, strict=True)])
            totals += medians
            print(
                f"| {part} | {', '.join(map(str, shape))} | {times} | {medians[0]:.0f} | "
                f"{medians[1]:.0f} | {medians[0] / medians[1]:.2f} |",
                flush=True,
            )
        print(
            f"| {part} | all | | {totals[0]:.0f} | {totals[1]:.0f} | {totals[0] / totals[1]:.2f} |"
        )


if __name__ == "__main__":
    restart_with_huge_pages()
    main()
