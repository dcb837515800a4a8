"""The training state: everything that an update changes, in one tree."""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np
import optax

from jaxad.runtime.parallel import host_device, on_host
from jaxad.types import Model, PretrainedModel, Tree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The state of a run after `step` updates; with the config it determines all later states.

    Attributes:
        step: updates done, int32 [].
        seed: seed of the training noise, uint32 []; part of the state so that one program can train
            several seeds.
        mutable: other collections (batch-norm statistics, codebooks), `{}` if none.
        opt_state: optimiser states by network, `{}` for a fitted model.
    """

    # Not array types: JAX also builds this class around shapes, shardings and donations.
    step: Tree
    seed: Tree
    params: Tree
    mutable: Tree
    opt_state: Tree

    @property
    def variables(self) -> dict[str, Tree]:
        """The variables of the model: parameters and other collections."""
        return {"params": self.params, **self.mutable}


def initial_variables(model: Model, seed: int) -> dict[str, Tree]:
    """Returns the initial variables of a seed, with the weights of a pretrained encoder.

    They are computed on the CPU: compiling FastFlow's for an H100 took 30 s, and accelerators round
    differently.

    Raises:
        UserError: the weights of the encoder cannot be read.
    """
    with on_host():
        # The seed is an argument, so that the cached program serves all seeds.
        initialise = jax.jit(
            lambda seed: model.init_variables(jax.random.key(seed)),
            compiler_options=_quick_compilation(),
        )
        variables = dict(initialise(np.asarray(seed, np.uint32)))
        if isinstance(model, PretrainedModel):
            variables.update(model.pretrained_variables(jax.random.key(seed)))
    return variables


def _quick_compilation() -> dict[str, int]:
    """Returns options that compile a program for the CPU in half of the time.

    Initial weights are the same bits, as `tests/train/test_state.py` checks. Level 0 would not fuse
    products into sums, and updates at level 1 differ in their rounding.
    """
    # An option of the CPU's compiler; and without optimisations its level has no meaning.
    if host_device() is None or jax.config.values["jax_disable_most_optimizations"]:
        return {}
    return {"xla_backend_optimization_level": 1}


def create_state(
    variables: dict[str, Tree], optimisers: Mapping[str, optax.GradientTransformation], seed: int
) -> TrainState:
    """Returns the state before the first update."""
    params = variables["params"]
    return TrainState(
        step=np.zeros((), np.int32),
        seed=np.asarray(seed, np.uint32),
        params=params,
        mutable={name: tree for name, tree in variables.items() if name != "params"},
        # Without `jit`, a program would be compiled for each shape of a parameter.
        opt_state={name: jax.jit(optimiser.init)(params) for name, optimiser in optimisers.items()},
    )
