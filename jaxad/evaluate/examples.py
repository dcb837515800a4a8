"""`eval/<split>/examples.npz`: example slices of a test split with their scores and images."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from jaxad.storage.workdir import atomic_write
from jaxad.types import Scores, Split

Maps = Float[np.ndarray, "m height width"]
Images = Float[np.ndarray, "m height width channels"]

#: The kinds of examples; each ranks slices of a split, the most extreme first.
MOST, LEAST, FALSE_ALARMS, MISSES = KINDS = ("most", "least", "false_alarms", "misses")
_KIND, _RECONSTRUCTION, _MAP = "kind_", "reconstruction_", "map_"


@dataclasses.dataclass(frozen=True)
class Examples:
    """M slices of a test split, each stored once, and their scores as in `jaxad.types.Scores`.

    Attributes:
        labels: 1 = anomalous, 0 = normal.
        images: in [0, 1].
        masks: 1 = anomalous; None where the data have none.
        kinds: marks the slices of each of `KINDS`; a slice can be of several.
    """

    ids: tuple[str, ...]
    labels: Int[np.ndarray, " m"]
    scores: Float[np.ndarray, " m"]
    images: Images
    pixel: Maps
    reconstructions: Mapping[str, Images]
    maps: Mapping[str, Maps]
    masks: UInt8[np.ndarray, "m height width"] | None
    kinds: Mapping[str, Bool[np.ndarray, " m"]]

    def __len__(self) -> int:
        return len(self.ids)

    def ranked(self, kind: str) -> Int[np.ndarray, " rows"]:
        """Returns the rows of one kind, the most extreme first."""
        chosen = np.flatnonzero(self.kinds[kind])
        return chosen[np.argsort(_sign(kind) * self.scores[chosen], kind="stable")]


def _sign(kind: str) -> int:
    """Returns the factor of scores that makes ascending order start with the most extreme."""
    return -1 if kind in (MOST, FALSE_ALARMS) else 1


def choose(
    scores: Float[np.ndarray, " n"],
    labels: Int[np.ndarray, " n"],
    groups: Sequence[str],
    count: int,
) -> dict[str, list[int]]:
    """Returns rows of up to `count` slices of each kind, one per patient (neighbours look alike).

    `MOST` and `LEAST` rank all slices by score; `FALSE_ALARMS` are the normal slices with the
    highest scores, `MISSES` the anomalous ones with the lowest.
    """
    candidates = {FALSE_ALARMS: labels == 0, MISSES: labels == 1}
    rows_by_kind = {}
    for kind in KINDS:
        order = np.argsort(_sign(kind) * scores, kind="stable")
        first_of_groups: dict[str, int] = {}
        for row in order[candidates[kind][order]] if kind in candidates else order:
            first_of_groups.setdefault(groups[row], int(row))
        rows_by_kind[kind] = list(first_of_groups.values())[:count]
    return rows_by_kind


def write_examples(
    path: Path, split: Split, kinds: Mapping[str, Sequence[int]], images: Images, scores: Scores
) -> None:
    """Writes example slices: rows of a split from `choose`, with the images of `rows_of(kinds)`.

    Images are in [0, 1]; `scores` are those of the images.
    """
    rows = rows_of(kinds)
    arrays = {
        "id": np.asarray([split.ids[row] for row in rows]),
        **{f"{_KIND}{kind}": np.isin(rows, chosen) for kind, chosen in kinds.items()},
        "label": split.labels[rows],
        "score": scores.image,
        "image": images,
        "pixel": scores.pixel,
        **{f"{_RECONSTRUCTION}{name}": value for name, value in scores.reconstructions.items()},
        **{f"{_MAP}{name}": value for name, value in scores.maps.items()},
    }
    if split.masks is not None:
        arrays["mask"] = split.masks[rows]
    with atomic_write(path, "wb") as file:
        np.savez_compressed(file, **arrays)


def rows_of(kinds: Mapping[str, Sequence[int]]) -> Int[np.ndarray, " m"]:
    """Returns the rows of all kinds, each once, in order of first occurrence."""
    return np.asarray(list(dict.fromkeys(row for rows in kinds.values() for row in rows)), np.int64)


def read_examples(path: Path) -> Examples:
    """Reads example slices.

    Raises:
        OSError: the file is missing or cannot be opened.
        ValueError, KeyError, zipfile.BadZipFile: it is damaged.
    """
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}

    def with_prefix(prefix: str) -> dict[str, np.ndarray]:
        names = [name for name in arrays if name.startswith(prefix)]
        return {name.removeprefix(prefix): arrays[name] for name in names}

    return Examples(
        ids=tuple(arrays["id"].tolist()),
        labels=arrays["label"],
        scores=arrays["score"],
        images=arrays["image"],
        pixel=arrays["pixel"],
        reconstructions=with_prefix(_RECONSTRUCTION),
        maps=with_prefix(_MAP),
        masks=arrays.get("mask"),
        kinds={kind: arrays[f"{_KIND}{kind}"] for kind in KINDS},
    )
