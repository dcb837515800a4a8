"""Splits by patient: which patients are in `train`, `val` and `test` if the data do not say."""

import dataclasses
import difflib
import hashlib
import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from jaxad.data.files.items import Item
from jaxad.data.files.names import NORMAL_WORDS, folded, misspelt_normal, suggests_normal
from jaxad.data.readers import dicom
from jaxad.errors import UserError

#: A remedy for too few patients, or for a patient in two splits.
SEVERAL_UNDER_ONE_NAME = (
    "If one name stands for several patients, as PatientID may in anonymised DICOM files, find "
    "them in the paths of the files with config.data.group_pattern."
)

#: Number of classes that a message lists.
_NUM_LISTED = 8


@dataclasses.dataclass(frozen=True)
class Splitting:
    """How files are assigned to patients, classes and splits; see `config.data`."""

    val_share: float = 0.1  # share of the patients in `train` that moves to `val`
    test_share: float = 0.2  # share of the patients without an anomaly that moves to `test`
    seed: int = 0  # the seed of the draw
    #: a regular expression that finds the patient in a file's path below the root (its first group,
    #: if it has one); "": every file is its own patient
    group_pattern: str = ""
    #: the flag that sets `group_pattern`, for messages
    flag: str = "config.data.group_pattern"
    #: what to do about a file in which `group_pattern` finds no patient, for messages
    remedy: str = "change it so that every file has one"
    #: whether such a file is its own patient instead of an error
    allows_unmatched: bool = False
    #: names of folders or labels that are normal; empty: `NORMAL_WORDS`
    normal_classes: tuple[str, ...] = ()
    #: whether `normal_classes` was set for several data sets, so that one may lack some of them
    shares_classes: bool = False
    #: whether `normal_classes` is that of another data set, so that a flag replaces it for this one
    inherits_classes: bool = False

    def __post_init__(self) -> None:
        try:
            re.compile(self.group_pattern)
        except re.error as error:
            raise UserError(
                f"{self.flag}: '{self.group_pattern}' is not a valid regular expression ({error})."
            ) from error

    def patient_of(self, path: Path, place: str) -> str:
        """Returns the patient of a file, or of a DICOM series whose files name one.

        Without a pattern or a name, a file at `place` below the root is its own patient.

        Raises:
            UserError: the pattern does not match the place, and `allows_unmatched` is False.
        """
        if not self.group_pattern:
            return (dicom.patient_of(path) if path.is_dir() else "") or place
        match = re.search(self.group_pattern, place)
        if match is None:
            if self.allows_unmatched:
                return place
            raise UserError(
                f"{self.flag}: '{self.group_pattern}' finds no patient in '{place}'; {self.remedy}."
            )
        return match[1] if match.re.groups and match[1] is not None else match[0]

    @property
    def normal_words(self) -> tuple[str, ...]:
        """Names of normal folders and labels."""
        return self.normal_classes or NORMAL_WORDS

    def is_normal(self, name: str) -> bool:
        """Tells whether a folder or a label of this name is normal, in any letter case."""
        return folded(name) in map(folded, self.normal_words)

    def check_listed(self, classes: Collection[str], source: str, noun: str) -> None:
        """Raises a UserError if `config.data.normal_classes` lists a class that does not exist.

        Args:
            classes: the names of the classes of a data set.
            source: where they are, for the message.
            noun: what they are, for the message: `folder` or `label`.
        """
        known = {folded(name): name for name in (*NORMAL_WORDS, *classes)}
        absent = [name for name in self.normal_classes if folded(name) not in known]
        if self.shares_classes or not absent:
            return
        close = difflib.get_close_matches(folded(absent[0]), map(folded, classes), n=1)
        hint = f"did you mean '{known[close[0]]}'?" if close else "correct or remove the name."
        listed = ", ".join(sorted(classes)[:_NUM_LISTED]) + ", ..." * (len(classes) > _NUM_LISTED)
        raise UserError(
            f"config.data.normal_classes: '{absent[0]}' names no {noun} of a class in '{source}', "
            f"which has {listed or 'none'}; {hint}"
        )

    def check_class(self, name: str, source: str, classes: Collection[str]) -> None:
        """Raises a UserError if a class that is not listed as normal is named like normal images.

        So do names that misspell those of normal images. If `config.data.normal_classes` is set,
        all names are clear except those that are normal without it.

        Args:
            name: the name of the class.
            source: the folder or the label, for the message.
            classes: the names of all classes of the data set.
        """
        if self.is_normal(name):
            return
        if self.normal_classes:
            if folded(name) in NORMAL_WORDS:
                known = {folded(other) for other in classes}
                listed = [
                    other
                    for other in self.normal_classes
                    if not self.inherits_classes or folded(other) in known
                ]
                raise UserError(
                    f"{source}: is named like normal images, but would be read as anomalous, as "
                    f"the normal classes are {', '.join(self.normal_classes)}; set --config.data."
                    f"normal_classes={shlex.quote(','.join((*listed, name)))}, or, if it is "
                    "anomalous, rename it."
                )
            return
        is_anomalous = f"if it is anomalous, set config.data.normal_classes={NORMAL_WORDS}."
        if suggests_normal(name):
            listing = (*NORMAL_WORDS, name)
            raise UserError(
                f"{source}: is named like normal images, but would be read as anomalous; rename it "
                f"to {NORMAL_WORDS[0]}, or list what is normal, "
                f"config.data.normal_classes={listing}; or, {is_anomalous}"
            )
        if meant := misspelt_normal(name):
            raise UserError(
                f"{source}: would be read as anomalous; did you mean '{meant}'? Rename it, or, "
                f"{is_anomalous}"
            )


def pick(keys: Iterable[str], shares: Sequence[float], seed: int) -> list[set[str]]:
    """Draws disjoint subsets of names, whose sizes are shares of all names.

    The draw depends on the names and the seed, not on their order.

    Returns:
        A set per share, with at least one name if the share is above 0 and names are left, and
        the set of remaining names.
    """

    def draw(key: str) -> bytes:
        return hashlib.blake2b(f"{seed}:{key}".encode(errors="surrogateescape")).digest()

    order = sorted(set(keys), key=draw)
    total, parts = len(order), []
    for share in shares:
        count = max(int(share > 0), round(total * share))
        parts.append(set(order[:count]))
        order = order[count:]
    return [*parts, set(order)]


def with_val(splits: Mapping[str, list[Item]], splitting: Splitting) -> dict[str, list[Item]]:
    """Returns the splits with a share of the patients of `train` moved to `val`.

    Raises:
        UserError: there are too few patients.
    """
    groups = {item.group for item in splits["train"]}
    if len(groups) < 2:
        raise UserError(
            "split 'train' has only one patient; give at least two, so that one can move to 'val'. "
            f"{SEVERAL_UNDER_ONE_NAME}"
        )
    val, train = pick(groups, (splitting.val_share,), splitting.seed)
    if not train:
        raise UserError(
            f"config.data.val_share: {splitting.val_share} of {len(groups)} patients leaves none "
            "to train on; make it smaller."
        )
    parts = _by_group(splits["train"], {"train": train, "val": val})
    return {**parts, **{name: items for name, items in splits.items() if name != "train"}}


def draw_splits(items: Sequence[Item], splitting: Splitting) -> dict[str, list[Item]]:
    """Draws splits: patients with an anomaly go to `test`, the others are drawn by shares.

    Raises:
        UserError: there are too few normal patients.
    """
    anomalous = {item.group for item in items if item.label != 0}
    normal = {item.group for item in items} - anomalous
    classes = splitting.normal_classes
    hint = f" (config.data.normal_classes={classes})" if classes else ""
    if len(normal) < 3:
        raise UserError(
            f"{len(normal)} patients are normal{hint}; at least three are needed, one each to "
            "train, validate and test. Add some, or give the split of each file. "
            f"{SEVERAL_UNDER_ONE_NAME}"
        )
    test, val, train = pick(normal, (splitting.test_share, splitting.val_share), splitting.seed)
    if not train:
        raise UserError(
            f"config.data.val_share and test_share: {splitting.val_share} and "
            f"{splitting.test_share} of {len(normal)} patients leave none to train on; make them "
            "smaller."
        )
    return _by_group(items, {"train": train, "val": val, "test": anomalous | test})


def _by_group(items: Sequence[Item], groups: Mapping[str, set[str]]) -> dict[str, list[Item]]:
    """Returns the items of each split, given its groups."""
    return {
        name: [
            dataclasses.replace(item, is_drawn=name in ("val", "test"))
            for item in items
            if item.group in members
        ]
        for name, members in groups.items()
    }
