"""The one train step, for every system and both parallel modes.

With an axis name the batch is one device's part, and all that devices tell each other is one sum
of everything that is to be summed (what a model's batch norm and codebooks need comes on top).
`axis_name=None` is the view of a lone device, whose batch is the global one. Nothing else differs.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, Key

from jaxad.train.optim import matches
from jaxad.train.state import TrainState
from jaxad.types import Batch, ExampleKeys, LossAux, PerExample, TrainedModel, Tree

Metrics = dict[str, Float[Array, ""]]
#: Gradients by network, losses and terms, and the number of examples: each summed over examples.
_Sums = tuple[dict[str, Tree], Metrics, Float[Array, ""]]

#: Folded into the seed for validation, so that its noise is not that of a training step.
_VALIDATION_STREAM = 0x7FFFFFFF


def _sum_over(axis_name: str | None, tree: Tree) -> Tree:
    """Sums over the devices, as one vector: one message, and not one an array."""
    if axis_name is None:
        return tree
    flat, restore = ravel_pytree(tree)
    return restore(jax.lax.psum(flat, axis_name))


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
    model: TrainedModel,
    optimisers: Mapping[str, optax.GradientTransformation],
    axis_name: str | None = None,
    accumulate: int = 1,
    rematerialise: bool = False,
) -> tuple[TrainState, Metrics]:
    """One update. Pure; the caller compiles it and donates the state.

    Args:
        state: before the update.
        batch: `image`, `label`, `_valid`, `_index`; see `jaxad.types.Batch`.
        model: whose losses to follow. Each of its networks follows its own loss.
        optimisers: of the networks to train, what to do with their gradients. Parameters, mutable
            state and optimisers' states of the others stay as they are. All gradients are taken
            before any network moves.
        axis_name: the mapped axis that the batch is spread over, None in the global view.
        accumulate: in how many parts, one after another, a device takes its batch: the gradient is
            the same, and only one part's activations are held. Batch norm sees one part at a time.
        rematerialise: whether the gradient keeps of the forward pass what products and convolutions
            gave, and computes all else again.

    Returns:
        The state after the update, and means over the global batch: `loss/<network>` of those that
        it trained, `term/<name>` of their terms, and the norm `grad_norm` of all gradients before
        clipping.
    """
    step_key = jax.random.fold_in(jax.random.key(state.seed), state.step)

    def sums_of(mutable: Tree, part: Batch) -> tuple[Tree, _Sums]:
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
        moved = mutable
        for network in optimisers:
            pattern = model.networks[network]
            (loss, aux), gradient = jax.value_and_grad(network_loss, has_aux=True)(
                state.params, network
            )
            gradients[network] = jax.tree.map(
                lambda mine, new: new if mine else jnp.zeros_like(new),
                matches(state.params, [pattern]),
                gradient,
            )
            moved = {
                name: jax.tree.map(_chosen, matches(tree, [pattern]), aux.mutable[name], tree)
                for name, tree in moved.items()
            }
            sums[f"loss/{network}"] = loss
            for name, term in aux.terms.items():
                if _is_term_of(name, network):
                    sums[f"term/{name}"] = _masked_sum(term, valid)
        return moved, (gradients, sums, jnp.sum(valid).astype(loss.dtype))

    mutable, totals = _accumulated(sums_of, state.mutable, batch, accumulate)
    # The mean is taken outside of the differentiation: sums over devices are exact there.
    gradients, sums, count = _sum_over(axis_name, totals)
    gradients, metrics = jax.tree.map(lambda total: total / count, (gradients, sums))
    metrics["grad_norm"] = optax.tree.norm(gradients)
    params, opt_state = state.params, dict(state.opt_state)
    for network, gradient in gradients.items():
        updates, opt_state[network] = optimisers[network].update(
            gradient, opt_state[network], state.params
        )
        params = optax.apply_updates(params, updates)
    return TrainState(
        step=state.step + 1,
        seed=state.seed,
        params=params,
        mutable=mutable,
        opt_state=opt_state,
    ), metrics


def _accumulated(
    sums_of: Callable[[Tree, Batch], tuple[Tree, _Sums]], mutable: Tree, batch: Batch, count: int
) -> tuple[Tree, _Sums]:
    """The sums over a batch that is taken in `count` parts, and what they leave of `mutable`."""
    if count == 1:
        return sums_of(mutable, batch)
    parts = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), batch)
    _, like = jax.eval_shape(sums_of, mutable, jax.tree.map(lambda x: x[0], parts))
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)

    def add(carry: tuple[Tree, _Sums], part: Batch) -> tuple[tuple[Tree, _Sums], None]:
        mutable, found = sums_of(carry[0], part)
        return (mutable, jax.tree.map(jnp.add, carry[1], found)), None

    return jax.lax.scan(add, (mutable, nothing), parts)[0]


def _chosen(mine: bool, new: Array, old: Array) -> Array:
    return new if mine else old


def _is_term_of(term: str, network: str) -> bool:
    """Whether a network's update logs a term: `<network>/<name>` is of one, others are of all."""
    owner, slash, _ = term.partition("/")
    return not slash or owner == network


def validation_sums(
    state: TrainState,
    batch: Batch,
    *,
    model: TrainedModel,
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
