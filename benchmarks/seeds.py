"""Compares several seeds in one program with the same seeds one after another.

    python benchmarks/seeds.py --config=pchvae:demo --seeds=3

Both are measured in turn, several times: images per second over all seeds.
"""

import argparse
import statistics
import time

import jax

from jaxad.config import get_config
from jaxad.data.sources import DataSet
from jaxad.runtime.huge_pages import restart_with_huge_pages
from jaxad.runtime.parallel import split_cpu
from jaxad.train.program import Program, make_program, train_batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="pchvae:demo")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch_size", type=int, default=0, help="0: the config's")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    config = get_config(options.config)
    if options.batch_size:
        config.data.batch_size = options.batch_size
    split_cpu(config.cpu_devices)
    split = DataSet(config.data).split("train")
    seeds = list(range(options.seeds))
    groups = {"one program": [seeds], "one after another": [[seed] for seed in seeds]}

    def prepare(group: list[int]) -> tuple[Program, list]:
        program = make_program(config, group, len(split))
        batch = next(train_batches(config, group, split, 0, [1]))
        state = program.parallel.put_replicated(program.stack(program.initial_states))
        return program, [state, program.parallel.put_batch(batch)]

    prepared = {name: [prepare(group) for group in parts] for name, parts in groups.items()}

    def run(name: str, steps: int) -> None:
        for program, held in prepared[name]:
            for _ in range(steps):
                held[0], metrics = program.updates[program.phases.at(0), 1](*held)
            jax.block_until_ready(metrics)

    rates: dict[str, list[float]] = {name: [] for name in groups}
    for name in groups:
        run(name, 2)
    for _ in range(options.repeats):
        for name in groups:
            start = time.perf_counter()
            run(name, options.steps)
            images = options.steps * config.data.batch_size * len(seeds)
            rates[name].append(images / (time.perf_counter() - start))
    for name, values in rates.items():
        print(
            f"{name}: {statistics.median(values):,.0f} images/s "
            f"(min {min(values):,.0f}, max {max(values):,.0f}, {options.repeats} runs)"
        )
    ratios = [a / b for a, b in zip(*rates.values(), strict=True)]
    print(f"ratio: {statistics.median(ratios):.2f} (min {min(ratios):.2f}, max {max(ratios):.2f})")


if __name__ == "__main__":
    restart_with_huge_pages()
    main()
