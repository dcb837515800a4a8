"""What names of files and folders say: suffixes, and words for splits, normal images and masks.

Names are compared word by word and without letter case, so that `Test`, `x-seg` and `x.mask` mean
what `test` and `x_mask` mean, while `segovia` and `gtx` mean nothing.
"""

import difflib
import functools
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from jaxad.data.files.formats import FORMATS
from jaxad.errors import UserError

#: Suffixes of files that are read, longest first. Anything else after a dot is part of the name.
_SUFFIXES = sorted(
    (suffix for kind in ("image", "nifti", "npz") for suffix in FORMATS[kind].suffixes),
    key=len, reverse=True,
)  # fmt: skip


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Names of folders, and values of a table's column `split`, with the split that they mean.
_SPLITS = {
    "train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
}  # fmt: skip

#: Words that suggest a split but are not accepted as its name.
_NEARLY_SPLITS = {
    "training": "train", "trainset": "train", "validate": "val", "validating": "val",
    "valset": "val", "dev": "val", "testing": "test", "tests": "test", "testset": "test",
}  # fmt: skip

#: Names of normal images, unless `config.data.normal_classes` lists others.
NORMAL_WORDS = ("good", "normal")

#: Names that suggest normal images but are not accepted as such.
_NEARLY_NORMAL = _words(
    "good goods normal normals healthy negative negatives control controls ok okay clean intact no "
    "non none cn hc nc"
)

#: Words that suggest normal images anywhere in a name, unless a negation precedes them.
_NORMAL_ANYWHERE = _words("normal normals healthy")
_NEGATIONS = _words("no not non ab un without")

#: Words that, after `no` or `non`, do not make a name normal: `non_small_cell` is a disease.
_NOT_NEGATED = _NORMAL_ANYWHERE | _words(
    "good ok okay clean intact small hodgkin hodgkins alcoholic specific union proliferative "
    "ischemic ischaemic exudative displaced obstructive functioning functional mass"
)

#: Negated anomalies that are written as one word.
_NO_ANOMALY = re.compile(
    r"no(?:findings?|tumou?rs?|lesions?|diseases?|defects?|anomal(?:y|ies)|cancer|covid|dementia"
    r"|pneumonia|fractures?|cracks?|stroke|ha?emorrhage|bleed(?:ing)?|dr)"
    r"|un(?:affected|infected|damaged|remarkable|injured|broken|cracked|fractured|involved"
    r"|diseased|impaired|harmed|defective)"
)

#: Words that add nothing to the name of a class.
_FILLERS = _words(
    "image images img imgs case cases scan scans sample samples slice slices patient patients "
    "subject subjects class data set"
)

#: Other words for arrays, which messages translate.
_SYNONYMS = {
    "target": "label", "class": "label", "segmentation": "mask", "patient": "group",
    "subject": "group", "slice": "position", "name": "id",
}  # fmt: skip

#: Columns of a table -> other words for them. Without these columns, results would be wrong.
_COLUMN_SYNONYMS = {
    "path": _words("file filename image img"),
    "label": _words("target class lbl"),
    "group": _words(
        "patient pat pt subject subj sub participant person individual volunteer donor proband "
        "case pid mrn accession study studyinstance examid eyeid grp"
    ),
    "mask": _words("segmentation seg msk roi annotation annot anno groundtruth gt labelmap"),
    "split": _words("subset partition set dataset fold phase usage traintest trainval"),
    "position": _words("slice sliceindex slicenumber z"),
}

#: Words that do not change what a column holds: `patient_id`, `mask_path`. Also ends of words.
_COLUMN_FILLERS = _words("id ids uid name names number no nr num index idx path paths file files")

#: Words that, beside words for splits, do not change what a column holds: `is_test`, `train_set`.
_SPLIT_FILLERS = _words("is in or and for set")

_GROUND_TRUTH = "groundtruth"

#: Words for masks, as are words that end in one of `_MASK_SUFFIXES`, except `_NO_MASK_WORDS`.
_MASK_WORDS = _words(
    "mask masks seg segs segm segmentation segmentations dseg probseg aseg aparc parcellation gt "
    "gts truth groundtruth label labels labelmap labelmaps annotation annotations annot annots "
    "anno annos msk msks lbl lbls"
)
_MASK_SUFFIXES = ("mask", "masks", "seg", "segs", "parc")
_NO_MASK_WORDS = _words("unmask unmasks damask damasks")

#: Words that name a mask in some data sets and an image in others.
_AMBIGUOUS_WORDS = _words(
    "lesion lesions roi rois contour contours outline outlines outlined vessel vessels ribbon "
    "superpixel superpixels annotated manual binary bin"
)

#: The end of a mask's name: a word for masks, optionally with a number.
_MASK_ENDING = re.compile(
    r"[\s_.\-(\[]+(?:ground[\s_.\-]*truth|"
    + "|".join(sorted(_MASK_WORDS, key=len, reverse=True))
    + r")(?:[\s_.\-(\[]*\d+)?[)\]]?$",
    re.IGNORECASE,
)


def plain(name: str) -> str:
    """Returns a name in Unicode form NFC: file systems write umlauts in two ways."""
    return unicodedata.normalize("NFC", name)


def folded(name: str) -> str:
    """Returns a name without letter case."""
    return plain(name).casefold()


def stem(path: Path) -> str:
    """Returns the name without a known suffix: `scan.v1` for `scan.v1.png`, `x` for `x.nii.gz`.

    A folder named by a UID, such as `1.2.840.77.3`, has no suffix.
    """
    name = path.name
    for known in _SUFFIXES:
        if name.lower().endswith(known) and len(name) > len(known):
            return name[: -len(known)]
    return name


def suffix(path: Path) -> str:
    """Returns the known suffix of a path; "" if it has none."""
    return path.name[len(stem(path)) :]


def is_table(path: Path) -> bool:
    """Tells whether a path is named like a CSV file and is not a folder."""
    return path.name.lower().endswith(".csv") and not path.is_dir()


def is_archive(path: Path) -> bool:
    """Tells whether a path is named like an `.npz` file and is not a folder."""
    return path.name.lower().endswith(".npz") and not path.is_dir()


@functools.lru_cache(2**17)  # the functions below ask again for every file of a data set
def words_of(name: str) -> tuple[str, ...]:
    """Returns the words and numbers of a name in lower case: `t`, `2`, `mask` for `T2-mask`.

    `ground truth` and its plural are the one word `groundtruth`.
    """
    # `TumorMask` and `MRIMask` are two words, the plural `ROIs` is one.
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})", " ", plain(name))
    words = " ".join(re.findall(r"[^\W\d_]+|\d+", spaced.casefold()))
    return tuple(re.sub(r"\bground ?truths?\b", _GROUND_TRUTH, words).split())


def by_folded_name(given: Iterable[str], source: str, noun: str) -> dict[str, str]:
    """Returns names of columns or arrays by their form without letter case.

    `noun`, `column` or `array`, is for messages.

    Raises:
        UserError: two names are the same.
    """
    spelling: dict[str, str] = {}
    for name in given:
        word = folded(name.strip())
        if word in spelling:
            raise UserError(
                f"{source}: the {noun}s '{spelling[word]}' and '{name}' have the same name (letter "
                "case does not count); rename or remove one of them."
            )
        spelling[word] = name
    return spelling


def spelling_of(given: Iterable[str], known: Sequence[str], source: str) -> dict[str, str]:
    """Returns how `known` names, in lower case, are spelt in the arrays of a file.

    Raises:
        UserError: a name is not known, or two are the same.
    """
    spelling = by_folded_name(given, source, "array")
    for word, name in spelling.items():
        if word not in known:
            near = difflib.get_close_matches(word, (*known, *_SYNONYMS), n=1)
            target = _SYNONYMS.get(near[0], near[0]) if near else ""
            rename = f"rename it to '{target}'" if target in known else "rename it"
            raise UserError(
                f"{source}: array '{name}' is none of {', '.join(known)}; {rename} or remove it."
            )
    return spelling


def column_meant(name: str, absent: Collection[str]) -> str:
    """Returns which of some absent columns a name probably means: `label` for `lable`, `class_id`.

    Returns:
        One of `absent`; "" if the name resembles none, or starts with `extra_`.
    """
    words = [word for word in words_of(name) if not word.isdigit()]
    if words[:1] == ["extra"]:
        return ""
    whole = "".join(words)
    core = "".join(word for word in words if word not in _COLUMN_FILLERS) or whole
    cores = (core, core.removesuffix("s"))
    for column in absent:
        synonyms = {column, *_COLUMN_SYNONYMS.get(column, ())}
        # `num_slices` counts slices.
        forms = cores[:1] if column == "position" else cores
        if not synonyms.isdisjoint((*forms, whole, _without_filler(core))):
            return column
    for word in cores:
        for column in absent:
            # Two letters are too few to compare.
            if (len(column) > 2 and _is_near(word, column)) or sorted(word) == sorted(column):
                return column
    if "mask" in absent and core.endswith(_MASK_SUFFIXES) and core not in _NO_MASK_WORDS:
        return "mask"
    splits = [word for word in words if word not in _SPLIT_FILLERS]
    is_split = bool(splits) and all(word in _SPLITS or word in _NEARLY_SPLITS for word in splits)
    return "split" if (is_split or "split" in words) and "split" in absent else ""


def _is_near(word: str, known: str) -> bool:
    """Tells whether two words differ in about one letter."""
    is_comparable = abs(len(word) - len(known)) < 2
    return is_comparable and difflib.SequenceMatcher(None, word, known).ratio() >= 0.8


def is_misspelt(word: str, known: str) -> bool:
    """Tells whether a word is probably a misspelling of a known one: `god` or `godo` of `good`.

    It has the same letters in another order, or the same first letter and about one other letter
    that differs: `food`, `brain` and `anormal` (Spanish for abnormal) are words of their own. In
    `good`, no letter may be replaced: `gold` is a word, too. Words of three letters are too short.
    """
    if word == known or len(known) < 4:
        return False
    return sorted(word) == sorted(known) or (word[:1] == known[0] and _is_near(word, known))


def _without_filler(word: str) -> str:
    """Returns a word without a filler at its end: `patient` for `patientid`."""
    ends = (word[: -len(filler)] for filler in _COLUMN_FILLERS if word.endswith(filler))
    return min(ends, key=len, default="") or word


def are_splits(texts: Iterable[str]) -> bool:
    """Tells whether the texts of a column, except empty ones, are splits, with `train` among them.

    `training` counts as `train` and so on; `valid` alone may mean something else.
    """
    words = {folded(text.strip()) for text in texts} - {""}
    splits = {split_of(word) or _NEARLY_SPLITS.get(word, "") for word in words}
    return "train" in splits and "" not in splits


# --- Splits.


def split_named(name: str) -> str:
    """Returns the split that a folder, or a value in a table, names; "" if it names none."""
    return _SPLITS.get(folded(name), "")


def split_of(name: str) -> str:
    """Returns the split that a value in a table, or the name of an `.npz` file, names.

    Returns:
        `train`, `val`, `test` or `test_<name>`, its letter case kept; "" if it names none.
    """
    start, underscore, rest = name.partition("_")
    if underscore and split_named(start) == "test" and re.fullmatch(r"[\w-]+", rest):
        return f"test_{rest}"
    return split_named(name)


def split_suggested(name: str) -> str:
    """Returns the split that a word of a name suggests: `Test2`, `trian`; "" if none does."""
    known = _SPLITS | _NEARLY_SPLITS
    words = words_of(name)
    exact = (known[word] for word in words if word in known)
    near = (known[split] for word in words for split in known if is_misspelt(word, split))
    return next(exact, next(near, ""))


# --- Normal images.


def _class_words(name: str) -> list[str]:
    """Returns the words of the name of a class, without numbers and fillers."""
    return [word for word in words_of(name) if not word.isdigit() and word not in _FILLERS]


def misspelt_normal(name: str) -> str:
    """Returns which of `NORMAL_WORDS` a name misspells, `good` for `god`; "" if none."""
    joined = "".join(_class_words(name))
    return next((word for word in NORMAL_WORDS if is_misspelt(joined, word)), "")


def suggests_normal(name: str) -> bool:
    """Tells whether a name suggests normal images: `healthy`, `No Finding`, `tumor_free`.

    Diseases with similar names, such as `non_small_cell`, do not.
    """
    words = _class_words(name)
    if not words:
        return False
    joined = "".join(words)
    if joined in _NEARLY_NORMAL or _NO_ANOMALY.fullmatch(joined):
        return True
    if words[0] in ("no", "not", "non", "without"):
        return len(words) > 1 and words[1] not in _NOT_NEGATED
    if words[0].startswith("non"):
        return words[0].removeprefix("non") not in _NOT_NEGATED
    if words[-1].endswith("free") and joined != "free":
        return True
    if words[-1] in ("negative", "negatives"):  # tumours may have negative receptors
        return words[-2] not in ("triple", "her", "er", "pr")
    return any(
        word in _NORMAL_ANYWHERE and before not in _NEGATIONS and after != "pressure"
        for before, word, after in zip(["", *words], words, [*words[1:], ""], strict=False)
    )


# --- Masks.


def is_ground_truth(name: str) -> bool:
    """Tells whether a folder is named `ground_truth`, in any spelling."""
    return words_of(name) == (_GROUND_TRUTH,)


def suggests_ground_truth(name: str) -> bool:
    """Tells whether a name has a word for masks, or misspells `ground_truth`."""
    return has_mask_word(name) or is_misspelt("".join(words_of(name)), _GROUND_TRUTH)


def _is_mask_word(word: str) -> bool:
    return word in _MASK_WORDS or (word.endswith(_MASK_SUFFIXES) and word not in _NO_MASK_WORDS)


def has_mask_word(name: str) -> bool:
    """Tells whether a name has an unambiguous word for masks: `masks`, `labelsTr`, `x-seg`."""
    return any(map(_is_mask_word, words_of(name)))


def mask_words(name: str) -> list[str]:
    """Returns a name's words for masks in order, ambiguous ones such as `lesion` among them."""
    return [word for word in words_of(name) if _is_mask_word(word) or word in _AMBIGUOUS_WORDS]


def images_of_mask(name: str) -> frozenset[tuple[str, ...]]:
    """Returns the possible names of a mask's image, as words; `()` for an image of any name.

    They are the mask's name without all its mask words, without the last one, and without the first
    one: `mask_2` may mark image `2`, and `mask` any image.

    Args:
        name: name of the mask, without suffix.
    """
    words = words_of(name)
    strong = [index for index, word in enumerate(words) if _is_mask_word(word)]
    ambiguous = [index for index, word in enumerate(words) if word in _AMBIGUOUS_WORDS]
    if not strong and not ambiguous:
        return frozenset()
    every, best = sorted((*strong, *ambiguous)), strong or ambiguous
    images = set()
    for first, last in ((every[0], every[-1]), (best[-1], best[-1]), (best[0], best[0])):
        before, after = words[:first], words[last + 1 :]
        images.add(before + after)
        if before and all(word.isdigit() for word in after):
            images.add(before)
    return frozenset(images)


def is_named_as_mask(path: Path) -> bool:
    """Tells whether the name of a file ends with a word for masks: `x_mask`, `x-seg`, `x.gt 2`."""
    return _MASK_ENDING.search(stem(path)) is not None


def marked_by(path: Path) -> str:
    """Returns the stem of the image that a mask marks: its own, without `_mask` or the like."""
    return plain(_MASK_ENDING.sub("", stem(path)))
