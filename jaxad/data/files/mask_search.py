"""The search for masks among files that should be images: is this file a mask?"""

import collections
import dataclasses
import functools
import logging
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxad.data.files import names
from jaxad.data.files.formats import FORMATS, Kind
from jaxad.data.files.items import read_volume
from jaxad.data.files.label_maps import is_label_map
from jaxad.data.readers import images
from jaxad.data.readers.checks import is_hidden
from jaxad.errors import DataError, UserError
from jaxad.runtime.progress import progress_bar

logger = logging.getLogger(__name__)

#: Number of files, at even distances, whose content decides for all that are named alike.
_SAMPLE_SIZE = 20

#: What a file holds: labels, an image, one value only, or nothing that can be read.
_Content = Literal["labels", "image", "blank", "unreadable"]

_Look = Callable[[Path], _Content]


def refuse_masks(paths: Sequence[Path], kind: Kind, root: Path, remedy: str) -> None:
    """Raises a UserError that names the first mask that `find_masks` finds, and a remedy."""
    reasons = find_masks(paths, kind, root)
    if reasons:
        (first, reason), count = next(iter(reasons.items())), len(reasons) - 1
        more = f" (and {count:,} more file{'s' * (count > 1)})" if count else ""
        raise UserError(
            f"{first}: is a mask, not an image: {reason}{more}; {remedy}, or change the name if it "
            "is an image."
        )


def leave_out_masks(paths: Sequence[Path], kind: Kind, root: Path) -> list[Path]:
    """Returns the files that `find_masks` does not take for masks; logs how many it does."""
    reasons = find_masks(paths, kind, root)
    if reasons:
        first, reason = next(iter(reasons.items()))
        logger.warning(
            f"{root}: left out {len(reasons):,} of {len(paths):,} files, which are masks; the "
            f"first: {first} ({reason})"
        )
    return [path for path in paths if path not in reasons]


def find_masks(paths: Sequence[Path], kind: Kind, root: Path) -> dict[Path, str]:
    """Finds the masks among files that were gathered as images, scans or DICOM series (folders).

    A file is a mask by its name alone if it lies in `ground_truth/`, or if its name has a word for
    masks and the rest of the name is that of an image beside it. It is a mask if it holds a label
    map and its name or that of a folder below `root` has a word for masks, or if it holds a label
    map and an image beside it, which is not a label map, has the same name without some words.

    A word that occurs in the names of all remaining files is ignored; if they hold label maps, a
    warning says so. Of many files with similar names a sample is read, and all of them if the
    sample is mixed.

    Returns the masks in order, each with the reason, such as `it lies in masks/`.
    """
    describe = functools.cache(lambda folder: _describe(folder, kind, root))
    look = functools.cache(lambda path: _content(path, kind))
    reasons: dict[Path, str] = {}
    words: dict[Path, _Words] = {}
    for path in paths:
        folder = describe(path.parent)
        if reason := _reason_by_name(path, folder):
            reasons[path] = reason
        else:
            of_name = (("name", word) for word in names.mask_words(names.stem(path)))
            words[path] = folder.words + collections.Counter(of_name)
    # A single file has nothing in common with others.
    shared = functools.reduce(operator.and_, words.values()) if len(words) > 1 else _Words()
    groups: dict[tuple[object, ...], list[_Candidate]] = collections.defaultdict(list)
    for path, counted in words.items():
        folder = describe(path.parent)
        candidate = _candidate(path, counted - shared, folder)
        if candidate is not None:
            key = (folder.pattern, candidate.key, names.suffix(path).lower())
            groups[key].append(candidate)
    for group in groups.values():
        reasons |= _reasons_by_content(group, look)
    _warn_of_label_maps([p for p, counted in words.items() if counted and p not in reasons], look)
    return {path: reasons[path] for path in paths if path in reasons}


# --- What names say.

#: Words for masks, ambiguous ones among them, as ("folder" or "name", word).
_Words = collections.Counter[tuple[str, str]]

#: The files in a folder that may be images, by the words of their names.
_Images = Mapping[tuple[str, ...], Sequence[Path]]


@dataclasses.dataclass(frozen=True)
class _Folder:
    """What the search needs to know of a folder."""

    truth: str  # name of the `ground_truth` folder that it is or lies in; "" if there is none
    words: _Words  # words for masks in the names of the folders from the root down to it
    pattern: tuple[str, ...]  # path below the root without numbers: alike for many patients
    images: _Images  # files in it that may be images


def _describe(folder: Path, kind: Kind, root: Path) -> _Folder:
    parts = folder.relative_to(root).parts if folder.is_relative_to(root) else ()
    return _Folder(
        truth=next(filter(names.is_ground_truth, parts), ""),
        words=_Words(("folder", word) for part in parts for word in names.mask_words(part)),
        pattern=tuple(re.sub(r"\d+", "#", part) for part in parts),
        images=_images_in(folder, kind),
    )


def _images_in(folder: Path, kind: Kind) -> _Images:
    images_by_words: dict[tuple[str, ...], list[Path]] = collections.defaultdict(list)
    try:
        entries = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError:  # reported when its files are read
        return {}
    suffixes = FORMATS["image" if kind == "image" else "nifti"].suffixes
    for path in entries:
        fits = path.is_dir() if kind == "dicom" else path.name.lower().endswith(suffixes)
        if fits and not is_hidden(path.name):
            images_by_words[names.words_of(names.stem(path))].append(path)
    return dict(images_by_words)


def _reason_by_name(path: Path, folder: _Folder) -> str:
    """Returns why a file is a mask by its name alone; "" if names do not suffice."""
    if folder.truth:
        return f"it lies in {folder.truth}/"
    name = names.stem(path)
    if not names.has_mask_word(name):
        return ""
    marked = names.images_of_mask(name)
    beside = [folder.images[words] for words in sorted(marked) if words in folder.images]
    if not beside and () in marked:  # `segmentation` marks any image beside it
        beside = [
            files for words, files in folder.images.items() if not names.mask_words(" ".join(words))
        ]
    return f"'{beside[0][0].name}' lies beside it" if beside else ""


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """A file whose content decides whether it is a mask."""

    path: Path
    key: tuple[str, ...]  # the same for files of a folder that are named alike
    reason: str  # why its content is looked at, for messages
    beside: tuple[Path, ...] = ()  # images of nearly the same name, if names have no word for masks


def _candidate(path: Path, mask_words: _Words, folder: _Folder) -> _Candidate | None:
    words = names.words_of(names.stem(path))
    in_name = [index for index, word in enumerate(words) if ("name", word) in mask_words]
    if in_name:
        # Files are named alike from the word for masks on (`x_mask_left`), whatever x is; if the
        # name begins with that word, the rest may be any name.
        end = len(words) if in_name[0] else in_name[-1] + 1
        key = tuple(word for word in words[in_name[0] : end] if not word.isdigit())
        return _Candidate(path, key, "by its name")
    if mask_words:
        _, word = next(iter(mask_words))
        return _Candidate(path, (), f"by the word '{word}' in the name of its folder")
    for affix, images_beside in _nearly_named(words, folder.images):
        beside = tuple(image for image in images_beside if image != path)
        if beside:
            return _Candidate(path, affix, f"'{beside[0].name}' lies beside it", beside)
    return None


def _nearly_named(
    words: tuple[str, ...], images_by_words: _Images
) -> Iterator[tuple[tuple[str, ...], Sequence[Path]]]:
    """Yields images named by all, the first or the last of some words, with the other words.

    If the other words are numbers, they count images.
    """
    yield ("",), images_by_words.get(words, ())
    for place in range(1, len(words)):
        for rest, affix in ((words[:place], words[place:]), (words[place:], words[:place])):
            if rest in images_by_words and not all(word.isdigit() for word in affix):
                yield tuple(word for word in affix if not word.isdigit()), images_by_words[rest]


# --- What files hold.


def _content(path: Path, kind: Kind) -> _Content:
    try:
        values = images.read_image(path) if kind == "image" else read_volume(path).voxels
    except DataError:  # reported when the file is read as data
        return "unreadable"
    if not values.size or (values == values.flat[0]).all():
        return "blank"
    return "labels" if is_label_map(values) else "image"


def _content_beside(candidate: _Candidate, look: _Look) -> _Content:
    """Returns what a file holds; labels count only if an image of nearly the same name has none."""
    content = look(candidate.path)
    if content != "labels" or not candidate.beside:
        return content
    return "labels" if any(look(image) == "image" for image in candidate.beside) else "image"


def _sample(items: Sequence[Any]) -> list[Any]:
    """Returns items at even distances, all of them if they are few."""
    indices = np.linspace(0, len(items) - 1, min(_SAMPLE_SIZE, len(items))).astype(int)
    return [items[index] for index in indices]


def _reasons_by_content(group: Sequence[_Candidate], look: _Look) -> dict[Path, str]:
    """Returns why files with similar names are masks; files that are not masks are left out."""
    sample = _sample(group)
    contents = {_content_beside(candidate, look) for candidate in sample}
    is_mixed = {"labels", "image"} <= contents
    # If all files are blank, they are masks only if their names say so.
    is_blank = "blank" in contents and "image" not in contents and not group[0].beside
    if "labels" not in contents and not is_blank:
        return {}
    masks, holds = group, "it holds a label map"
    if is_mixed:
        with progress_bar(
            group, desc="looking for masks", unit="file", disable=len(group) == len(sample)
        ) as bar:
            masks = [member for member in bar if _content_beside(member, look) == "labels"]
    elif len(sample) < len(group):
        holds = f"{len(sample)} of {len(group):,} files that are named alike hold label maps"
    return {mask.path: f"{mask.reason}, and {holds}" for mask in masks}


def _warn_of_label_maps(paths: Sequence[Path], look: _Look) -> None:
    sample = _sample(paths)
    label_maps = [path for path in sample if look(path) == "labels"]
    if label_maps:
        logger.warning(
            f"warning: {label_maps[0]}: holds a label map and is named like a mask, but so are all "
            f"files; they are read as images ({len(sample):,} of {len(paths):,} files were looked "
            f"at, {len(label_maps):,} of them hold label maps)."
        )
