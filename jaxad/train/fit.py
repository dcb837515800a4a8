"""Fitting of models that learn in one pass over the training images, without gradients.

The result is one checkpoint, of step 1, so that everything that reads a run reads a fitted one. A
fit that was interrupted begins again; features of a frozen encoder stay in their cache.

Every process fits on all images and the first one saves: all then poll signals the same number of
times, and none waits in a barrier for as long as a fit takes.
"""

import dataclasses
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxad.config.model import make_model
from jaxad.data.pipeline.batching import HostBatch, eval_batches
from jaxad.data.sources import DataSet
from jaxad.errors import RunError, UserError
from jaxad.extension import errors_named
from jaxad.runtime import interrupts, processes
from jaxad.runtime.parallel import make_parallel
from jaxad.runtime.progress import progress_bar
from jaxad.storage.array_digests import kind_difference, tree_kinds
from jaxad.storage.workdir import Workdir
from jaxad.train.feature_cache import Encoder, cached_features
from jaxad.train.outputs import open_outputs
from jaxad.train.state import TrainState, create_state, initial_variables
from jaxad.train.writer import FIT_IMAGES, FIT_SECONDS
from jaxad.types import FittedModel, Model, PretrainedModel, Split, Variables

#: The step of the one checkpoint.
FITTED_STEP = 1


def fit(config: ConfigDict, workdir: Workdir, data_set: DataSet) -> bool:
    """Fits a run, unless its folder holds the result already.

    `config.optim`, `config.data.augment` and the lengths and schedules of `config.train` do not
    apply. Batches have `config.data.batch_size` images.

    Arguments and results are those of `loop.train`; False means that a signal arrived while the
    result was saved.

    Raises:
        UserError: the config, the data or the model have a mistake.
        RunError: the result is not finite or cannot be saved.
        KeyboardInterrupt: a signal arrived before the fit was complete.
    """
    split = data_set.split("train")
    model = make_model(config)
    assert isinstance(model, FittedModel)
    initial = create_state(initial_variables(model, config.seed), {}, config.seed)
    with open_outputs([workdir], config.train.keep_last) as outputs:
        last_saved, (initial,) = outputs.restore([initial])
        if last_saved is not None:
            outputs.log_complete("fitted already")
            return True
        outputs.begin([config], data_set, last_saved)
        start = time.monotonic()
        batches = fit_batches(config, model, initial.variables, split)
        key = jax.random.fold_in(jax.random.key(config.seed), 0)
        with errors_named(f"config.model: fit of '{config.model.name}'", config.model.name):
            fitted = model.fit(initial.variables, checked(batches, config, split), key)
        state = fitted_state(config, initial, fitted, "fit")
        state = dataclasses.replace(state, step=np.asarray(FITTED_STEP, np.int32))
        seconds = time.monotonic() - start
        with interrupts.deferred(sets_handlers=not processes.are_several()):
            row = {FIT_IMAGES: float(len(split)), FIT_SECONDS: seconds}
            outputs.write(FITTED_STEP, [row])
            outputs.save(FITTED_STEP, [state], [{}])
            outputs.wait()
            workdir.barrier("fitted")  # from here on every process finds the checkpoint
            if processes.stop_requested():
                outputs.log_stop(FITTED_STEP, FITTED_STEP)
                return False
    return True


def fit_batches(
    config: ConfigDict, model: Model, variables: Variables, split: Split
) -> Iterator[HostBatch]:
    """Returns every training image once, in the order of the split; see `FittedModel.fit`."""
    parallel = make_parallel(config.parallel)
    features = cached_features(
        config, model, parallel, [variables], {"train": split}, images_change=False
    ).get("train")
    arrays = {"label": split.labels, **({} if features is None else {"features": features})}
    batches = eval_batches(split.images, arrays, batch_size=config.data.batch_size)
    if not isinstance(model, PretrainedModel) or features is not None:
        return batches
    encoder = Encoder(model, variables, parallel.local())
    return ({**batch, "features": z} for batch in batches for z in encoder.features([batch]))


def checked(batches: Iterator[HostBatch], config: ConfigDict, split: Split) -> Iterator[HostBatch]:
    """Passes batches on; shows a progress bar on the first process and checks for signals."""
    with progress_bar(
        total=len(split), desc=f"fit {config.model.name}", unit="image", unit_scale=True,
        disable=not processes.is_first(),
    ) as bar:  # fmt: skip
        for batch in batches:
            processes.check_signals()
            yield batch
            bar.update(int(batch["_valid"].sum()))
    processes.check_signals()


def fitted_state(config: ConfigDict, before: TrainState, fitted: Any, method: str) -> TrainState:
    """Returns the state with the variables that a model's method fitted.

    Raises:
        UserError: they differ from those before in names, shapes or dtypes.
        RunError: they are not finite.
    """
    source = f"{method} of '{config.model.name}'"
    if not isinstance(fitted, Mapping):
        raise UserError(
            f"config.model: {source} returned a {type(fitted).__name__}; "
            "return variables like those of init_variables."
        )
    variables: Variables = jax.device_get(dict(fitted))
    if difference := kind_difference(tree_kinds(variables), tree_kinds(before.variables)):
        raise UserError(
            f"config.model: {source} must return variables like those of init_variables; "
            f"{difference}."
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not np.isfinite(leaf).all():
            raise RunError(
                f"{source}: {jax.tree_util.keystr(path)} is not finite (seed {config.seed}); the "
                "run stops. Check the training images with --mode=inspect."
            )
    mutable = {key: tree for key, tree in variables.items() if key != "params"}
    return dataclasses.replace(before, params=variables["params"], mutable=mutable)
