"""The one train step, for every system and both parallel modes.

`axis_name=None` is the global view: the batch is the global batch, and the compiler puts the
collectives in. With an axis name the batch is one device's part and the same means are taken by
`psum`. Nothing else differs.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from jaxad.train.optim import matches
from jaxad.train.state import TrainState
from jaxad.types import Batch, ExampleKeys, LossAux, Model, PerExample, Tree

Metrics = dict[str, Float[Array, ""]]

#: Folded into the seed for validation, so that its noise is not that of a training step.
_VALIDATION_STREAM = 0x7FFFFFFF


def _sum_over(axis_name: str | None, tree: Tree) -> Tree:
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)


def _masked_sum(per_example: PerExample, valid: Bool[Array, " batch"]) -> Float[Array, ""]:
    # `where` and not a product: what padding computes may be NaN.
    return jnp.sum(jnp.where(valid, per_example, 0.0))


def example_keys(step_key: Key[Array, ""], index: Int[Array, " batch"]) -> ExampleKeys:
    """One key per example from its place in the global batch; [B]."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(step_key, index)


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: Model,
    optimiser: optax.GradientTransformation,
    axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
    """One update. Pure; the caller compiles it and donates the state.

    Args:
        state: before the update.
        batch: `image`, `label`, `_valid`, `_index`; see `jaxad.types.Batch`.
        model: whose losses to follow. Each of its networks follows its own loss.
        optimiser: what to do with the gradients.
        axis_name: the mapped axis that the batch is spread over, None in the global view.

    Returns:
        The state after the update, and means over the global batch: `loss/<network>`,
        `term/<name>`, and the norm `grad_norm` of all gradients before clipping.
    """
    step_key = jax.random.fold_in(jax.random.key(state.seed), state.step)
    keys = example_keys(step_key, batch["_index"])
    valid = batch["_valid"]
    count = _sum_over(axis_name, jnp.sum(valid))

    def network_loss(params: Tree, network: str) -> tuple[Float[Array, ""], LossAux]:
        losses, aux = model.losses({"params": params, **state.mutable}, batch, keys, train=True)
        return _masked_sum(losses[network], valid), aux

    gradients = jax.tree.map(jnp.zeros_like, state.params)
    sums: Metrics = {}
    for network, pattern in model.networks.items():
        (loss, aux), gradient = jax.value_and_grad(network_loss, has_aux=True)(
            state.params, network
        )
        owned = matches(state.params, [pattern])
        gradients = jax.tree.map(
            lambda mine, new, old: new if mine else old, owned, gradient, gradients
        )
        sums[f"loss/{network}"] = loss
    sums.update({f"term/{name}": _masked_sum(term, valid) for name, term in aux.terms.items()})

    # The mean is taken outside of the differentiation: sums over devices are exact there.
    gradients, metrics = jax.tree.map(
        lambda total: total / count.astype(total.dtype), _sum_over(axis_name, (gradients, sums))
    )
    metrics["grad_norm"] = optax.tree.norm(gradients)
    updates, opt_state = optimiser.update(gradients, state.opt_state, state.params)
    return TrainState(
        step=state.step + 1,
        seed=state.seed,
        params=optax.apply_updates(state.params, updates),
        mutable=aux.mutable,
        opt_state=opt_state,
    ), metrics


def validation_sums(
    state: TrainState,
    batch: Batch,
    *,
    model: Model,
    axis_name: str | None = None,
) -> tuple[Metrics, Float[Array, ""]]:
    """Sums of every loss and term over the valid examples of a batch, and their number.

    Runs the model as scoring does (no batch statistics), with noise that is the same at every
    validation, so that losses of different steps can be compared.
    """
    step_key = jax.random.fold_in(jax.random.key(state.seed), _VALIDATION_STREAM)
    keys = example_keys(step_key, batch["_index"])
    losses, aux = model.losses(state.variables, batch, keys, train=False)
    values = {f"loss/{name}": loss for name, loss in losses.items()}
    values.update({f"term/{name}": term for name, term in aux.terms.items()})
    sums = {name: _masked_sum(value, batch["_valid"]) for name, value in values.items()}
    return _sum_over(axis_name, (sums, jnp.sum(batch["_valid"]).astype(jnp.float32)))
