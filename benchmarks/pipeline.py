"""Compares the input pipeline with the train step that it feeds, in images per second.

    python benchmarks/pipeline.py --config=pchvae:demo

Both are measured in turn, several times; ratios are those of pairs.
"""

import argparse
import functools
import statistics
import time

from jaxad.config import get_config
from jaxad.config.model import make_model
from jaxad.data.pipeline import batching
from jaxad.data.pipeline.augment import Augmentation
from jaxad.data.sources import DataSet
from jaxad.runtime.parallel import make_parallel
from jaxad.train.optim import make_optimisers
from jaxad.train.phases import make_phases
from jaxad.train.state import create_state, initial_variables
from jaxad.train.step import train_step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="pchvae:demo")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--pipeline_steps", type=int, default=200)
    parser.add_argument("--train_steps", type=int, default=15)
    options = parser.parse_args()

    config = get_config(options.config)
    split = DataSet(config.data).split("train")
    parallel = make_parallel(config.parallel)
    model = make_model(config, parallel.axis_name)
    variables = initial_variables(model, config.seed)
    phases = make_phases(config.train.updates, model.networks, num_steps=1000)
    optimisers = make_optimisers(config.optim, model, variables["params"], phases)
    state = parallel.put_replicated(create_state(variables, optimisers, config.seed))
    step = parallel.compile_reduce(
        functools.partial(train_step, model=model, optimisers=optimisers),
        donate_state=True,
    )

    def batches(count: int):
        return batching.train_batches(
            split,
            batch_size=config.data.batch_size,
            seed=config.seed,
            augmentation=Augmentation(**config.data.augment),
            start_step=0,
            stop_step=count,
        )

    fixed = parallel.put_batch(next(iter(batches(1))))
    state, metrics = step(state, fixed)
    parallel.get_replicated(metrics)

    rates: dict[str, list[float]] = {"pipeline": [], "train step": []}
    for _ in range(options.repeats):
        iterator = iter(batches(options.pipeline_steps))
        next(iterator)  # builds the graph, which is not timed
        start = time.perf_counter()
        delivered = sum(len(batch["image"]) for batch in iterator)
        rates["pipeline"].append(delivered / (time.perf_counter() - start))
        start = time.perf_counter()
        for _ in range(options.train_steps):
            state, metrics = step(state, fixed)
        parallel.get_replicated(metrics)
        seconds = time.perf_counter() - start
        rates["train step"].append(options.train_steps * config.data.batch_size / seconds)

    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, values in rates.items():
        print(
            f"{name}: {medians[name]:,.0f} images/s "
            f"(min {min(values):,.0f}, max {max(values):,.0f}, {options.repeats} runs)"
        )
    ratios = [a / b for a, b in zip(rates["pipeline"], rates["train step"], strict=True)]
    print(f"ratio: {statistics.median(ratios):.1f} (min {min(ratios):.1f}, max {max(ratios):.1f})")


if __name__ == "__main__":
    main()
