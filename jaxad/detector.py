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

from jaxad import experiment
from jaxad.checkpoint import Checkpoints
from jaxad.data import replay
from jaxad.data.pipeline import eval_batches
from jaxad.data.preprocess import check_images, to_unit_interval
from jaxad.errors import UserError
from jaxad.parallel import make_parallel
from jaxad.types import Batch, Model, Scores, Split, Tree
from jaxad.workdir import Workdir


def _score_batch(model: Model, variables: Tree, batch: Batch) -> Scores:
    # Accelerators multiply float32 matrices in fewer bits unless they are asked not to.
    with jax.default_matmul_precision("highest"):
        return model.score(variables, batch["image"])


class Detector:
    """Scores images with a trained system.

    Attributes:
        config: of the run.
        step: updates that the variables have seen.
        image_shape: (H, W, C) of the images that it takes.
        num_parameters: how many numbers training fits.
        num_latents: how many variables (or codes) an image becomes in between.
    """

    def __init__(self, config: ConfigDict, variables: Tree, step: int):
        """Places the variables on the devices and compiles nothing yet."""
        self.num_parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
        self.config = config
        self.step = step
        self.image_shape = experiment.image_shape(config)
        self._parallel = make_parallel(config.parallel)
        # Batches are padded anyway: a multiple of the devices of this machine.
        self._batch_size = self._parallel.round_up(config.evaluate.batch_size)
        model = experiment.make_model(config, self._parallel.axis_name)
        self.num_latents = model.num_latents
        self._variables = self._parallel.put_replicated(variables)
        self._compiled = self._parallel.compile_per_example(
            lambda variables, batch: _score_batch(model, variables, batch)
        )
        # Where only image scores are wanted the compiler drops all that they do not need.
        self._compiled_image_only = self._parallel.compile_per_example(
            lambda variables, batch: _score_batch(model, variables, batch).image
        )

    @property
    def variables(self) -> Tree:
        """The variables as NumPy arrays."""
        return self._parallel.get_replicated(self._variables)

    def preprocess(
        self, pixels: np.ndarray, affine: np.ndarray | None = None
    ) -> Float[np.ndarray, "n height width channels"]:
        """Raw pixels as training took them: float32 in [0, 1], shape [N, H, W, C].

        Args:
            pixels: one grey image [H, W], or images [N, H, W] (grey) or [N, H, W, C]. For a run on
                images that were prepared (`npz`, `icbm_synth`) of its size, and uint8 (divided by
                255), uint16 (by 65535) or float already in [0, 1]; for a run on image files of any
                size. For a run on scans one scan [X, Y, Z].
            affine: of a scan, from indices to mm, RAS+; without it X points to the right, Y to
                anterior and Z to superior, at 1 mm.

        Raises:
            UserError: wrong rank, size, type or range, or a pixel that is not finite.
        """
        pixels = np.asarray(pixels)
        if not replay.is_prepared(self.config.data):
            return to_unit_interval(replay.prepare_pixels(pixels, self.config.data, affine))
        if pixels.ndim == 2:
            pixels = pixels[None]
        if pixels.ndim == 3:
            pixels = pixels[..., None]
        self._check(pixels)
        return to_unit_interval(pixels)

    def read(self, path: str | os.PathLike[str]) -> Split:
        """Files as training took them, without labels.

        Args:
            path: an image, a scan or a DICOM series, a folder of them, or a table; as the run's
                data set has them.

        Returns:
            The images with their ids, patients and positions; `score` takes its `images`.

        Raises:
            UserError: a file cannot be used, or the run is not one on files.
        """
        return replay.read_files(Path(path).expanduser(), self.config.data)

    def score(self, images: np.ndarray) -> Scores:
        """Scores images; all arrays of the result are NumPy arrays of N rows.

        Images run in padded batches of one shape, so that a score depends neither on how many
        images are given nor on which.

        Args:
            images: float in [0, 1] (or uint8, uint16: see `preprocess`), [N, H, W, C].

        Raises:
            UserError: see `preprocess`.
        """
        images = np.asarray(images)
        self._check(images)
        if not len(images):
            raise UserError("images to score: there are none; give at least one.")
        batches = list(self.score_batches(images))
        return jax.tree.map(lambda *parts: np.concatenate(parts), *batches)

    def score_batches(self, images: np.ndarray) -> Iterator[Scores]:
        """Scores of checked images batch by batch, in order, padding removed."""
        return self._batches(images, self._compiled)

    def image_score_batches(self, images: np.ndarray) -> Iterator[Float[np.ndarray, " batch"]]:
        """`Scores.image` of checked images batch by batch, without the rest of the scores."""
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
            scores = self._parallel.get_per_example(compiled(self._variables, batch))
            valid = min(self._batch_size, len(images) - done)
            done += valid
            yield jax.tree.map(lambda array, count=valid: array[:count], scores)

    def _check(self, images: np.ndarray) -> None:
        names = [str(number) for number in range(len(images))]
        check_images(images, names, self.image_shape, "images to score")


def load(
    path: str | os.PathLike[str], checkpoint: Literal["last", "best"] | int = "last"
) -> Detector:
    """The detector that a run trained.

    Args:
        path: the run's workdir.
        checkpoint: `last`, `best` (least validation loss) or a step that is still there.

    Raises:
        UserError: no run, no checkpoint there, or none of this name.
    """
    workdir = Workdir(Path(path))
    config = workdir.read_config()
    step = checkpoint_step(workdir, checkpoint)
    model = experiment.make_model(config)
    like = jax.eval_shape(model.init_variables, jax.random.key(0))
    with Checkpoints(workdir.checkpoints, read_only=True) as checkpoints:
        return Detector(config, checkpoints.restore_variables(step, like), step)


def checkpoint_step(workdir: Workdir, checkpoint: Literal["last", "best"] | int) -> int:
    """The step of a run's checkpoint.

    Raises:
        UserError: no checkpoint there, or none of this name.
    """
    if not workdir.checkpoints.is_dir():
        raise UserError(f"workdir '{workdir.path}': no checkpoint yet; train there first.")
    with Checkpoints(workdir.checkpoints, read_only=True) as checkpoints:
        steps: dict[str | int, int | None] = {
            "last": checkpoints.last_step,
            "best": checkpoints.best_step,
            **{step: step for step in checkpoints.steps},
        }
        step = steps.get(checkpoint)
        if step is None:
            raise UserError(
                f"workdir '{workdir.path}': no checkpoint {checkpoint!r}; there are 'last', "
                f"'best' and steps {checkpoints.steps}."
                if checkpoints.steps
                else f"workdir '{workdir.path}': no checkpoint yet; train there first."
            )
    return step
