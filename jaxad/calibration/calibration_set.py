"""`calibration.json`: the scores of the normal images that a run's decisions are calibrated on.

By default these are the images of `val`, which training does not use. `--mode=calibrate` replaces
them with another site's normal images, until the run continues training.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxad.calibration.conformal import Calibration, calibrate
from jaxad.errors import UserError
from jaxad.storage.workdir import write_json
from jaxad.types import Split, group_numbers

Scalars = Float[np.ndarray, " n"]

#: The split that every evaluation calibrates on, unless the run is calibrated on another site.
OWN_SPLIT = "val"

#: Share of normal images whose maps stay below the value that is shown brightest.
_SHOWN_BELOW = 0.95


@dataclasses.dataclass(frozen=True)
class CalibrationSet:
    """Normal images with their scores by one checkpoint of a run.

    Attributes:
        source: `OWN_SPLIT`, or the path of another site's images as the user gave it.
        is_own: whether the images are the run's own `OWN_SPLIT`.
        checkpoint_step: the step of the checkpoint that scored them; other checkpoints score
            differently.
        ids: the ids of the images.
        groups: the patient of each image.
        images_are_patients: whether no patient is known, so that each image counts as one.
        scores: float64 [N].
        components: components of the score by name, float64 [N].
        pixel_maxima: largest value of each anomaly map, float64 [N].
    """

    source: str
    is_own: bool
    checkpoint_step: int
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    images_are_patients: bool
    scores: Scalars
    components: Mapping[str, Scalars]
    pixel_maxima: Scalars

    @property
    def name(self) -> str:
        """A human-readable name of the source."""
        return self.source if self.is_own else Path(self.source).name

    @property
    def brightest(self) -> float:
        """The map value that is shown brightest: 95 % of normal images stay below it."""
        return float(np.quantile(self.pixel_maxima, _SHOWN_BELOW))

    def contributions(
        self, components: Mapping[str, Scalars], weights: Mapping[str, float]
    ) -> dict[str, Scalars]:
        """Explains scores: how much each component adds beyond its value for normal patients.

        Every score is a weighted sum of components (`jaxad.types.Model.score_weights`). The
        contribution of a component is its weight times its distance above its mean over normal
        patients; contributions add up to the score minus the mean score of normal patients.

        Args:
            components: the components of N images to explain, each [N].
            weights: `Detector.score_weights`.

        Returns:
            By component [N], in units of the score.
        """
        return {
            name: weight * (np.asarray(components[name], np.float64) - self._means[name])
            for name, weight in weights.items()
        }

    @functools.cached_property
    def _means(self) -> dict[str, float]:
        """The mean of each component over patients, each patient with the same weight."""
        groups = group_numbers(self.groups)
        shares = 1.0 / np.bincount(groups)[groups]
        return {
            name: float(np.average(values, weights=shares))
            for name, values in self.components.items()
        }

    @functools.cached_property
    def calibration(self) -> Calibration:
        """The p-values and thresholds that follow from the scores.

        Raises:
            UserError: a score is not finite.
        """
        return calibrate(self.scores, group_numbers(self.groups))

    def as_json(self) -> dict[str, Any]:
        """Returns JSON values; `from_json` reads them."""
        return {
            **dataclasses.asdict(self),
            "scores": self.scores.tolist(),
            "components": {name: values.tolist() for name, values in self.components.items()},
            "pixel_maxima": self.pixel_maxima.tolist(),
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "CalibrationSet":
        """Reads what `as_json` returned.

        Raises:
            ValueError, TypeError, KeyError: the values do not have that form.
        """
        normals = cls(
            source=str(fields["source"]),
            is_own=bool(fields["is_own"]),
            checkpoint_step=int(fields["checkpoint_step"]),
            ids=tuple(map(str, fields["ids"])),
            groups=tuple(map(str, fields["groups"])),
            images_are_patients=bool(fields["images_are_patients"]),
            scores=np.array(fields["scores"], np.float64),
            components={
                str(name): np.array(values, np.float64)
                for name, values in fields["components"].items()
            },
            pixel_maxima=np.array(fields["pixel_maxima"], np.float64),
        )
        lists = [normals.ids, normals.groups, normals.scores, normals.pixel_maxima]
        if len({len(values) for values in (*lists, *normals.components.values())}) != 1:
            raise ValueError("its lists have different lengths")
        return normals


def drivers(contributions: Mapping[str, Scalars]) -> list[str]:
    """Returns for each image the component with the largest contribution."""
    names = list(contributions)
    return [names[place] for place in np.argmax(np.stack(list(contributions.values())), axis=0)]


def make_calibration_set(
    source: str | None,
    checkpoint_step: int,
    split: Split,
    scores: Scalars,
    components: Mapping[str, Scalars],
    pixel_maxima: Scalars,
) -> CalibrationSet:
    """Makes a calibration set of the scores of a split of normal images.

    Args:
        source: path of another site's images; None for the run's own `OWN_SPLIT`.
        checkpoint_step: the step of the checkpoint that scored them.
        split: the images.
        scores: the scores of the images, [N].
        components: the components of the scores, by name, [N].
        pixel_maxima: largest value of each anomaly map, [N].

    Raises:
        UserError: a score is not finite.
    """
    # Float64 reads back from JSON to the last bit, and thresholds with it.
    normals = CalibrationSet(
        source=OWN_SPLIT if source is None else source,
        is_own=source is None,
        checkpoint_step=checkpoint_step,
        ids=split.ids,
        groups=split.groups,
        images_are_patients=(
            len(set(split.groups)) == len(split) and set(split.groups) <= split.unnamed
        ),
        scores=scores.astype(np.float64),
        components={name: values.astype(np.float64) for name, values in components.items()},
        pixel_maxima=pixel_maxima.astype(np.float64),
    )
    normals.calibration  # noqa: B018 - checks the scores
    return normals


def write_calibration_set(path: Path, normals: CalibrationSet) -> None:
    """Writes a calibration set to a JSON file; `read_calibration_set` reads it."""
    write_json(path, normals.as_json())


def read_calibration_set(path: Path) -> CalibrationSet | None:
    """Reads a calibration set, whichever checkpoint it was made with; None if there is no file.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        return CalibrationSet.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"'{path}' cannot be read ({error!r}); delete it, then write it again with "
            "--mode=evaluate or --mode=calibrate."
        ) from error
