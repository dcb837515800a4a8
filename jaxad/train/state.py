"""Everything that training changes, in one tree."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from jaxad.runtime.parallel import on_host
from jaxad.types import Model, PretrainedModel, Tree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The state of a run after `step` updates; with the config it decides all that follows.

    Attributes:
        step: updates done, int32 [].
        seed: of the run's training noise, uint32 []; part of the state so that runs of several
            seeds are one program.
        params: the parameters.
        mutable: other collections (batch-norm statistics, codebooks), `{}` if none.
        opt_state: of the optimisers, by network.
    """

    # Trees, not array types: JAX also builds this class around shapes, shardings and donations.
    step: Tree
    seed: Tree
    params: Tree
    mutable: Tree
    opt_state: Tree

    @property
    def variables(self) -> dict[str, Tree]:
        return {"params": self.params, **self.mutable}


def initial_variables(model: Model, seed: int) -> dict[str, Tree]:
    """Fresh variables, the same for the same seed; a pretrained encoder's are read.

    They are computed on the host: on an H100 compiling FastFlow's took 30 s, and accelerators round
    otherwise.

    Raises:
        UserError: the encoder's weights cannot be read.
    """
    with on_host():
        variables = dict(jax.jit(model.init_variables)(jax.random.key(seed)))
        if isinstance(model, PretrainedModel):
            variables.update(model.pretrained_variables(jax.random.key(seed)))
    return variables


def create_state(
    variables: dict[str, Tree],
    optimisers: Mapping[str, optax.GradientTransformation],
    seed: int,
) -> TrainState:
    """The state before the first update."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        seed=jnp.asarray(seed, jnp.uint32),
        params=variables["params"],
        mutable={name: tree for name, tree in variables.items() if name != "params"},
        opt_state={name: one.init(variables["params"]) for name, one in optimisers.items()},
    )
