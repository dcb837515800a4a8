"""What every detector offers, whether its program comes from a run's folder or an exported file."""

import abc
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Float

from jaxad.data.prepare.preprocess import check_images, native, to_unit_interval
from jaxad.errors import UserError
from jaxad.storage.paths import expand
from jaxad.types import Scores, Split

if TYPE_CHECKING:
    from ml_collections import ConfigDict

#: The column of the image score, beside those of its components.
SCORE = "score"


class Scorer(abc.ABC):
    """Scores images with a trained system.

    Attributes:
        step: updates that the variables have seen.
        image_shape: (H, W, C) of the images that it takes.
        num_parameters: how many numbers training fits.
        num_latents: how many variables (or codes) an image becomes in between.
        score_weights: component -> weight; the score is the weighted sum of these components.
    """

    step: int
    image_shape: tuple[int, int, int]
    num_parameters: int
    num_latents: int
    score_weights: Mapping[str, float]

    @property
    @abc.abstractmethod
    def config(self) -> "ConfigDict":
        """Of the run."""

    @abc.abstractmethod
    def score_batches(self, images: np.ndarray) -> Iterator[Scores]:
        """Scores of checked images batch by batch, in order, padding removed."""

    @abc.abstractmethod
    def image_score_batches(self, images: np.ndarray) -> Iterator[Float[np.ndarray, " batch"]]:
        """`Scores.image` of checked images batch by batch, without the rest of the scores."""

    def preprocess(
        self, pixels: np.ndarray, affine: np.ndarray | None = None
    ) -> Float[np.ndarray, "n height width channels"]:
        """Raw pixels as training took them: float32 in [0, 1], shape [N, H, W, C].

        Args:
            pixels: one image [H, W] (grey) or [H, W, 3], or images [N, H, W] (grey) or
                [N, H, W, C]. For a run on
                images that were prepared (`npz`, `icbm_synth`) of its size, and uint8 (divided by
                255), uint16 (by 65535) or float already in [0, 1]; for a run on image files of any
                size. For a run on scans one scan [X, Y, Z].
            affine: of a scan, from indices to mm, RAS+; without it X points to the right, Y to
                anterior and Z to superior, at 1 mm.

        Raises:
            UserError: wrong rank, size, type or range, or a pixel that is not finite.
        """
        from jaxad.data import replay  # the readers of files: scoring needs none of them

        pixels = native(pixels, "pixels")
        if not replay.is_prepared(self.config.data):
            return to_unit_interval(replay.prepare_pixels(pixels, self.config.data, affine))
        if pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape == self.image_shape):
            pixels = pixels[None]
        if pixels.ndim == 3:
            pixels = pixels[..., None]
        self.check(pixels)
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
        from jaxad.data import replay

        return replay.read_files(expand(path), self.config.data)

    def score(self, images: np.ndarray) -> Scores:
        """Scores images; all arrays of the result are NumPy arrays of N rows.

        Images run in padded batches of one shape, so that a score depends neither on how many
        images are given nor on which.

        Args:
            images: float in [0, 1] (or uint8, uint16: see `preprocess`), [N, H, W, C].

        Raises:
            UserError: see `preprocess`.
        """
        images = native(images, "images to score")
        self.check(images)
        if not len(images):
            raise UserError("images to score: there are none; give at least one.")
        batches = list(self.score_batches(images))
        return jax.tree.map(lambda *parts: np.concatenate(parts), *batches)

    def check(self, images: np.ndarray, ids: Sequence[str] | None = None) -> None:
        """Checks that images can be scored.

        Args:
            images: any array.
            ids: N names for messages; without, their numbers.

        Raises:
            UserError: the first that cannot be; see `preprocess`.
        """
        names = [str(number) for number in range(len(images))] if ids is None else ids
        check_images(images, names, self.image_shape, "images to score")


def score_columns(scores: Scores) -> dict[str, Any]:
    """The score and its components, each [B], as tables have them."""
    return {SCORE: scores.image, **scores.components}
