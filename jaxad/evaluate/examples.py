"""`eval/<split>/examples.npz`: slices that are worth a look, with all that was seen in them."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from jaxad.storage.workdir import atomic_write
from jaxad.types import Scores, Split

Maps = Float[np.ndarray, "m height width"]
Images = Float[np.ndarray, "m height width channels"]

#: The kinds of slices that are kept; each ranks some of a split's, the most telling first.
MOST, LEAST, FALSE_ALARMS, MISSES = KINDS = ("most", "least", "false_alarms", "misses")
_KIND, _RECONSTRUCTION, _MAP = "kind_", "reconstruction_", "map_"


@dataclasses.dataclass(frozen=True)
class Examples:
    """Slices of a test split, each kept once.

    Attributes:
        ids: of the slices.
        labels: 1 = anomalous, 0 = normal.
        scores: of each, higher = more anomalous.
        images: in [0, 1].
        pixel: anomaly maps.
        reconstructions: by name.
        maps: anomaly maps by name, where a system has several.
        masks: 1 = anomalous; None where there are none.
        kinds: one of `KINDS` -> which of the slices are of it. A slice can be of several.
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
        """The rows of one kind, the most telling first."""
        chosen = np.flatnonzero(self.kinds[kind])
        return chosen[np.argsort(_sign(kind) * self.scores[chosen], kind="stable")]


def _sign(kind: str) -> int:
    """What a score is multiplied with so that the most telling is the least."""
    return -1 if kind in (MOST, FALSE_ALARMS) else 1


def choose(
    scores: Float[np.ndarray, " n"],
    labels: Int[np.ndarray, " n"],
    groups: Sequence[str],
    count: int,
) -> dict[str, list[int]]:
    """Rows of up to `count` slices of each kind, of as many patients: neighbours look alike.

    The most and the least anomalous are so whatever their label; false alarms are the normal slices
    with the highest scores, misses the anomalous ones with the lowest.
    """
    wanted = {FALSE_ALARMS: labels == 0, MISSES: labels == 1}
    found = {}
    for kind in KINDS:
        order = np.argsort(_sign(kind) * scores, kind="stable")
        candidates = order[wanted[kind][order]] if kind in wanted else order
        first_of_groups: dict[str, int] = {}
        for row in candidates:
            if len(first_of_groups) == count:
                break
            first_of_groups.setdefault(groups[row], int(row))
        found[kind] = list(first_of_groups.values())
    return found


def write_examples(
    path: Path, split: Split, kinds: Mapping[str, Sequence[int]], images: Images, seen: Scores
) -> None:
    """Writes chosen slices.

    Args:
        path: the file.
        split: where they are from.
        kinds: what `choose` gave.
        images: of `rows_of(kinds)`, in [0, 1].
        seen: what a detector made of these images.
    """
    rows = rows_of(kinds)
    arrays = {
        "id": np.asarray([split.ids[row] for row in rows]),
        **{f"{_KIND}{kind}": np.isin(rows, chosen) for kind, chosen in kinds.items()},
        "label": split.labels[rows],
        "score": seen.image,
        "image": images,
        "pixel": seen.pixel,
        **{f"{_RECONSTRUCTION}{name}": value for name, value in seen.reconstructions.items()},
        **{f"{_MAP}{name}": value for name, value in seen.maps.items()},
    }
    if split.masks is not None:
        arrays["mask"] = split.masks[rows]
    with atomic_write(path, "wb") as file:
        np.savez_compressed(file, **arrays)


def rows_of(kinds: Mapping[str, Sequence[int]]) -> Int[np.ndarray, " m"]:
    """The rows of all kinds, each once, in the order in which they come."""
    return np.asarray(list(dict.fromkeys(row for rows in kinds.values() for row in rows)), np.int64)


def read_examples(path: Path) -> Examples:
    """Reads chosen slices; of an older version's file, which has the first two kinds alone.

    Raises:
        OSError: there is no file, or it cannot be opened.
        ValueError, KeyError, zipfile.BadZipFile: it is damaged.
    """
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    kinds = {kind: arrays[f"{_KIND}{kind}"] for kind in KINDS if f"{_KIND}{kind}" in arrays}
    if "kind" in arrays:
        kinds = {kind: arrays["kind"] == kind for kind in (MOST, LEAST)}

    def named(prefix: str) -> dict[str, np.ndarray]:
        return {
            name.removeprefix(prefix): array
            for name, array in arrays.items()
            if name.startswith(prefix)
        }

    return Examples(
        ids=tuple(arrays["id"].tolist()),
        labels=arrays["label"],
        scores=arrays["score"],
        images=arrays["image"],
        pixel=arrays["pixel"],
        reconstructions=named(_RECONSTRUCTION),
        maps=named(_MAP),
        masks=arrays.get("mask"),
        kinds=kinds,
    )
