"""Checks of a run's config that need its model, before any data are generated or read."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxad import config as config_lib
from jaxad.config.fields import FIELDS
from jaxad.config.model import make_model
from jaxad.errors import UserError, first_line
from jaxad.extension import is_external
from jaxad.runtime.parallel import Parallel, make_parallel, on_host
from jaxad.storage.array_digests import kind_difference, tree_kinds
from jaxad.train.optim import make_optimisers
from jaxad.train.phases import make_phases
from jaxad.types import LossAux, Model, PretrainedModel, Scores, TrainedModel, Variables

#: Updates of a run whose length is unknown until its data are read.
_ANY_NUMBER_OF_STEPS = 1000
#: Images that a class of another package is traced on.
_TRACED = 2
_NAME = "config.model.name"


def check(config: ConfigDict, *, is_of_study: bool = False) -> None:
    """Checks the config of a run to train.

    Args:
        config: of the run.
        is_of_study: whether all experiments of a study have the same `config.train.num_epochs`,
            so that it may be set although a system does not use it.

    Raises:
        UserError: a value is not allowed, the devices cannot share the batch, or the model, its
            weights or its optimisers cannot be made; names the field.
    """
    config_lib.check(config)
    _check_batch(config, make_parallel(config.parallel))
    model = make_model(config)
    variables = _shapes(config, model)
    if config.train.accumulate_steps > 1 and "codebook" in variables:
        raise UserError(
            f"config.train.accumulate_steps: '{config.model.name}' updates its codebooks from the "
            "whole batch; leave it at 1."
        )
    if is_external(config.model.name):
        _check_outputs(config.model.name, model, variables)
    if isinstance(model, TrainedModel):
        phases = make_phases(config.train.updates, model.networks, _ANY_NUMBER_OF_STEPS)
        make_optimisers(config.optim, model.networks, variables["params"], phases)
    else:
        _check_has_effect(config, shared=("train.num_epochs",) if is_of_study else ())
    if isinstance(model, PretrainedModel):
        with on_host():
            model.pretrained_variables(jax.random.key(0))  # raises if the weights cannot be read


def _check_batch(config: ConfigDict, parallel: Parallel) -> None:
    """Raises a UserError where devices and parts do not divide the batch."""
    parallel.check_batch_size("config.data.batch_size", config.data.batch_size)
    images = config.data.batch_size // len(parallel.devices)
    parts = config.train.accumulate_steps
    if images % parts:
        raise UserError(
            f"config.train.accumulate_steps: {images} images per device cannot be split into "
            f"{parts} equal parts; choose a divisor."
        )


def _shapes(config: ConfigDict, model: Model) -> Mapping[str, Any]:
    """Shapes of the model's variables; raises a UserError where its sizes do not fit together."""
    try:
        return jax.eval_shape(model.init_variables, jax.random.key(0))
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise UserError(
            f"config.model: no model '{config.model.name}' can be built of these sizes "
            f"({first_line(error)}); compare them with its config file."
        ) from error


def _check_outputs(name: str, model: Model, variables: Variables) -> None:
    """Traces a class of another package on two images: no mistake of shape waits for evaluation.

    Raises:
        UserError: `score` or `losses` fails, or returns something else than its protocol says.
    """
    if "params" not in variables:
        raise UserError(f"{_NAME}: init_variables of '{name}' returns no collection 'params'.")
    height, width, _ = model.image_shape
    images = jax.ShapeDtypeStruct((_TRACED, *model.image_shape), np.float32)
    scores = _trace(name, "score", Scores, model.score, variables, images)
    components, reconstructions = scores["components"], scores["reconstructions"]
    per_example, per_pixel = (_TRACED,), (_TRACED, height, width)
    found = {"image": (scores["image"], per_example), "pixel": (scores["pixel"], per_pixel)}
    found |= {f"components['{key}']": (x, per_example) for key, x in components.items()}
    found |= {f"maps['{key}']": (x, per_pixel) for key, x in scores["maps"].items()}
    found |= {f"reconstructions['{key}']": (x, images.shape) for key, x in reconstructions.items()}
    _check_shapes(name, "score", found)
    for component in model.score_weights.keys() - components.keys():
        raise UserError(
            f"{_NAME}: score of '{name}' returns no component '{component}', which its "
            "score_weights name."
        )
    if not isinstance(model, TrainedModel):
        return
    batch = {
        "image": images,
        "label": jax.ShapeDtypeStruct(per_example, np.int32),
        "_valid": jax.ShapeDtypeStruct(per_example, np.bool_),
        "_index": jax.ShapeDtypeStruct(per_example, np.int32),
    }
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), _TRACED))
    function = functools.partial(model.losses, train=True)
    losses, aux = _trace(name, "losses", LossAux, function, variables, batch, keys)
    found = {f"loss '{key}'": (x, per_example) for key, x in losses.items()}
    found |= {f"terms['{key}']": (x, per_example) for key, x in aux["terms"].items()}
    _check_shapes(name, "losses", found)
    if losses.keys() != model.networks.keys():
        raise UserError(
            f"{_NAME}: losses of '{name}' returns losses of {', '.join(sorted(losses))}, its "
            f"networks are {', '.join(sorted(model.networks))}."
        )
    mutable = {key: tree for key, tree in variables.items() if key != "params"}
    if difference := kind_difference(tree_kinds(dict(aux["mutable"])), tree_kinds(mutable)):
        raise UserError(
            f"{_NAME}: losses of '{name}' must return LossAux.mutable like the variables of "
            f"init_variables without params; {difference}."
        )


def _trace(
    name: str,
    method: str,
    kind: type[Scores] | type[LossAux],
    function: Callable[..., Any],
    *arguments: Any,
) -> Any:
    """Returns the shapes that a method of a model returns, with the fields of `kind` as a dict.

    Raises:
        UserError: the method fails, or returns no `kind`.
    """

    def as_dict(*arguments: Any) -> Any:
        result = function(*arguments)
        last = result[-1] if isinstance(result, tuple) and result else result
        if not isinstance(last, kind):
            raise TypeError(f"returned {type(last).__name__}, not jaxad.types.{kind.__name__}")
        fields = {field.name: getattr(last, field.name) for field in dataclasses.fields(kind)}
        return (*result[:-1], fields) if isinstance(result, tuple) else fields

    try:
        return jax.eval_shape(as_dict, *arguments)
    except Exception as error:
        raise UserError(
            f"{_NAME}: {method} of '{name}' fails on {_TRACED} images ({type(error).__name__}: "
            f"{first_line(error)})."
        ) from error


def _check_shapes(name: str, method: str, found: Mapping[str, tuple[Any, tuple[int, ...]]]) -> None:
    for what, (value, shape) in found.items():
        if np.shape(value) != shape:
            raise UserError(
                f"{_NAME}: {method} of '{name}' returns {what} of shape {np.shape(value)} for "
                f"{_TRACED} images, not {shape}."
            )


def _check_has_effect(config: ConfigDict, shared: Collection[str]) -> None:
    """Raises a UserError for a changed field that a model fitted in one pass does not use.

    Args:
        config: of the run.
        shared: paths of fields that may be changed for the sake of other systems.
    """
    values = config_lib.flatten(config)
    for field in FIELDS:
        path = f"config.{field.path}"
        changed = path in values and values[path] != field.default
        if field.is_open_group:
            changed = any(name.startswith(f"{path}.") for name in values)
        if field.trained_only and changed and field.path not in shared:
            raise UserError(
                f"{path}: has no effect on '{config.model.name}', which is fitted in one pass; "
                "leave it at its default."
            )
