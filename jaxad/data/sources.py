"""The splits of the data set that `config.data` names: opened, read and checked."""

import collections
import logging

import numpy as np
from ml_collections import ConfigDict

from jaxad.config.shape import data_shape
from jaxad.data import settings
from jaxad.data.data_sets import data_set_info
from jaxad.data.files.masks import check_coverage, list_ids
from jaxad.data.files.reading import (
    check_blank,
    describe_blank,
    describe_noise,
    describe_noise_for_run,
    describe_skipped,
)
from jaxad.data.files.splitting import SEVERAL_UNDER_ONE_NAME
from jaxad.data.files.unread import Unread, tell_unread
from jaxad.data.leaks import (
    TRAINING_SPLITS,
    check_images_apart,
    check_spelling,
    named_patients,
    without_duplicates,
)
from jaxad.data.openers import ReadOptions, open_splits
from jaxad.data.prepare.preprocess import are_constant, check_images
from jaxad.errors import UserError
from jaxad.runtime.progress import counted
from jaxad.storage.paths import is_undecodable, readable
from jaxad.types import Split, row_blocks

logger = logging.getLogger(__name__)


class DataSet:
    """The splits of one data set; each is read when it is first needed.

    Attributes:
        info: the data set's record.
        data: `config.data`, with the foreground that `auto` was decided to be.
        split_names: names of all splits; those that are neither `train` nor `val` are test splits.
        unread: for each folder of the user's, the files in it that are not read.
    """

    def __init__(self, data: ConfigDict, *, measure: bool = False):
        """Opens (and if needed generates) the data set that `config.data` names.

        With `measure`, the range of values in all files is found.

        Raises:
            UserError: there is no such data set, it is not where the config says, or objects
                cannot be rendered into the split that `config.data.natural_objects` names.
        """
        self.info = data_set_info(data.name)
        settings.check(data)
        data = data.copy_and_resolve_references().unlock()
        self._budget = settings.memory_budget(data)  # first, where every process arrives
        self.unread: list[Unread] = []
        self._measure = measure
        options = ReadOptions(measure=measure, on_unread=self.unread.append)
        self._readers = open_splits(data, options)
        self.data = data.lock()
        for name in self._readers:
            if is_undecodable(name):  # it becomes a folder, a heading and a key in JSON
                raise UserError(
                    f"{data.name}: the name of split '{readable(name)}' is not UTF-8; rename it."
                )
        for unread in self.unread:
            tell_unread(unread, is_strict=data.on_error == "raise")
        self._splits: dict[str, Split] = {}
        self._keeps_duplicates = data.duplicates == "keep"
        self._image_shape = data_shape(data)
        self.split_names = tuple(self._readers)

    @property
    def test_split_names(self) -> tuple[str, ...]:
        return tuple(name for name in self.split_names if name.startswith("test"))

    def check(self) -> None:
        """Reads and checks all splits, and that no patient is in two of them.

        If the user made the splits, it also checks that no image of `train` or `val` is in another
        split under any name, and that no patient is in two under different spellings.

        Raises:
            UserError: see `split`; or a patient or an image is in two splits.
        """
        splits = {name: self.split(name) for name in self.split_names}
        first_split: dict[str, str] = {}
        for name, split in splits.items():
            for group in sorted(set(split.groups)):
                first = first_split.setdefault(group, name)
                as_published = self.info.shares_patients and "test" in (first, name)
                if first != name and not as_published:
                    hint = f" {SEVERAL_UNDER_ONE_NAME}" if self.info.kind == "files" else ""
                    raise UserError(
                        f"{self.info.name}: patient '{group}' is in splits '{first}' and "
                        f"'{name}'; keep each patient in one split.{hint}"
                    )
        if self.info.is_users_own:
            check_spelling(self.info.name, splits)
            check_images_apart(self.info.name, splits)

    def describe_unknown_patients(self) -> str:
        """Returns a note if no patient of the user's training data is known; "" otherwise."""
        splits = [self.split(name) for name in TRAINING_SPLITS if name in self.split_names]
        if not self.info.is_users_own or any(map(named_patients, splits)):
            return ""
        unit, remedy = {
            "files": ("file", "set config.data.group_pattern or a column group of a table"),
            "npz": ("image", "give the .npz files an array group"),
            "external": ("image", "give Split.groups the names of patients"),
        }[self.info.kind]
        return (
            f"note: {self.info.name}: no patient is known: every {unit} counts as one; if patients "
            f"have several, {remedy}."
        )

    def split(self, name: str) -> Split:
        """Returns a split, checked.

        Raises:
            UserError: there is no such split, or it is unusable, see `check_split`; most of its
                images are blank, or most masks are inverted.
        """
        if name not in self._readers:
            raise UserError(
                f"{self.info.name} has no split '{name}'; choose from "
                f"{', '.join(self.split_names)}."
            )
        if name not in self._splits:
            source = f"{self.info.name} split '{name}'"
            split = self._readers[name]()
            if not self._measure:  # an inspection lists these files itself
                split = report_files(split, f"{self.info.name} {name}")
            if name in TRAINING_SPLITS and not self._keeps_duplicates:
                split = self._leave_out_duplicates(name, split)
            check_read_split(split, source, self._image_shape, normal=name in TRAINING_SPLITS)
            self._splits[name] = split
            self._warn_if_large()
        return self._splits[name]

    def _warn_if_large(self) -> None:
        """Warns once if the images in memory exceed `config.data.in_memory`.

        Only data in array_record files can stay on disk.
        """
        images = [split.images for split in self._splits.values()]
        size = sum(array.nbytes for array in images if isinstance(array, np.ndarray))
        if size <= self._budget or self.info.kind in ("generated", "published"):
            return
        logger.warning(
            f"warning: {self.info.name}: images take {size / 2**30:.3g} GiB of memory so far, and "
            f"config.data.in_memory allows {self._budget / 2**30:.3g} GiB; data of this kind "
            "cannot be read from disk at use (docs/data.md)."
        )
        self._budget = np.inf  # warned

    def add_split(self, name: str, split: Split) -> None:
        """Adds a checked split of another data set, which `split` returns from then on."""
        self._readers = {**self._readers, name: lambda: split}
        self._splits[name] = split

    def _leave_out_duplicates(self, name: str, split: Split) -> Split:
        """Leaves out images of `train` or `val` that are also in `val` or a test split, or repeat.

        Test splits stay whole, so that results on them are comparable.

        Raises:
            UserError: no image is left.
        """
        others = [*self.test_split_names, *(["val"] if name == "train" else [])]
        kept = without_duplicates(split, [self.split(other) for other in others])
        if not len(kept):
            raise UserError(
                f"{self.info.name}: every image of '{name}' is also in another split "
                f"({', '.join(others)}), and config.data.duplicates=leave_out leaves no image; "
                "check how the splits were made."
            )
        if count := len(split) - len(kept):
            logger.warning(
                f"note: {self.info.name} {name}: {counted(count, 'image')} left out as a copy "
                "of another one (config.data.duplicates=leave_out)."
            )
        return kept


def report_files(split: Split, source: str, *, for_run: bool = False) -> Split:
    """Returns the split after warning of skipped, blank and noisy files.

    With `for_run`, a trained run has fixed how the files are prepared, and no remedy changes that.
    """
    if (files := split.files) is not None:
        noise = (
            describe_noise_for_run(source, files.num_noisy, files.count)
            if for_run
            else describe_noise(source, files)
        )
        for line in (describe_skipped(source, files), describe_blank(source, files), noise):
            if line:
                logger.warning(line)
    return split


def check_read_split(
    split: Split, source: str, image_shape: tuple[int, int, int], *, normal: bool
) -> None:
    """Checks a split that was read, as `check_split` does, and its blank images and masks.

    Without `normal`, a note is logged if all labels are equal.

    Raises:
        UserError: see `check_split`; or most images are blank, or most masks are inverted.
    """
    if split.files is not None:
        check_blank(source, split.files)
    check_split(split, source, image_shape, normal=normal)
    if note := check_coverage(split, source):
        logger.warning(f"note: {source}: {note}")
    if not normal and (note := describe_one_class(split)):
        logger.warning(f"note: {source} {note}")


def describe_one_class(split: Split) -> str:
    """Returns that all images of a test split are normal, or all anomalous; "" if neither."""
    anomalous = int(split.labels.sum())
    if 0 < anomalous < len(split):
        return ""
    missing, others = ("normal", "anomalous") if anomalous else ("anomalous", "normal")
    return f"has no {missing} images: all {len(split):,} are {others}."


def check_split(
    split: Split,
    source: str,
    image_shape: tuple[int, int, int],
    *,
    normal: bool,
    remedy: str = "move it to a test split or leave it out",
) -> None:
    """Checks the images, the ids and the labels of a split; with `normal`, all must be normal.

    `remedy` ends the message about an anomalous image.

    Raises:
        UserError: the split is empty; an image is constant, of another shape or out of range; an id
            appears twice; or an image is anomalous that must not be.
    """
    if not len(split):
        raise UserError(f"{source}: holds no images; add some.")
    constant: list[str] = []
    for rows in row_blocks(split.images):
        images, ids = split.images[rows], split.ids[rows]
        check_images(images, ids, image_shape, source)
        constant += [ids[place] for place in np.flatnonzero(are_constant(images))]
    if constant:
        verb = "is" if len(constant) == 1 else "are"
        raise UserError(
            f"{source}: {list_ids(constant)} {verb} constant: every pixel has the same value; "
            "leave out such images."
        )
    if len(set(split.ids)) != len(split):
        first = collections.Counter(split.ids).most_common(1)[0][0]
        raise UserError(f"{source}: id '{first}' appears twice; give every image its own.")
    if normal and split.labels.any():
        first = split.ids[int(np.argmax(split.labels))]
        raise UserError(
            f"{source}: image '{first}' is labelled anomalous; only normal images are used for "
            f"training and calibration; {remedy}."
        )
