"""A trial of a model of another package before a run: what its methods return.

JAX traces the methods with the shapes of a small batch; only `score` is then computed, for random
images and initial variables.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxad.errors import UserError
from jaxad.extension import errors_named
from jaxad.runtime.parallel import on_host
from jaxad.train.optim import matches
from jaxad.train.state import initial_variables
from jaxad.types import LossAux, Model, Scores, TrainedModel, Variables

#: Images of the batch; hardly the number of channels, which a wrong mean would leave.
_NUM_IMAGES = 5


def check_variables(name: str, model: Model) -> Variables:
    """Returns the shapes of the initial variables of a model, `package.module:Class`.

    Raises:
        UserError: `init_variables` fails or returns something other than variables.
    """
    method = f"{name}.init_variables"
    with errors_named(method, name):
        variables = jax.eval_shape(model.init_variables, jax.random.key(0))
    if not isinstance(variables, Mapping) or "params" not in variables:
        raise UserError(f"{method}: returned {_kind(variables)}; return a mapping with 'params'.")
    return variables


def check_methods(name: str, model: Model, variables: Variables) -> None:
    """Checks what the methods of a model return; `fit` and `prepare` are not called.

    `variables` are those of `check_variables`. Dependence on the batch is found only where it
    changes scores of the initial variables.

    Raises:
        UserError: a method fails, or returns something other than what `jaxad.types` describes;
            names the method.
    """
    if isinstance(model, TrainedModel):
        _check_networks(name, model, variables)
        _check_losses(name, model, variables)
    _check_scores(name, model, variables)
    _check_values(name, model)


def _check_networks(name: str, model: TrainedModel, variables: Variables) -> None:
    with errors_named(f"{name}.networks", name):
        networks = model.networks
    if not isinstance(networks, Mapping) or not networks:
        raise UserError(
            f"{name}.networks: is {_kind(networks)}; give a mapping from the names of networks to "
            "regular expressions, as {'model': '.*'}."
        )
    for network, pattern in networks.items():
        with errors_named(f"{name}.networks['{network}']", name):
            owned = jax.tree.leaves(matches(variables["params"], [pattern]))
        if not any(owned):
            raise UserError(
                f"{name}.networks['{network}']: {pattern!r} matches no parameter; it must match "
                "whole paths, as 'encoder/.*'."
            )
    _check_decay_factors(name, model, variables)


def _check_decay_factors(name: str, model: TrainedModel, variables: Variables) -> None:
    with errors_named(f"{name}.decay_factors", name):
        factors = getattr(model, "decay_factors", {})
    if not isinstance(factors, Mapping):
        raise UserError(
            f"{name}.decay_factors: is {_kind(factors)}; give a mapping from regular expressions "
            "over parameter paths to factors, such as {'flow/.*': 0.1}."
        )
    for pattern, factor in factors.items():
        source = f"{name}.decay_factors['{pattern}']"
        with errors_named(source, name):
            owned = jax.tree.leaves(matches(variables["params"], [pattern]))
        if not any(owned):
            raise UserError(
                f"{source}: matches no parameter; it must match whole paths, as 'encoder/.*'."
            )
        if not isinstance(factor, float | int) or not 0 <= factor < float("inf"):
            raise UserError(f"{source}: is {factor!r}; give a finite number of at least 0.")


def _check_losses(name: str, model: TrainedModel, variables: Variables) -> None:
    method = f"{name}.losses"
    dtypes = {"label": jnp.int32, "_valid": jnp.bool_, "_index": jnp.int32}
    batch = {key: jax.ShapeDtypeStruct((_NUM_IMAGES,), dtype) for key, dtype in dtypes.items()}
    batch["image"] = jax.ShapeDtypeStruct((_NUM_IMAGES, *model.image_shape), jnp.float32)
    with errors_named(method, name):
        keys = jax.eval_shape(lambda key: jax.random.split(key, _NUM_IMAGES), jax.random.key(0))
        returned = _traced(functools.partial(model.losses, train=True), variables, batch, keys)
    if not (isinstance(returned, tuple) and len(returned) == 2):
        raise UserError(f"{method}: returned {_kind(returned)}; return losses and a LossAux.")
    losses, aux = returned
    if not isinstance(losses, Mapping) or losses.keys() != model.networks.keys():
        given = sorted(losses) if isinstance(losses, Mapping) else _kind(losses)
        raise UserError(
            f"{method}: returned losses of {given}; return one for each of networks, "
            f"{sorted(model.networks)}."
        )
    if not isinstance(aux, LossAux):
        raise UserError(f"{method}: returned {_kind(aux)} besides the losses; return a LossAux.")
    for network, loss in losses.items():
        _check_array(f"{method}: loss '{network}'", loss, "[B]", ())
    for term, values in aux.terms.items():
        _check_array(f"{method}: term '{term}'", values, "[B]", ())
    collections = sorted(variables.keys() - {"params"})
    if missing := [key for key in collections if key not in aux.mutable]:
        raise UserError(
            f"{method}: LossAux.mutable has no '{missing[0]}'; return every collection of "
            f"init_variables but 'params': {collections}."
        )


def _check_scores(name: str, model: Model, variables: Variables) -> None:
    method, image_shape = f"{name}.score", tuple(model.image_shape)
    images = jax.ShapeDtypeStruct((_NUM_IMAGES, *image_shape), jnp.float32)
    with errors_named(method, name):
        scores = _traced(model.score, variables, images)
    if not isinstance(scores, Scores):
        raise UserError(f"{method}: returned {_kind(scores)}; return a jaxad.types.Scores.")
    _check_array(f"{method}: image", scores.image, "[B]", ())
    _check_array(f"{method}: pixel", scores.pixel, "[B, H, W]", image_shape[:2])
    for field, form, shape in (
        ("components", "[B]", ()),
        ("reconstructions", "[B, H, W, C]", image_shape),
        ("maps", "[B, H, W]", image_shape[:2]),
    ):
        values = getattr(scores, field)
        if not isinstance(values, Mapping):
            raise UserError(f"{method}: {field} is {_kind(values)}; give a mapping, {{}} if none.")
        for key, array in values.items():
            _check_array(f"{method}: {field}['{key}']", array, form, shape)
    with errors_named(f"{name}.score_weights", name):
        weights = model.score_weights
    if not isinstance(weights, Mapping) or not weights:
        raise UserError(
            f"{name}.score_weights: is {_kind(weights)}; give a mapping from "
            "components of the score to their weights, such as {'mse': 1.0}."
        )
    if missing := sorted(weights.keys() - scores.components.keys()):
        raise UserError(
            f"{method}: components has no '{missing[0]}', which score_weights names; it has "
            f"{sorted(scores.components)}."
        )


def _check_values(name: str, model: Model) -> None:
    """Raises a UserError for scores that are not the sum of their parts or depend on the batch."""
    with on_host(), errors_named(f"{name}.score", name):
        variables = initial_variables(model, 0)
        images = jax.random.uniform(jax.random.key(0), (_NUM_IMAGES, *model.image_shape))
        score = jax.jit(model.score)
        scores = jax.device_get(score(variables, images))
        beside_black = jax.device_get(score(variables, images.at[1:].set(0)))
    parts = [w * scores.components[key] for key, w in model.score_weights.items()]
    total, size = sum(parts), sum(map(np.abs, parts))
    differs = np.abs(scores.image - total) > 0.01 * size  # more than bfloat16's rounding; not NaN
    if differs.any():
        image = int(np.argmax(differs))
        raise UserError(
            f"{name}.score: image is {scores.image[image]:.4g} where the sum of components, "
            f"weighted by score_weights, is {total[image]:.4g}; return the sum, or change "
            "score_weights."
        )
    for field in ("image", "pixel"):
        first, second = getattr(scores, field)[0], getattr(beside_black, field)[0]
        if np.any(np.abs(first - second) > 1e-3 * np.abs(first).max()):
            raise UserError(
                f"{name}.score: {field} of an image changes with the other images of its batch; "
                "use nothing that is computed from the whole batch, such as batch statistics."
            )


def _traced(method: Callable[..., Any], *arguments: Any) -> Any:
    """Returns what a method returns while it is traced, of which only types and shapes are used."""
    returned: list[Any] = []
    jax.eval_shape(lambda *traced: returned.append(method(*traced)), *arguments)
    return returned[0]


def _check_array(source: str, array: Any, form: str, shape: Sequence[int]) -> None:
    """Raises a UserError unless an array holds floating-point numbers of a shape per image."""
    expected = (_NUM_IMAGES, *shape)
    if getattr(array, "shape", None) != expected:
        raise UserError(f"{source} is {_kind(array)} for {_NUM_IMAGES} images; give {form}.")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise UserError(f"{source} is {_kind(array)}; give floating-point numbers.")


def _kind(value: Any) -> str:
    """Describes a value: type and shape of an array, or the type of anything else."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype}{list(value.shape)}"
    return "None" if value is None else f"a {type(value).__name__}"
