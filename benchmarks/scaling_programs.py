"""Compiles the programs of training and reads their costs; nothing is run."""

from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxad.config import get_config
from jaxad.config.model import image_shape
from jaxad.data.pipeline.augment import Augmentation
from jaxad.profile.program_costs import program_costs
from jaxad.train.program import Program, make_program
from jaxad.types import PretrainedModel, Tree

DEVICES = 8
#: Images on each device for which a step is compiled; costs are a line through the first and last.
#: Variants, which take longer to compile, use only these two.
PER_DEVICE = (2, 4, 8)
#: Size of the data set; it only affects how often each phase occurs.
EXAMPLES = 10_000


def shape_of(tree: Tree) -> Tree:
    """Returns the shapes and dtypes of a tree of arrays."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype), tree)


def batch_shapes(config: ConfigDict, program: Program, count: int) -> dict[str, Any]:
    """Returns the shapes of a batch, with features where training has them from its cache."""
    side, _, channels = image_shape(config)
    shapes: dict[str, Any] = {
        "image": jax.ShapeDtypeStruct((count, side, side, channels), np.float32),
        "label": jax.ShapeDtypeStruct((count,), np.int32),
        "_valid": jax.ShapeDtypeStruct((count,), np.bool_),
        "_index": jax.ShapeDtypeStruct((count,), np.int32),
    }
    model = program.model
    if isinstance(model, PretrainedModel) and Augmentation(**config.data.augment).is_off:
        variables = shape_of(program.initial_states[0].variables)
        features = jax.eval_shape(model.features, variables, shapes["image"])
        shapes["features"] = jax.ShapeDtypeStruct(features.shape, np.float16)
    return shapes


def make(name: str) -> tuple[ConfigDict, Program]:
    """Returns a config and its program; encoders are random, which has the same costs."""
    config = get_config(name)
    if isinstance(config.model.get("weights"), str):
        config.model.weights = "random"
    return config, make_program(config, [0], EXAMPLES)


def costs_of(name: str) -> dict[str, Any]:
    """Returns the costs of each phase on one device, for each number in `PER_DEVICE`."""
    config, program = make(name)
    (state,) = program.initial_states
    steps = [program.phases.at(step) for step in range(program.num_steps)]
    phases = {}
    for (phase, _), update in program.updates.items():
        points = {}
        for images in PER_DEVICE[:: 2 if ":" in name else 1]:
            batch = batch_shapes(config, program, images * DEVICES)
            compiled = update.lower(shape_of(state), batch).compile()
            costs = program_costs(compiled)
            points[images] = {
                "flops": costs.flops,
                "bytes": costs.bytes_accessed,
                "all_reduces": list(costs.all_reduces),
                "kernels": costs.kernels,
                "loops": costs.loops,
            }
        phases["+".join(phase)] = {"share": steps.count(phase) / len(steps), "points": points}
    return {
        "batch_size": config.data.batch_size,
        "image_size": config.data.image_size,
        "parameters": sum(int(np.size(leaf)) for leaf in jax.tree.leaves(state.params)),
        "phases": phases,
    }
