"""The training step, the same for every model and for both parallel modes.

With an axis name the batch is one device's part of the global batch, and the devices exchange one
vector, the sum of everything that has to be summed; batch norm and codebooks add what they need.
With `axis_name=None` there is one device and its batch is the global one. Nothing else differs.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, Key

from jaxad.train.optim import matches
from jaxad.train.state import TrainState
from jaxad.types import Batch, ExampleKeys, LossAux, PerExample, TrainedModel, Tree

Metrics = dict[str, Float[Array, ""]]
#: Gradients by network, losses and terms, and the number of examples; each summed over examples.
_Sums = tuple[dict[str, Tree], Metrics, Float[Array, ""]]

#: Folded into the seed for validation, so that its noise differs from that of every training step.
_VALIDATION_STREAM = 0x7FFFFFFF


def _sum_over(axis_name: str | None, tree: Tree) -> Tree:
    """Sums over the devices as one vector: one message instead of one for each array."""
    if axis_name is None:
        return tree
    flat, restore = ravel_pytree(tree)
    return restore(jax.lax.psum(flat, axis_name))


def _masked_sum(per_example: PerExample, valid: Bool[Array, " batch"]) -> Float[Array, ""]:
    # `where` instead of a product: the values of padding may be NaN.
    return jnp.sum(jnp.where(valid, per_example, 0.0))


def example_keys(step_key: Key[Array, ""], index: Int[Array, " batch"]) -> ExampleKeys:
    """Returns a key [B] for each example from its position in the global batch."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(step_key, index)


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: TrainedModel,
    optimisers: Mapping[str, optax.GradientTransformation],
    axis_name: str | None = None,
    accumulate: int = 1,
    rematerialise: bool = False,
) -> tuple[TrainState, Metrics]:
    """Does one update. Pure; the caller compiles it and donates the state.

    All gradients are computed before any network is updated.

    Args:
        state: the state before the update.
        batch: `image`, `label`, `_valid`, `_index`; see `jaxad.types.Batch`.
        model: the model; each of its networks follows its own loss.
        optimisers: the optimisers of the networks to train. Parameters, mutable state and optimiser
            states of other networks stay as they are.
        axis_name: the mapped axis that the batch is spread over; None for one device.
        accumulate: number of parts in which a device takes its batch, one after another. The
            gradient is the same and only one part's activations are held; batch norm sees one part
            at a time.
        rematerialise: keep only products and convolutions of the forward pass for the gradient and
            compute the rest again.

    Returns:
        The state after the update, and means over the global batch: `loss/<network>` of the
        networks that it trained, `term/<name>` of their terms, and `grad_norm`, the norm of all
        gradients before clipping.
    """
    add_up = functools.partial(
        _part_sums,
        params=state.params,
        step_key=jax.random.fold_in(jax.random.key(state.seed), state.step),
        model=model,
        networks=tuple(optimisers),
        rematerialise=rematerialise,
    )
    mutable, sums = _accumulate(add_up, state.mutable, batch, accumulate)
    # The mean is taken outside of the differentiation: sums over devices are exact there.
    gradients, totals, count = _sum_over(axis_name, sums)
    gradients, metrics = jax.tree.map(lambda total: total / count, (gradients, totals))
    metrics["grad_norm"] = optax.tree.norm(gradients)
    params, opt_state = state.params, dict(state.opt_state)
    for network, gradient in gradients.items():
        updates, opt_state[network] = optimisers[network].update(
            gradient, opt_state[network], state.params
        )
        params = optax.apply_updates(params, updates)
    return TrainState(state.step + 1, state.seed, params, mutable, opt_state), metrics


def _part_sums(
    mutable: Tree,
    part: Batch,
    *,
    params: Tree,
    step_key: Key[Array, ""],
    model: TrainedModel,
    networks: Sequence[str],
    rematerialise: bool,
) -> tuple[Tree, _Sums]:
    """Sums gradients, losses and terms over a part; also returns updated mutable collections."""
    keys, valid = example_keys(step_key, part["_index"]), part["_valid"]

    def network_loss(params: Tree, network: str) -> tuple[Float[Array, ""], LossAux]:
        losses, aux = model.losses({"params": params, **mutable}, part, keys, train=True)
        return _masked_sum(losses[network], valid), aux

    if rematerialise:
        network_loss = jax.checkpoint(
            network_loss, policy=jax.checkpoint_policies.dots_saveable, static_argnums=(1,)
        )
    gradients: dict[str, Tree] = {}
    sums: Metrics = {}
    after = mutable
    for network in networks:
        pattern = model.networks[network]
        (loss, aux), gradient = jax.value_and_grad(network_loss, has_aux=True)(params, network)
        gradients[network] = jax.tree.map(
            lambda is_own, new: new if is_own else jnp.zeros_like(new),
            matches(params, [pattern]),
            gradient,
        )
        after = {
            name: jax.tree.map(
                lambda is_own, new, old: new if is_own else old,
                matches(tree, [pattern]),
                aux.mutable[name],
                tree,
            )
            for name, tree in after.items()
        }
        sums[f"loss/{network}"] = loss
        for name, term in aux.terms.items():
            owner, slash, _ = name.partition("/")
            if not slash or owner == network:
                sums[f"term/{name}"] = _masked_sum(term, valid)
    return after, (gradients, sums, jnp.sum(valid).astype(loss.dtype))


def _accumulate(
    add_up: Callable[[Tree, Batch], tuple[Tree, _Sums]], mutable: Tree, batch: Batch, count: int
) -> tuple[Tree, _Sums]:
    """Does what `add_up` does for a whole batch, in `count` parts."""
    if count == 1:
        return add_up(mutable, batch)
    parts = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), batch)
    _, shapes = jax.eval_shape(add_up, mutable, jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def add(carry: tuple[Tree, _Sums], part: Batch) -> tuple[tuple[Tree, _Sums], None]:
        mutable, sums = add_up(carry[0], part)
        return (mutable, jax.tree.map(jnp.add, carry[1], sums)), None

    return jax.lax.scan(add, (mutable, zeros), parts)[0]


def validation_sums(
    state: TrainState, batch: Batch, *, model: TrainedModel, axis_name: str | None = None
) -> tuple[Metrics, Float[Array, ""]]:
    """Sums every loss and term over the valid examples of a batch, and counts the examples.

    The model runs as in scoring (no batch statistics). Its noise is the same at every validation,
    so that losses of different steps can be compared.
    """
    step_key = jax.random.fold_in(jax.random.key(state.seed), _VALIDATION_STREAM)
    keys = example_keys(step_key, batch["_index"])
    losses, aux = model.losses(state.variables, batch, keys, train=False)
    values = {f"loss/{name}": loss for name, loss in losses.items()}
    values.update({f"term/{name}": term for name, term in aux.terms.items()})
    sums = {name: _masked_sum(value, batch["_valid"]) for name, value in values.items()}
    return _sum_over(axis_name, (sums, jnp.sum(batch["_valid"]).astype(jnp.float32)))
