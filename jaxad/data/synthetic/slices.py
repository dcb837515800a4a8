"""The finished slices of one subject of one split: images, labels and masks."""

import dataclasses

import numpy as np
from jaxtyping import Bool, UInt8

from jaxad.data.synthetic.anomalies import draw_lesions, draw_objects
from jaxad.data.synthetic.plan import lesion_runs, object_slices
from jaxad.data.synthetic.subject import make_subject, render

SPLITS = ("train", "val", "test_objects", "test_lesions")
"""The splits; the place of a split here is its number in the keys of random streams."""


@dataclasses.dataclass(frozen=True)
class SubjectSlices:
    """All slices of a subject, from the lowest to the highest.

    Attributes:
        group: the subject's name, such as `test_objects-0007`.
        images: uint8; a value v stands for v / 255 in [0, 1], the background is 0.
        masks: 1 where a pixel is anomalous, else 0.
        labels: whether a slice holds an anomaly; that is, whether its mask is not empty.
    """

    group: str
    images: UInt8[np.ndarray, "20 s s"]
    masks: UInt8[np.ndarray, "20 s s"]
    labels: Bool[np.ndarray, "20"]


def make_slices(seed: int, split: str, number: int, image_size: int) -> SubjectSlices:
    """Make a subject's slices; the same arguments give the same bytes in any process.

    Args:
        seed: seed of the data set, not negative.
        split: one of `SPLITS`.
        number: number of the subject in its split, from 0.
        image_size: pixels per side.

    Raises:
        UserError: if the template's or the photographs' files are missing.
        ValueError: if there is no such split.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}: one of {', '.join(SPLITS)}")
    split_number = SPLITS.index(split)
    subject = make_subject(seed, split_number, number, image_size)
    signal, mask = subject.signal, np.zeros_like(subject.brain)
    if split == "test_objects":
        slices = np.flatnonzero(object_slices(seed, split_number, number)).tolist()
        signal, mask = draw_objects(subject, seed, split_number, number, slices)
    elif split == "test_lesions":
        runs = lesion_runs(seed, split_number, number)
        signal, mask = draw_lesions(subject, seed, split_number, number, runs)
    return SubjectSlices(
        group=f"{split}-{number:04d}",
        images=render(subject, signal),
        masks=mask.astype(np.uint8),
        labels=np.asarray(mask.any(axis=(1, 2))),
    )
