"""Compares the input pipeline with the train step that it feeds, in images per second.

    python benchmarks/pipeline.py --config=pchvae:demo

Both are measured in turn, several times; ratios are those of pairs.
"""

import argparse
import statistics
import time

from stored_pixels import update_rate

from jaxad.config import get_config
from jaxad.data.pipeline import batching
from jaxad.data.pipeline.augment import Augmentation
from jaxad.data.sources import DataSet
from jaxad.runtime.huge_pages import restart_with_huge_pages
from jaxad.runtime.parallel import split_cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="pchvae:demo")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--pipeline_steps", type=int, default=200)
    parser.add_argument("--train_steps", type=int, default=15)
    options = parser.parse_args()

    config = get_config(options.config)
    split_cpu(config.cpu_devices)
    split = DataSet(config.data).split("train")

    def batches(count: int):
        return batching.train_batches(
            split,
            batch_size=config.data.batch_size,
            seed=config.seed,
            augmentation=Augmentation(**config.data.augment),
            start_step=0,
            stop_step=count,
        )

    update = update_rate(config, next(iter(batches(1))))
    rates: dict[str, list[float]] = {"pipeline": [], "train step": []}
    for _ in range(options.repeats):
        iterator = iter(batches(options.pipeline_steps))
        next(iterator)  # builds the graph, which is not timed
        start = time.perf_counter()
        delivered = sum(len(batch["image"]) for batch in iterator)
        rates["pipeline"].append(delivered / (time.perf_counter() - start))
        rates["train step"].append(update(options.train_steps))

    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, values in rates.items():
        print(
            f"{name}: {medians[name]:,.0f} images/s "
            f"(min {min(values):,.0f}, max {max(values):,.0f}, {options.repeats} runs)"
        )
    ratios = [a / b for a, b in zip(rates["pipeline"], rates["train step"], strict=True)]
    print(f"ratio: {statistics.median(ratios):.1f} (min {min(ratios):.1f}, max {max(ratios):.1f})")


if __name__ == "__main__":
    restart_with_huge_pages()
    main()
