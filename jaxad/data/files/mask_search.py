"""The search for masks among images: by names, by neighbours and by content."""

import collections
import dataclasses
import functools
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from jaxad.data.files import names
from jaxad.data.files.formats import FORMATS, Kind
from jaxad.data.files.label_maps import is_label_map
from jaxad.data.files.tree import is_hidden
from jaxad.data.readers import dicom, images, volumes
from jaxad.errors import DataError

logger = logging.getLogger(__name__)

#: The number of files, at even distances, whose content decides for all that are named alike.
_MOST_LOOKED_AT = 20


@dataclasses.dataclass(frozen=True)
class MaskFile:
    """A file that is a mask.

    Attributes:
        path: of the file.
        why: the reason to regard it as a mask, for messages, such as `it lies in masks/`.
    """

    path: Path
    why: str


def find_masks(paths: Sequence[Path], kind: Kind, root: Path) -> list[MaskFile]:
    """The masks among files that were gathered as images, scans or DICOM series.

    A file is a mask without a look at it if it lies in `ground_truth/`, or has a word for masks in
    its name and lies beside the image that the rest of its name names. It is a mask if it holds a
    label map and has a word for masks in its name or in that of a folder, or the name of an image
    beside it with any addition, where that image is no label map.

    A word that all other files have as well says nothing; a warning says so where they hold label
    maps. Of many files that are named alike, a sample is looked at, and all of them if the files of
    the sample differ.

    Args:
        paths: of all the files of a data set.
        kind: of the files.
        root: the folder that they were gathered in; the names of folders below it count.
    """
    neighbours = functools.cache(lambda folder: _images_in(folder, kind))
    of_folder = functools.cache(lambda folder: _folder_words(folder, root))
    truth_of = functools.cache(lambda folder: _why_by_folder(folder, root))
    shape_of = functools.cache(lambda folder: _shape(folder, root))
    whys: dict[Path, str] = {}
    for path in paths:
        why = truth_of(path.parent) or _why_by_name(path, neighbours)
        if why:
            whys[path] = why
    others = [path for path in paths if path not in whys]
    words = {path: _Words(of_folder(path.parent), _name_words(path)) for path in others}
    common = _common(list(words.values()))
    groups: dict[tuple[object, ...], list[_Candidate]] = collections.defaultdict(list)
    for path, own in words.items():
        candidate = _candidate(path, own.without(common) if own else own, neighbours)
        if candidate is not None:
            key = (shape_of(path.parent), candidate.key, names.suffix(path).lower())
            groups[key].append(candidate)
    look = functools.cache(lambda path: _content(path, kind))
    for group in groups.values():
        whys.update(_whys_by_content(group, look))
    _warn_of_label_maps([path for path, own in words.items() if own and path not in whys], look)
    return [MaskFile(path, whys[path]) for path in paths if path in whys]


# --- What names say.

#: The images in a folder by the words of their names.
_Images = Mapping[tuple[str, ...], Sequence[Path]]


def _images_in(folder: Path, kind: Kind) -> _Images:
    images_by_words: dict[tuple[str, ...], list[Path]] = collections.defaultdict(list)
    try:
        entries = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError:  # is told when its files are read
        return {}
    suffixes = FORMATS["image" if kind == "image" else "nifti"].suffixes
    for path in entries:
        fits = path.is_dir() if kind == "dicom" else path.name.lower().endswith(suffixes)
        if fits and not is_hidden(path.name):
            images_by_words[names.words_of(names.stem(path))].append(path)
    return dict(images_by_words)


def _below(folder: Path, root: Path) -> tuple[str, ...]:
    return folder.relative_to(root).parts if folder.is_relative_to(root) else ()


def _why_by_folder(folder: Path, root: Path) -> str:
    """Why all files in a folder are masks; "" where its name does not say so."""
    truth = next((part for part in _below(folder, root) if names.is_ground_truth(part)), None)
    return "" if truth is None else f"it lies in {truth}/"


def _why_by_name(path: Path, neighbours: Callable[[Path], _Images]) -> str:
    """Why a file is a mask by its name alone; "" where that does not suffice."""
    named = names.mask_name(names.stem(path))
    if named is None or named.is_weak:
        return ""
    beside = neighbours(path.parent)
    marked = next((beside[words][0] for words in sorted(named.marked) if words in beside), None)
    if marked is None and () in named.marked:  # `segmentation` marks whatever lies beside it
        marked = next(
            (
                found[0]
                for words, found in beside.items()
                if names.mask_name(" ".join(words)) is None
            ),
            None,
        )
    return "" if marked is None else f"'{marked.name}' lies beside it"


@dataclasses.dataclass(frozen=True)
class _Words:
    """The words for masks that a file has, weak ones among them, and how often.

    Attributes:
        of_folders: in the names of its folders.
        of_name: in its own name.
    """

    of_folders: collections.Counter[str]
    of_name: collections.Counter[str]

    def __bool__(self) -> bool:
        return bool(self.of_folders or self.of_name)

    def __and__(self, other: "_Words") -> "_Words":
        return _Words(self.of_folders & other.of_folders, self.of_name & other.of_name)

    def without(self, other: "_Words") -> "_Words":
        return _Words(self.of_folders - other.of_folders, self.of_name - other.of_name)


def _folder_words(folder: Path, root: Path) -> collections.Counter[str]:
    return collections.Counter(
        word for part in _below(folder, root) for word in names.mask_words(part)
    )


def _name_words(path: Path) -> collections.Counter[str]:
    return collections.Counter(names.mask_words(names.stem(path)))


def _common(words: Sequence[_Words]) -> _Words:
    """What all of several files have; a single file has nothing in common with others."""
    if len(words) < 2:
        return _Words(collections.Counter(), collections.Counter())
    return functools.reduce(lambda first, second: first & second, words)


def _shape(folder: Path, root: Path) -> tuple[str, ...]:
    """The path of a folder without numbers, which is the same for folders of many patients."""
    return tuple(re.sub(r"\d+", "#", part) for part in _below(folder, root))


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """A file whose content decides whether it is a mask.

    Attributes:
        path: of the file.
        key: the same for files of a folder that are named alike.
        reason: to look at it, for messages.
        beside: images of nearly the same name; empty where the name has a word for masks.
    """

    path: Path
    key: tuple[str, ...]
    reason: str
    beside: tuple[Path, ...] = ()


def _candidate(path: Path, own: _Words, neighbours: Callable[[Path], _Images]) -> _Candidate | None:
    words = names.words_of(names.stem(path))
    if own.of_name:
        places = [place for place, word in enumerate(words) if word in own.of_name]
        # `x_mask_left`, where x is any name; what follows is one where nothing precedes.
        end = len(words) if places[0] else places[-1] + 1
        key = tuple(word for word in words[places[0] : end] if not word.isdigit())
        return _Candidate(path, key, "by its name")
    if own.of_folders:
        word = next(iter(own.of_folders))
        return _Candidate(path, (), f"by the word '{word}' in the name of its folder")
    for affix, found in _nearly_named(words, neighbours(path.parent)):
        beside = tuple(image for image in found if image != path)
        if beside:
            return _Candidate(path, affix, f"'{beside[0].name}' lies beside it", beside)
    return None


def _nearly_named(
    words: tuple[str, ...], beside: _Images
) -> Iterator[tuple[tuple[str, ...], Sequence[Path]]]:
    """The images of these words, or of the first or the last of them, and the other words.

    Where the other words are numbers, they count images.
    """
    yield ("",), beside.get(words, ())
    for place in range(1, len(words)):
        for rest, affix in ((words[:place], words[place:]), (words[place:], words[:place])):
            if rest in beside and not all(word.isdigit() for word in affix):
                yield tuple(word for word in affix if not word.isdigit()), beside[rest]


# --- What files hold.

#: What a file holds: labels, an image, one value alone, or what cannot be read.
_Content = Literal["labels", "image", "blank", "unreadable"]

_Look = Callable[[Path], _Content]


def _content(path: Path, kind: Kind) -> _Content:
    try:
        if kind == "image":
            values = images.read_image(path)
        else:
            read = dicom.read_series if path.is_dir() else volumes.read_nifti
            values = read(path).voxels
    except DataError:  # is told when it is read
        return "unreadable"
    if not values.size or (values == values.flat[0]).all():
        return "blank"
    return "labels" if is_label_map(values) else "image"


def _evenly(count: int) -> list[int]:
    """Places at even distances, all of them where they are few."""
    places = np.linspace(0, count - 1, min(_MOST_LOOKED_AT, count))
    return [int(place) for place in places]


def _whys_by_content(group: Sequence[_Candidate], look: _Look) -> dict[Path, str]:
    """Why files that are named alike are masks; those that are not are left out."""
    sample = [group[place] for place in _evenly(len(group))]
    contents = {_content_beside(candidate, look) for candidate in sample}
    if "labels" not in contents and ("blank" not in contents or "image" in contents):
        return {}
    if "labels" not in contents and group[0].beside:  # black frames, and no words for masks
        return {}
    masks = list(group)
    if "image" in contents:
        is_short = len(group) == len(sample)
        with tqdm(group, desc="looking for masks", unit="file", disable=is_short) as bar:
            masks = [each for each in bar if _content_beside(each, look) == "labels"]
    is_sampled = len(sample) < len(group) and "image" not in contents
    what = "it holds a label map"
    if is_sampled:
        what = f"{len(sample)} of {len(group):,} files that are named alike hold label maps"
    return {each.path: f"{each.reason}, and {what}" for each in masks}


def _content_beside(candidate: _Candidate, look: _Look) -> _Content:
    """What a file holds; labels only where, of images of nearly the same name, one holds none."""
    content = look(candidate.path)
    if content != "labels" or not candidate.beside:
        return content
    return "labels" if any(look(image) == "image" for image in candidate.beside) else "image"


def _warn_of_label_maps(paths: Sequence[Path], look: _Look) -> None:
    sample = [paths[place] for place in _evenly(len(paths))] if paths else []
    maps = [path for path in sample if look(path) == "labels"]
    if maps:
        logger.warning(
            f"warning: {maps[0]}: holds a label map and is named as a mask, as all files are; they "
            f"are taken for images ({len(sample):,} of {len(paths):,} files were looked at, "
            f"{len(maps):,} of them hold label maps)."
        )
