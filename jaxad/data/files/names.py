"""What names of files and folders say: suffixes, words for splits, normal images and masks.

Names are compared word by word and without letter case, so that `Test`, `x-seg` and `x.mask` mean
what `test` and `x_mask` do, and `segovia` and `gtx` mean nothing.
"""

import dataclasses
import functools
import re
import unicodedata
from pathlib import Path

from jaxad.data.files.formats import FORMATS

#: Suffixes of files that are read. What else follows a dot is part of the name.
_SUFFIXES = sorted(
    (*FORMATS["image"].suffixes, *FORMATS["nifti"].suffixes, *FORMATS["npz"].suffixes),
    key=len,
    reverse=True,
)

#: Names of folders, and values of a table's column `split`, by what they mean.
SPLIT_WORDS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}

#: Words that suggest a split and are not read as one.
_NEARLY_SPLITS = {
    "training": "train", "trainset": "train", "validate": "val", "validating": "val",
    "valset": "val", "dev": "val", "testing": "test", "tests": "test", "testset": "test",
}  # fmt: skip

#: Names of normal images, where `config.data.normal_classes` has none.
NORMAL_WORDS = ("good", "normal")

#: Names that suggest normal images and are not read as such.
_NEARLY_NORMAL = frozenset(
    (
        "good", "goods", "normal", "normals", "healthy", "negative", "negatives", "control",
        "controls", "ok", "okay", "clean", "intact", "no", "non", "none", "cn", "hc", "nc",
    )
)  # fmt: skip

#: Words that suggest normal images wherever a name has them, unless a word before denies them.
_NORMAL_ANYWHERE = frozenset(("normal", "normals", "healthy"))
_DENIALS = frozenset(("no", "not", "non", "ab", "un", "without"))

#: What a denial makes anomalous, or part of the name of a disease (`non_small_cell`).
_NOT_DENIED = frozenset(
    (
        *_NORMAL_ANYWHERE, "good", "ok", "okay", "clean", "intact", "small", "hodgkin", "hodgkins",
        "alcoholic", "specific", "union", "proliferative", "ischemic", "ischaemic", "exudative",
        "displaced", "obstructive", "functioning", "functional", "mass",
    )
)  # fmt: skip

#: Names in one word that deny an anomaly; `non` may also stand before any other word.
_DENIED_ANOMALY = re.compile(
    r"no(?:findings?|tumou?rs?|lesions?|diseases?|defects?|anomal(?:y|ies)|cancer|covid|dementia"
    r"|pneumonia|fractures?|cracks?|stroke|ha?emorrhage|bleed(?:ing)?|dr)"
    r"|un(?:affected|infected|damaged|remarkable|injured|broken|cracked|fractured|involved"
    r"|diseased|impaired|harmed|defective)"
)

#: Words that add nothing to the name of a class.
_FILLERS = frozenset(
    (
        "image", "images", "img", "imgs", "case", "cases", "scan", "scans", "sample", "samples",
        "slice", "slices", "patient", "patients", "subject", "subjects", "class", "data", "set",
    )
)  # fmt: skip

_GROUND_TRUTH = "groundtruth"

#: Words that name a mask. Words that end in one of `_MASK_SUFFIXES` do, too.
_MASK_WORDS = frozenset(
    (
        "mask", "masks", "seg", "segs", "segm", "segmentation", "segmentations", "dseg", "probseg",
        "aseg", "aparc", "parcellation", "gt", "gts", "truth", "groundtruth", "label", "labels",
        "labelmap", "labelmaps", "annotation", "annotations", "annot", "annots", "anno", "annos",
        "msk", "msks", "lbl", "lbls",
    )
)  # fmt: skip
_MASK_SUFFIXES = ("mask", "masks", "seg", "segs", "parc")
_NO_MASK_WORDS = frozenset(("unmask", "unmasks", "damask", "damasks"))

#: Words that may name a mask or an image.
_WEAK_MASK_WORDS = frozenset(
    (
        "lesion", "lesions", "roi", "rois", "contour", "contours", "outline", "outlines",
        "outlined", "vessel", "vessels", "ribbon", "superpixel", "superpixels", "annotated",
        "manual", "binary", "bin",
    )
)  # fmt: skip

#: The end of a mask's name: a word for masks, and perhaps a number.
_MASK_ENDING = re.compile(
    r"[\s_.\-(\[]+(?:ground[\s_.\-]*truth|"
    + "|".join(sorted(_MASK_WORDS, key=len, reverse=True))
    + r")(?:[\s_.\-(\[]*\d+)?[)\]]?$",
    re.IGNORECASE,
)


def plain(name: str) -> str:
    """A name in one spelling: systems write umlauts in two ways."""
    return unicodedata.normalize("NFC", name)


def folded(name: str) -> str:
    """A name without letter case."""
    return plain(name).casefold()


def stem(path: Path) -> str:
    """The name without a suffix that is known, `.nii.gz` as one: `scan.v1` of `scan.v1.png`.

    A folder named by a UID (`1.2.840.77.3`) has none.
    """
    name = path.name
    for suffix in _SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name


def suffix(path: Path) -> str:
    """What `stem` leaves out; "" where that is nothing."""
    return path.name[len(stem(path)) :]


def is_table(path: Path) -> bool:
    """Whether a path is a CSV file by its name, and no folder of such a name."""
    return path.name.lower().endswith(".csv") and not path.is_dir()


def is_archive(path: Path) -> bool:
    """Whether a path is an `.npz` file by its name, and no folder of such a name."""
    return path.name.lower().endswith(".npz") and not path.is_dir()


@functools.lru_cache(2**17)  # several functions below split the name of every file of a data set
def words_of(name: str) -> tuple[str, ...]:
    """The words and the numbers of a name, in lower case: `t`, `2`, `mask` of `T2-mask`."""
    # `TumorMask` and `MRIMask`, but not the plural `ROIs`.
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})", " ", plain(name))
    words = re.findall(r"[^\W\d_]+|\d+", parted.casefold())
    joined: list[str] = []
    for word in words:
        if word in ("truth", "truths") and joined[-1:] == ["ground"]:
            joined[-1] = _GROUND_TRUTH
        else:
            joined.append(_GROUND_TRUTH if word == "groundtruths" else word)
    return tuple(joined)


def split_named(name: str) -> str:
    """The split that a folder, or a value of a table, names; "" where it names none."""
    word = folded(name)
    return next((split for split, words in SPLIT_WORDS.items() if word in words), "")


def split_of(name: str) -> str:
    """The split that a table or the name of an `.npz` file says, a test split's own name as it is.

    Returns:
        `train`, `val`, `test` or `test_<name>`; "" where it says none of them.
    """
    start, line, rest = name.partition("_")
    if line and split_named(start) == "test" and re.fullmatch(r"[\w-]+", rest):
        return f"test_{rest}"
    return split_named(name)


def split_suggested(name: str) -> str:
    """The split that a name suggests that is none, such as `testing` or `Test2`; "" for others."""
    known = {word: split for split, words in SPLIT_WORDS.items() for word in words}
    return next(
        (
            split
            for word in words_of(name)
            if (split := known.get(word, _NEARLY_SPLITS.get(word, "")))
        ),
        "",
    )


def suggests_normal(name: str) -> bool:
    """Whether a name suggests normal images: `healthy`, `No Finding`, `NonDemented`, `tumor_free`.

    Names of diseases that sound so, such as `non_small_cell`, do not.
    """
    words = [word for word in words_of(name) if not word.isdigit() and word not in _FILLERS]
    joined = "".join(words)
    if not words:
        return False
    if joined in _NEARLY_NORMAL or _DENIED_ANOMALY.fullmatch(joined):
        return True
    if words[0] in ("no", "not", "non", "without"):
        return len(words) > 1 and words[1] not in _NOT_DENIED
    if words[0].startswith("non"):
        return words[0].removeprefix("non") not in _NOT_DENIED
    if words[-1].endswith("free") and len(joined) > len("free"):
        return True
    if words[-1] in ("negative", "negatives"):  # receptors of tumours may be negative, too
        return words[-2] not in ("triple", "her", "er", "pr")
    return any(
        word in _NORMAL_ANYWHERE and before not in _DENIALS and after != "pressure"
        for before, word, after in zip(["", *words], words, [*words[1:], ""], strict=False)
    )


def is_ground_truth(name: str) -> bool:
    """Whether a folder is named `ground_truth`, however that is written."""
    return words_of(name) == (_GROUND_TRUTH,)


def has_mask_word(name: str) -> bool:
    """Whether a word of a folder's name is one for masks, such as `masks` or `labelsTr`."""
    return any(_is_mask_word(word) for word in words_of(name))


def mask_words(name: str) -> list[str]:
    """The words of a name that are for masks or may be (`lesion`), in their order."""
    return [word for word in words_of(name) if _is_mask_word(word) or word in _WEAK_MASK_WORDS]


def _is_mask_word(word: str) -> bool:
    return word in _MASK_WORDS or (word.endswith(_MASK_SUFFIXES) and word not in _NO_MASK_WORDS)


def is_named_as_mask(path: Path) -> bool:
    """Whether the name of a file ends as those of masks do."""
    return _MASK_ENDING.search(stem(path)) is not None


def marked_by(path: Path) -> str:
    """The name of what a mask marks: its own without the ending of a mask, if it has one."""
    return plain(_MASK_ENDING.sub("", stem(path)))


@dataclasses.dataclass(frozen=True)
class MaskName:
    """What the name of a file says that may be a mask.

    Attributes:
        is_weak: whether its words name images as well (`lesion`, `roi`).
        marked: the words of names that the image may have; an empty one fits any image.
    """

    is_weak: bool
    marked: frozenset[tuple[str, ...]]


def mask_name(name: str) -> MaskName | None:
    """What a name without its suffix says of a mask; None where none of its words does."""
    words = words_of(name)
    strong = [place for place, word in enumerate(words) if _is_mask_word(word)]
    weak = [place for place, word in enumerate(words) if word in _WEAK_MASK_WORDS]
    if not strong and not weak:
        return None
    every, own = sorted((*strong, *weak)), strong or weak
    # Without all of its words for masks, without the last, and without the first.
    parts = [(every[0], every[-1]), (own[-1], own[-1]), (own[0], own[0])]
    marked = set()
    for start, end in parts:
        head, tail = words[:start], words[end + 1 :]
        marked.add(head + tail)
        if head and all(word.isdigit() for word in tail):
            marked.add(head)
    # `mask_2` marks image `2`, and `mask` whatever lies beside it.
    return MaskName(not strong, frozenset(marked))
