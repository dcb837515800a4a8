"""The interface of all detectors: `RestoredDetector` (a run) and `ExportedDetector` (a file)."""

import abc
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Float

from jaxad.data.prepare.preprocess import check_images, native, to_unit_interval
from jaxad.errors import UserError
from jaxad.storage.locations import locate_data
from jaxad.types import Pixels, Scores, Split

if TYPE_CHECKING:
    from ml_collections import ConfigDict

logger = logging.getLogger(__name__)

#: Column of the image score in tables.
SCORE = "score"


class Detector(abc.ABC):
    """A trained system that scores images.

    Attributes:
        step: number of updates that trained the variables.
        image_shape: (H, W, C) of the images that it takes.
        num_parameters: number of trained parameters.
        num_latents: number of latent variables (or codes) per image.
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
        """Config of the run that trained this detector."""

    @abc.abstractmethod
    def score_batches(self, images: Pixels) -> Iterator[Scores]:
        """Yields the scores of checked images batch by batch, in order, without padding."""

    def preprocess(
        self, pixels: np.ndarray, affine: np.ndarray | None = None
    ) -> Float[np.ndarray, "n height width channels"]:
        """Prepares raw pixels as for training: float32 in [0, 1], [N, H, W, C].

        Args:
            pixels: one image [H, W] (grey) or [H, W, 3], or images [N, H, W] (grey) or
                [N, H, W, C]. For a run on prepared images (`npz`, `icbm_synth`): of its size, and
                uint8 (divided by 255), uint16 (by 65535) or float in [0, 1]. For a run on image
                files, they may have any size. For a run on scans, or on `icbm_synth` with an
                `affine`: one scan [X, Y, Z].
            affine: the affine of a scan, from indices to mm, RAS+; by default, for a run on scans,
                X points to the right, Y to anterior and Z to superior, at 1 mm.

        Raises:
            UserError: wrong rank, size, type or range, or a pixel that is not finite.
        """
        # They import the readers of files, which scoring does not need.
        from jaxad.data import data_sets, replay

        pixels = native(pixels, "pixels")
        info = data_sets.data_set_info(self.config.data.name)
        if not info.is_prepared or (info.scan_reading and affine is not None):
            return to_unit_interval(replay.prepare_pixels(pixels, self.config.data, affine))
        if pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape == self.image_shape):
            pixels = pixels[None]
        if pixels.ndim == 3:
            pixels = pixels[..., None]
        self.check(pixels)
        return to_unit_interval(pixels)

    def read(
        self,
        path: str | os.PathLike[str],
        *,
        allow_outside_root: bool = False,
        group_pattern: str = "",
    ) -> Split:
        """Reads files and prepares them as for training, without labels.

        Args:
            path: an image, a scan or a DICOM series, a folder of them, or a table; of the same kind
                as the run's data set.
            allow_outside_root: whether a table may name files outside its folder, by absolute
                paths.
            group_pattern: finds the patient in a file's path; "": as for the run. A file in which
                it finds none is its own patient.

        Returns:
            The images with their ids, patients and positions; `score` takes its `images`.

        Raises:
            UserError: a file cannot be used, or the run was not trained on files.
        """
        from jaxad.data import replay

        return replay.read_files(
            locate_data(path), self.config.data,
            allow_outside_root=allow_outside_root, flag="allow_outside_root=True",
            group_pattern=group_pattern,
        )  # fmt: skip

    def score(self, images: Pixels) -> Scores:
        """Scores images; all arrays of the result are NumPy arrays of N rows.

        Images run in padded batches of one shape: a score does not depend on the other images.

        Args:
            images: float in [0, 1] (or uint8, uint16: see `preprocess`), [N, H, W, C].

        Raises:
            UserError: there are no images, or see `preprocess`.
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
            ids: N names for messages; by default their numbers.

        Raises:
            UserError: names the first image that cannot be scored; see `preprocess`.
        """
        names = [str(number) for number in range(len(images))] if ids is None else ids
        check_images(images, names, self.image_shape, "images to score")


def score_columns(scores: Scores) -> dict[str, Any]:
    """Returns the columns of tables: the score and its components, each [B]."""
    return {SCORE: scores.image, **scores.components}


def extra_columns(extra: Iterable[str], others: Iterable[str]) -> dict[str, str]:
    """Returns the columns of a table that extra columns of the data become, beside others.

    One whose name another column has, in any letter case, gets the prefix `extra_`, and a message
    is logged.
    """
    columns = {name: name for name in extra}
    reserved = {name.casefold() for name in others}
    taken = reserved.union(map(str.casefold, columns))
    for name in [name for name in columns if name.casefold() in reserved]:
        while columns[name].casefold() in taken:
            columns[name] = f"extra_{columns[name]}"
        taken.add(columns[name].casefold())
        logger.info(f"extra column '{name}' is written as '{columns[name]}'.")
    return columns
