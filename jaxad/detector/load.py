"""The one way to open a detector: a run's folder or an exported file."""

import os
from typing import Literal

from jaxad.detector.scorer import Scorer
from jaxad.storage.paths import expand


def load(
    path: str | os.PathLike[str], checkpoint: Literal["last", "best"] | int = "last"
) -> Scorer:
    """Opens the detector of a run's folder, or of a file that `--mode=export` wrote.

    Args:
        path: the folder or the file.
        checkpoint: of a folder: `last`, `best` (least validation loss) or a step that is still
            there; a damaged last checkpoint is skipped with a warning. A file has one, the last.

    Raises:
        UserError: there is no run or file, no such checkpoint, or it is damaged.
    """
    place = expand(path)
    if place.is_file():
        from jaxad.detector import from_file  # needs neither flax nor Orbax

        return from_file.load(place)
    from jaxad.detector import from_run

    return from_run.load(place, checkpoint)
