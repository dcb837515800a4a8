"""The programs that training compiles, and what they cost; nothing is run."""

from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxad.config import get_config
from jaxad.data.pipeline.augment import Augmentation
from jaxad.profile.program_costs import program_costs
from jaxad.train.program import Program, make_program
from jaxad.types import PretrainedModel, Tree

DEVICES = 8
#: Images on each device for which a step is compiled; what a step costs is a line through the ends.
#: Of variants, which take longer to compile, the ends alone.
PER_DEVICE = (2, 4, 8)
#: Of a data set whose size only sets how often each phase comes.
EXAMPLES = 10_000


def shape_of(tree: Tree) -> Tree:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype), tree)


def batch_shapes(config: ConfigDict, program: Program, count: int) -> dict[str, Any]:
    """What an update sees: with features where training has them from its cache."""
    side, channels = config.data.image_size, config.data.channels
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
    """A config and its program, encoders random: their weights cost the same."""
    config = get_config(name)
    if isinstance(config.model.get("weights"), str):
        config.model.weights = "random"
    return config, make_program(config, [0], EXAMPLES)


def costs_of(name: str) -> dict[str, Any]:
    """What each phase of a config costs a device, for each of `PER_DEVICE`."""
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
