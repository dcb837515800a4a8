"""A trained run, ready to score: the one restore and the one score function.

Evaluation, the report and notebooks all score through `Detector`.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from jaxad.config import run_config
from jaxad.config.model import image_shape, make_model
from jaxad.data.pipeline.batching import eval_batches
from jaxad.detector.scorer import Scorer
from jaxad.errors import UserError
from jaxad.runtime import processes
from jaxad.runtime.parallel import make_parallel
from jaxad.storage.checkpoint import Checkpoints
from jaxad.storage.workdir import Workdir
from jaxad.types import Images, Model, Scores, Tree


def score_batch(model: Model, variables: Tree, images: Images) -> Scores:
    """The one way in which images are scored, here and in exported files."""
    # Accelerators multiply float32 matrices in fewer bits unless they are asked not to.
    with jax.default_matmul_precision("highest"):
        return model.score(variables, images)


class Detector(Scorer):
    """A run's detector; see `Scorer`."""

    def __init__(self, config: ConfigDict, variables: Tree, step: int):
        """Places the variables on the devices and compiles nothing yet."""
        self.num_parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
        self._config = config
        self.step = step
        self.image_shape = image_shape(config)
        self._parallel = make_parallel(config.parallel)
        # As many images for each device, however many there are: the same program scores them, to
        # the bit.
        self._batch_size = config.evaluate.batch_size * len(self._parallel.devices)
        model = make_model(config, self._parallel.axis_name)
        self.num_latents = model.num_latents
        self.score_weights = model.score_weights
        self._variables = self._parallel.put_replicated(variables)
        self._compiled = self._parallel.compile_per_example(
            lambda variables, batch: score_batch(model, variables, batch["image"])
        )
        # Where only image scores are wanted the compiler drops all that they do not need.
        self._compiled_image_only = self._parallel.compile_per_example(
            lambda variables, batch: score_batch(model, variables, batch["image"]).image
        )

    @property
    def config(self) -> ConfigDict:
        """Of the run."""
        return self._config

    @property
    def variables(self) -> Tree:
        """The variables as NumPy arrays."""
        return self._parallel.get_replicated(self._variables)

    def score_batches(self, images: np.ndarray) -> Iterator[Scores]:
        """See `Scorer.score_batches`."""
        return self._batches(images, self._compiled)

    def image_score_batches(self, images: np.ndarray) -> Iterator[Float[np.ndarray, " batch"]]:
        """See `Scorer.image_score_batches`."""
        return self._batches(images, self._compiled_image_only)

    def _batches(self, images: np.ndarray, compiled: Callable[[Tree, Tree], Tree]) -> Any:
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
            scores = self._parallel.get_per_example(compiled(self._variables, batch))
            valid = min(self._batch_size, len(images) - done)
            done += valid
            yield jax.tree.map(lambda array, count=valid: array[:count], scores)


def load(
    path: str | os.PathLike[str], checkpoint: Literal["last", "best"] | int = "last"
) -> Detector:
    """The detector that a run trained.

    Args:
        path: the run's workdir.
        checkpoint: `last`, `best` (least validation loss) or a step that is still there. Of damaged
            last ones the one before is taken, which a line on stderr says.

    Raises:
        UserError: no run, no checkpoint there, none of this name, or it is damaged.
    """
    workdir = Workdir(Path(path))
    config = run_config.read(workdir)
    step, variables = _restored(workdir, config, checkpoint)
    return Detector(config, variables, step)


def checkpoint_step(workdir: Workdir, checkpoint: Literal["last", "best"] | int) -> int:
    """The step of the checkpoint that `load` takes; it is read to see whether it is damaged.

    Raises:
        UserError: see `load`.
    """
    return _restored(workdir, run_config.read(workdir), checkpoint)[0]


def _restored(
    workdir: Workdir, config: ConfigDict, checkpoint: Literal["last", "best"] | int
) -> tuple[int, Tree]:
    """Step and variables of a checkpoint."""
    if not workdir.checkpoints.is_dir():
        raise UserError(f"workdir '{workdir.path}': no checkpoint yet; train there first.")
    with Checkpoints(workdir.checkpoints, read_only=True) as checkpoints:
        named: dict[str | int, int | None] = {
            "last": checkpoints.last_step,
            "best": checkpoints.best_step if checkpoint == "best" else None,
            **{step: step for step in checkpoints.steps},
        }
        step = named.get(checkpoint)
        if step is None:
            raise UserError(
                f"workdir '{workdir.path}': no checkpoint {checkpoint!r}; there are 'last', "
                f"'best' and steps {checkpoints.steps}."
                if checkpoints.steps
                else f"workdir '{workdir.path}': no checkpoint yet; train there first."
            )
        like = jax.eval_shape(make_model(config).init_variables, jax.random.key(0))
        if checkpoint == "last":
            step, variables, _ = checkpoints.restore_newest(like)
            return step, variables
        return step, checkpoints.restore_variables(step, like)
