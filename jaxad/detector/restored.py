"""The detector of a run, restored from a checkpoint."""

import os
from collections.abc import Iterator
from typing import Literal

import jax
from ml_collections import ConfigDict

from jaxad.config import run_config
from jaxad.config.model import image_shape, make_model
from jaxad.data.pipeline.batching import eval_batches
from jaxad.detector.detector import Detector
from jaxad.errors import UserError
from jaxad.runtime import processes
from jaxad.runtime.parallel import make_parallel
from jaxad.storage.checkpoint import Checkpoints
from jaxad.storage.workdir import Workdir
from jaxad.types import FittedModel, Images, Model, Pixels, Scores, Tree


def score_batch(model: Model, variables: Tree, images: Images) -> Scores:
    """Scores one batch; runs and exported files both use this function."""
    # By default accelerators multiply float32 matrices at reduced precision.
    with jax.default_matmul_precision("highest"):
        return model.score(variables, images)


class RestoredDetector(Detector):
    """A detector with the variables of a checkpoint; see `Detector`."""

    def __init__(self, config: ConfigDict, variables: Tree, step: int):
        """Places the variables on the devices; programs are compiled on first use."""
        params = jax.tree.leaves(variables.get("params", {}))
        self.num_parameters = sum(leaf.size for leaf in params)
        self._config = config
        self.step = step
        self.image_shape = image_shape(config)
        self._parallel = make_parallel(config.parallel)
        # The batch of one device has the same size on any number of devices: the same program, and
        # the same scores to the last bit.
        self._batch_size = config.evaluate.batch_size * len(self._parallel.devices)
        model = make_model(config, self._parallel.axis_name)
        self.num_latents = model.num_latents
        self.score_weights = model.score_weights
        self._variables = self._parallel.put_replicated(variables)
        self._compiled = self._parallel.compile_per_example(
            lambda variables, batch: score_batch(model, variables, batch["image"])
        )

    @property
    def config(self) -> ConfigDict:
        """Config of the run that trained this detector."""
        return self._config

    @property
    def variables(self) -> Tree:
        """The variables as NumPy arrays."""
        return self._parallel.get_replicated(self._variables)

    def score_batches(self, images: Pixels) -> Iterator[Scores]:
        """See `Detector.score_batches`."""
        batches = eval_batches(
            images,
            {},
            batch_size=self._batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        done = 0
        for batch in self._parallel.prefetch(batches):
            processes.check_signals()
            scores = self._parallel.get_per_example(self._compiled(self._variables, batch))
            valid = min(self._batch_size, len(images) - done)
            done += valid
            yield jax.tree.map(lambda array, count=valid: array[:count], scores)


def restore(
    path: str | os.PathLike[str], checkpoint: Literal["last", "best"] | int = "last"
) -> RestoredDetector:
    """Restores the detector of a run.

    Args:
        path: the run's workdir.
        checkpoint: `last`, `best` (smallest validation loss; the only one of a model that is fitted
            in one pass) or a step whose checkpoint still exists. If the last checkpoint is damaged,
            the one before is used, with a warning.

    Raises:
        UserError: there is no run, no such checkpoint, or it is damaged.
    """
    workdir = Workdir(path)
    config = run_config.read(workdir)
    step, variables = restore_variables(workdir, config, checkpoint)
    run_config.warn_of_changed_code(workdir)
    return RestoredDetector(config, variables, step)


def checkpoint_step(workdir: Workdir, checkpoint: Literal["last", "best"] | int) -> int:
    """Returns the step of the checkpoint that `restore` uses; reads it to detect damage.

    Raises:
        UserError: see `restore`.
    """
    return restore_variables(workdir, run_config.read(workdir), checkpoint)[0]


def restore_variables(
    workdir: Workdir, config: ConfigDict, checkpoint: Literal["last", "best"] | int
) -> tuple[int, Tree]:
    """Reads the step and the variables (NumPy arrays) of a checkpoint; see `restore`."""
    missing = UserError(f"workdir '{workdir.path}': no checkpoint yet; train there first.")
    if not workdir.checkpoints.is_dir():
        raise missing
    model = make_model(config)
    if checkpoint == "best" and isinstance(model, FittedModel):
        checkpoint = "last"  # the only one
    with Checkpoints(workdir.checkpoints, read_only=True) as checkpoints:
        if not checkpoints.steps:
            raise missing
        steps: dict[str | int, int | None] = {
            "last": checkpoints.last_step,
            "best": checkpoints.best_step if checkpoint == "best" else None,
            **{step: step for step in checkpoints.steps},
        }
        step = steps.get(checkpoint)
        if step is None:
            reason = " (no validation loss was saved yet)" if checkpoint == "best" else ""
            raise UserError(
                f"workdir '{workdir.path}': no checkpoint {checkpoint!r}{reason}; choose 'last', "
                f"'best' or one of the steps {checkpoints.steps}."
            )
        like = jax.eval_shape(model.init_variables, jax.random.key(0))
        if checkpoint == "last":
            step, variables, _ = checkpoints.restore_newest(like)
            return step, variables
        return step, checkpoints.restore_variables(step, like)
