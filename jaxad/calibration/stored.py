"""What a run keeps of its calibration: `calibration.json`, the score of every normal image of it.

By default those of `val`, which no training saw. Another site's normal images replace it without
training, and then stay until the run trains on.
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
from jaxad.calibration.evidence import NormalEvidence
from jaxad.errors import UserError
from jaxad.storage.workdir import Workdir, write_json
from jaxad.types import Split, group_numbers

Scalars = Float[np.ndarray, " n"]

#: The split that every evaluation calibrates on where there is no calibration on another site.
OWN = "val"


@dataclasses.dataclass(frozen=True)
class StoredCalibration:
    """What a run keeps of its calibration.

    Attributes:
        source: which images: `OWN`, or another site's file as it was named.
        is_own: whether they are the run's own `OWN`.
        checkpoint_step: of the checkpoint that scored them; scores of another one are others.
        ids: of the images.
        groups: the patient of each.
        scores: of each.
        evidence: what else is known of them; None in what an older version wrote.
    """

    source: str
    is_own: bool
    checkpoint_step: int
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    scores: Scalars
    evidence: NormalEvidence | None = None

    @property
    def name(self) -> str:
        """How the source is called where people read it."""
        return self.source if self.is_own else Path(self.source).name

    @property
    def images_are_patients(self) -> bool:
        """Whether no image has a patient but itself: `group` was left out, or truly so."""
        return len(set(self.groups)) == len(self.ids)

    @functools.cached_property
    def calibration(self) -> Calibration:
        """What the scores say.

        Raises:
            UserError: a score is not finite.
        """
        return calibrate(self.scores, group_numbers(self.groups))

    def as_json(self) -> dict[str, Any]:
        """For a JSON file; `from_json` reads it."""
        fields: dict[str, Any] = {**dataclasses.asdict(self), "scores": self.scores.tolist()}
        if self.evidence is not None:
            components = self.evidence.components.items()
            fields["evidence"] = {
                "components": {name: values.tolist() for name, values in components},
                "pixel_maxima": self.evidence.pixel_maxima.tolist(),
            }
        return fields


def store(
    workdir: Workdir,
    source: str | None,
    checkpoint_step: int,
    split: Split,
    scores: Scalars,
    evidence: NormalEvidence | None = None,
) -> StoredCalibration:
    """Makes the scores of a split of normal images the run's calibration.

    The source is another site's file; None is the run's own `OWN`.

    Raises:
        UserError: a score is not finite.
    """
    # As doubles: a threshold that is read back is the one that was found, to the last bit.
    stored = StoredCalibration(
        source=OWN if source is None else source,
        is_own=source is None,
        checkpoint_step=checkpoint_step,
        ids=split.ids,
        groups=split.groups,
        scores=scores.astype(np.float64),
        evidence=evidence,
    )
    stored.calibration  # noqa: B018 - checks the scores
    write_json(workdir.calibration, stored.as_json())
    return stored


def read(workdir: Workdir) -> StoredCalibration | None:
    """The run's calibration, of whichever checkpoint; None where there is none.

    Raises:
        UserError: it cannot be read.
    """
    path = workdir.calibration
    try:
        return from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"'{path}' cannot be read ({error!r}); remove it, then write it again with "
            "--mode=evaluate or --mode=calibrate."
        ) from error


def from_json(fields: Mapping[str, Any]) -> StoredCalibration:
    """What `StoredCalibration.as_json` gave.

    Raises:
        ValueError, TypeError, KeyError: it is not.
    """
    evidence = fields.get("evidence")
    found = StoredCalibration(
        source=str(fields["source"]),
        is_own=bool(fields["is_own"]),
        checkpoint_step=int(fields["checkpoint_step"]),
        ids=tuple(map(str, fields["ids"])),
        groups=tuple(map(str, fields["groups"])),
        scores=np.array(fields["scores"], np.float64),
        evidence=None
        if evidence is None
        else NormalEvidence(
            components={
                str(name): np.array(values, np.float64)
                for name, values in evidence["components"].items()
            },
            pixel_maxima=np.array(evidence["pixel_maxima"], np.float64),
        ),
    )
    lists = [found.ids, found.groups, found.scores]
    if found.evidence is not None:
        lists += [found.evidence.pixel_maxima, *found.evidence.components.values()]
    if len({len(one) for one in lists}) != 1:
        raise ValueError("its lists are of different lengths")
    return found
