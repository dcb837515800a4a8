"""Weights that a run starts from instead of random ones: `config.init_from`.

All variables come from the source: parameters, batch statistics, what its model fitted before the
first update, and a frozen encoder. Step and optimiser states are those of a new run.
"""

import dataclasses
import logging
from collections.abc import Sequence

import jax
from ml_collections import ConfigDict

from jaxad.config import from_json, run_config
from jaxad.config.model import make_model
from jaxad.data import membership
from jaxad.data.sources import DataSet
from jaxad.detector import exported
from jaxad.detector.restored import restore_variables
from jaxad.errors import UserError
from jaxad.runtime import processes
from jaxad.storage.array_digests import kind_difference, tree_kinds
from jaxad.storage.locations import locate
from jaxad.storage.workdir import Workdir
from jaxad.train.state import TrainState
from jaxad.types import PretrainedModel, Variables

logger = logging.getLogger(__name__)


def check(config: ConfigDict, workdir: Workdir) -> None:
    """Checks that `config.init_from` can be used; a run that has checkpoints needs it no more.

    Raises:
        UserError: it holds no weights, or those of another system.
    """
    if config.init_from and not workdir.checkpoints.is_dir():
        _read(config)


def start_from(
    config: ConfigDict, states: Sequence[TrainState], data_set: DataSet
) -> Sequence[TrainState]:
    """Returns the initial states with the weights of `config.init_from`, the same for every seed.

    The first of several processes reads them. Warns if the source was trained on patients whose
    names are in `val` or a test split of this run.

    Raises:
        UserError: see `check`.
    """
    if processes.is_first():
        step, variables, source = _read(config)
        membership.warn_of_trained(Workdir(config.init_from), data_set)
        encoder = ", with its encoder" if isinstance(make_model(config), PretrainedModel) else ""
        logger.info(f"initial weights: step {step:,} of '{config.init_from}'{encoder}.")
        sizes = [f"{of.data.image_size} x {of.data.image_size}" for of in (source, config)]
        if sizes[0] != sizes[1]:
            logger.info(
                f"note: config.init_from: '{config.init_from}' was trained on images of "
                f"{sizes[0]} pixels, and this run trains on {sizes[1]}."
            )
        mutable = {name: tree for name, tree in variables.items() if name != "params"}
        states = [
            dataclasses.replace(state, params=variables["params"], mutable=mutable)
            for state in states
        ]
    return processes.broadcast_from_first(jax.device_get(tuple(states)))


def _read(config: ConfigDict) -> tuple[int, Variables, ConfigDict]:
    """Reads the last step of the source, its variables as NumPy arrays, and its config."""
    path = locate(config.init_from, "config.init_from")
    try:
        if path.is_file():
            text, step, leaves = exported.read_weights(path)
            source_config = from_json(text)
            shapes, structure = jax.tree.flatten(_shapes(source_config, config))
            kinds = [[(leaf.dtype, leaf.shape) for leaf in tree] for tree in (leaves, shapes)]
            if kinds[0] != kinds[1]:
                raise UserError(
                    f"'{path}' holds other arrays than '{config.model.name}' has; use the code "
                    "that wrote it."
                )
            return step, jax.tree.unflatten(structure, leaves), source_config
        source = Workdir(path)
        source_config = run_config.read(source)
        _shapes(source_config, config)
        return *restore_variables(source, source_config, "last"), source_config
    except UserError as error:
        raise UserError(f"config.init_from: {error}") from error


def _shapes(source: ConfigDict, config: ConfigDict) -> Variables:
    """Returns the shapes of a source's variables; raises a UserError unless they fit a config."""
    path = config.init_from
    if source.model.name != config.model.name:
        raise UserError(
            f"'{path}' holds '{source.model.name}', another system than '{config.model.name}'; "
            "name a run of this system."
        )
    shapes, needed = (
        jax.eval_shape(make_model(of).init_variables, jax.random.key(0)) for of in (source, config)
    )
    if difference := kind_difference(tree_kinds(shapes), tree_kinds(needed)):
        raise UserError(
            f"the weights in '{path}' do not fit this config ({difference}); set config.model and "
            "config.data.image_size to those of that run."
        )
    return shapes
