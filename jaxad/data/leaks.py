"""What two splits have in common: images by their pixels, patients by their names."""

import hashlib
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from jaxad.data.prepare.preprocess import to_unit_interval
from jaxad.errors import UserError
from jaxad.types import Split

#: Splits that are learnt from.
_LEARNT_FROM = ("train", "val")


def image_digests(splits: Mapping[str, Split]) -> dict[str, list[bytes]]:
    """Of each image's prepared pixels: the same picture in another format is the same image."""
    # Splits of several types are compared in [0, 1].
    are_alike = len({split.images.dtype for split in splits.values()}) == 1

    def digest(image: np.ndarray) -> bytes:
        pixels = image if are_alike else to_unit_interval(image)
        return hashlib.blake2b(np.ascontiguousarray(pixels).data).digest()

    return {name: [digest(image) for image in split.images] for name, split in splits.items()}


def plain_name(name: str) -> str:
    """A patient's name without what spellings differ in: `P07`, `p7` and `p 7.0` are one."""
    letters = unicodedata.normalize("NFKC", name).casefold().strip()
    letters = re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", letters)
    return re.sub(r"(?<![\d.])0+(?=\d)", "", re.sub(r"(?<=\d)\.0+$", "", letters))


def named_patients(split: Split) -> set[str]:
    """The patients of a split; not the images or files that each count as one, for lack of names.

    `img/1.png` and `img/01.png` are two files, whatever `P1` and `P01` are.
    """
    return set(split.groups) - split.unnamed


def spelt_alike(first: Collection[str], second: Iterable[str]) -> list[tuple[str, str]]:
    """Patients of two splits that may be the same, by names that are not."""
    plain = {plain_name(name): name for name in first}
    pairs = ((plain.get(plain_name(name)), name) for name in sorted(set(second) - set(first)))
    return [(known, name) for known, name in pairs if known is not None]


def check_spelling(name: str, splits: Mapping[str, Split]) -> None:
    """Raises a UserError where patients of two splits differ in spelling alone.

    Args:
        name: of the data set, for the message.
        splits: that have no patient in common.
    """
    groups = {split_name: named_patients(split) for split_name, split in splits.items()}
    names = list(groups)
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            for patient, other in spelt_alike(groups[first], groups[second]):
                raise UserError(
                    f"{name}: patient '{patient}' of '{first}' and patient '{other}' of '{second}' "
                    "differ in capital letters, zeros or spaces alone; if they are one, keep it in "
                    "one split, if they are two, rename one."
                )


def check_images_apart(name: str, splits: Mapping[str, Split]) -> None:
    """Raises a UserError where an image that is learnt from is in another split, too."""
    learnt: dict[bytes, tuple[str, str]] = {}
    digests = image_digests(splits)
    for split_name in sorted(splits, key=lambda name: name not in _LEARNT_FROM):
        for key, own in zip(digests[split_name], splits[split_name].ids, strict=True):
            first, there = learnt.get(key, (split_name, ""))
            if first != split_name:
                raise UserError(
                    f"{name}: image '{own}' of '{split_name}' is '{there}' of '{first}', pixel by "
                    "pixel; remove one of the two. --mode=inspect lists all of them in "
                    "inspect.json."
                )
            if split_name in _LEARNT_FROM:
                learnt[key] = (split_name, own)
