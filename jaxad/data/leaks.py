"""Images and patients that two splits have in common, also under different names."""

import hashlib
import itertools
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from jaxad.data.prepare.preprocess import to_unit_interval
from jaxad.errors import UserError
from jaxad.types import Split, row_blocks

#: The splits that training uses; all others are test splits.
TRAINING_SPLITS = ("train", "val")


def image_digests(splits: Mapping[str, Split]) -> dict[str, list[bytes]]:
    """Hashes the prepared pixels of each image: copies in several file formats are equal."""
    # Splits of different dtypes are compared in [0, 1].
    same_dtype = len({split.images.dtype for split in splits.values()}) == 1

    def digest(image: np.ndarray) -> bytes:
        pixels = image if same_dtype else to_unit_interval(image)
        return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16).digest()

    return {
        name: [digest(image) for rows in row_blocks(split.images) for image in split.images[rows]]
        for name, split in splits.items()
    }


def linked_patients(known: Split, *splits: Split) -> set[str]:
    """Finds the patients of splits who share an image with `known`, or with such a patient."""
    named = {str(number): split for number, split in enumerate(splits)}
    digests = image_digests({"known": known, **named})
    images = [
        image for name in named for image in zip(digests[name], named[name].groups, strict=True)
    ]
    seen, linked = set(digests["known"]), set[str]()
    while added := {group for digest, group in images if digest in seen} - linked:
        linked |= added
        seen |= {digest for digest, group in images if group in added}
    return linked


def copies(known: Split, split: Split) -> list[tuple[str, str]]:
    """Finds the images of `split` that `known` holds, too, pixel by pixel.

    Returns:
        The ids of the image and of its copy in `known`, in the order of `split`.
    """
    digests = image_digests({"known": known, "split": split})
    first: dict[bytes, str] = {}
    for digest, name in zip(digests["known"], known.ids, strict=True):
        first.setdefault(digest, name)
    images = zip(digests["split"], split.ids, strict=True)
    return [(name, first[digest]) for digest, name in images if digest in first]


def without_duplicates(split: Split, others: Sequence[Split]) -> Split:
    """Returns a split without images that are in others or repeat an earlier image of the split."""
    named = {str(number): other for number, other in enumerate(others)}
    digests = image_digests({"split": split, **named})
    seen = {digest for name in named for digest in digests[name]}
    kept = []
    for index, digest in enumerate(digests["split"]):
        if digest not in seen:
            kept.append(index)
        seen.add(digest)
    return split if len(kept) == len(split) else split.rows(np.array(kept, np.int64))


def plain_name(name: str) -> str:
    """Removes differences in spelling from a patient's name: `P07`, `p7` and `p 7.0` are equal."""
    letters = unicodedata.normalize("NFKC", name).casefold().strip()
    letters = re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", letters)
    return re.sub(r"(?<![\d.])0+(?=\d)", "", re.sub(r"(?<=\d)\.0+$", "", letters))


def named_patients(split: Split) -> set[str]:
    """Returns the patients whose names are known, as opposed to images that count as patients.

    Names of files are not compared by spelling: `img/1.png` and `img/01.png` are two images.
    """
    return set(split.groups) - split.unnamed


def spelt_alike(first: Collection[str], second: Iterable[str]) -> list[tuple[str, str]]:
    """Finds pairs of patients of two splits whose names differ only in spelling."""
    by_plain_name = {plain_name(name): name for name in first}
    others = sorted(set(second) - set(first))
    pairs = ((by_plain_name.get(plain_name(name)), name) for name in others)
    return [(known, name) for known, name in pairs if known is not None]


def check_spelling(name: str, splits: Mapping[str, Split]) -> None:
    """Raises a UserError if the names of patients of two splits differ only in spelling."""
    patients = {split_name: named_patients(split) for split_name, split in splits.items()}
    for first, second in itertools.combinations(patients, 2):
        for patient, other in spelt_alike(patients[first], patients[second]):
            raise UserError(
                f"{name}: patient '{patient}' of '{first}' and patient '{other}' of '{second}' "
                "differ only in case, zeros or spaces; if they are the same patient, keep it in "
                "one split; otherwise rename one."
            )


def check_images_apart(name: str, splits: Mapping[str, Split]) -> None:
    """Raises a UserError if an image of `train` or `val` is in another split."""
    seen: dict[bytes, tuple[str, str]] = {}  # digest -> split and id of a training image
    digests = image_digests(splits)
    for split_name in sorted(splits, key=lambda name: name not in TRAINING_SPLITS):
        for digest, image in zip(digests[split_name], splits[split_name].ids, strict=True):
            first, copy = seen.get(digest, (split_name, ""))
            if first != split_name:
                raise UserError(
                    f"{name}: image '{image}' of '{split_name}' is '{copy}' of '{first}', pixel by "
                    "pixel; remove one of the two, or leave such images out of train and val with "
                    "--config.data.duplicates=leave_out. --mode=inspect lists all of them in "
                    "duplicates.csv."
                )
            if split_name in TRAINING_SPLITS:
                seen[digest] = (split_name, image)
