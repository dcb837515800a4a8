"""Data sets by name: where the splits of `config.data` come from."""

import dataclasses
import difflib
import functools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ml_collections import ConfigDict

from jaxad.data import settings
from jaxad.data.files.folders import read_folder
from jaxad.data.files.formats import KINDS
from jaxad.data.files.items import files_of
from jaxad.data.files.masks import check_coverage, list_ids
from jaxad.data.files.names import is_table
from jaxad.data.files.npz import npz_readers
from jaxad.data.files.places import passed_over
from jaxad.data.files.reading import describe_skipped, read_split
from jaxad.data.files.splitting import SEVERAL_UNDER_ONE_NAME
from jaxad.data.files.tables import read_table
from jaxad.data.files.tree import check_not_hidden, files_in
from jaxad.data.files.unread import Unread, find_unread, tell_unread
from jaxad.data.leaks import check_images_apart, check_spelling
from jaxad.data.prepare.preprocess import are_constant, check_images
from jaxad.data.settings import TFDS
from jaxad.data.synthetic.natural_objects import render_natural_objects
from jaxad.errors import UserError
from jaxad.storage.paths import expand, is_undecodable, readable
from jaxad.types import Split

if TYPE_CHECKING:  # it imports TensorFlow, which takes seconds
    from jaxad.data.published.manual import ManualBuilder

logger = logging.getLogger(__name__)

#: How to read each split of a data set, by the split's name.
Readers = Mapping[str, Callable[[], Split]]


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """What is wanted of a data set beside what `config.data` says.

    Attributes:
        measure: whether the range of values in all files is told, which takes time.
        test_only: whether every patient is tested, where that is for us to say.
        tell: takes the files of a folder that are not read.
    """

    measure: bool = False
    test_only: bool = False
    tell: Callable[[Unread], None] = lambda _: None


def _icbm_synth(data: ConfigDict, _: ReadOptions) -> Readers:
    """The embedded semi-synthetic brains; generated on first use, then read from the cache."""
    # TensorFlow is imported only where data is read: it takes seconds.
    from jaxad.data.synthetic.icbm_synth import IcbmSynth, make_config
    from jaxad.data.tfds import splits as tfds_splits

    builder_config = make_config(
        image_size=data.image_size, seed=data.seed, num_subjects=tuple(data.num_subjects)
    )
    return tfds_splits.open_builder(IcbmSynth, builder_config, data.root)


def _npz(data: ConfigDict, options: ReadOptions) -> Readers:
    root = expand(data.root or ".", "config.data.root")
    readers = npz_readers(root)
    options.tell(find_unread(root, "npz", files_in(root, ".npz")))
    return readers


def _own_files(data: ConfigDict, options: ReadOptions) -> Readers:
    """A folder or a table of the user's, read anew each time."""
    root, kind = _root(data, "your images or scans"), KINDS[data.name]
    check_not_hidden(root)
    reading = dataclasses.replace(settings.reading(data, kind), measure=options.measure)
    splitting = settings.splitting(data)
    splits = (read_table if is_table(root) else read_folder)(root, kind, splitting)
    if not is_table(root):
        options.tell(find_unread(root, kind, files_of(splits.values()), passed_over(root)))
    return {
        name: functools.partial(read_split, items, reading, f"{data.name} {name}")
        for name, items in splits.items()
    }


def _root(data: ConfigDict, what: str) -> Path:
    if not data.root:
        raise UserError(f"config.data.root: missing; name the folder of {what}. See docs/data.md.")
    return expand(data.root, "config.data.root")


def published(name: str) -> "type[ManualBuilder]":
    """The builder of a published data set."""
    from jaxad.data.published import brats, hcp, isic2018, kermany, miic

    return {
        "hcp": hcp.Hcp,
        "brats2017": brats.Brats2017,
        "brats2021": brats.Brats2021,
        "oct2017": kermany.Oct2017,
        "chestxray": kermany.Chestxray,
        "isic2018": isic2018.Isic2018,
        "miic": miic.Miic,
    }[name]


def _published(data: ConfigDict, options: ReadOptions) -> Readers:
    """A data set of the papers: the user's files, read once, then from the cache of TFDS."""
    from jaxad.data.published.manual import Choices, config_for
    from jaxad.data.tfds import splits as tfds_splits

    builder = published(data.name)
    instructions = " ".join((builder.MANUAL_DOWNLOAD_INSTRUCTIONS or "").split())
    if not data.root:
        raise UserError(f"config.data.root: {data.name} needs files of your own. {instructions}")
    root = expand(data.root, "config.data.root")
    if not root.is_dir():
        raise UserError(f"config.data.root '{root}': no such folder. {instructions}")
    choices = Choices(
        preparation=settings.preparation(data),
        cutting=settings.cutting(data),
        splitting=settings.splitting(data),
        on_error=data.on_error,
        modality=data.modality,
        regroup=data.regroup,
        check_sizes=data.check_sizes,
        test_only=options.test_only,
    )
    readers = tfds_splits.open_builder(builder, config_for(builder, root, choices), "", root)
    if data.on_error == "skip":
        return readers
    return {name: functools.partial(_complete, read) for name, read in readers.items()}


def _complete(read: Callable[[], Split]) -> Split:
    """A split of which no file was skipped when it was read for the cache, with `skip`."""
    split = read()
    if split.files is not None and split.files.skipped:
        raise UserError(
            f"{len(split.files.skipped)} files cannot be used; the first: {split.files.skipped[0]} "
            "Or leave them out with config.data.on_error=skip."
        )
    return split


def _any_tfds(data: ConfigDict, _: ReadOptions) -> Readers:
    """A data set of TensorFlow Datasets with labels: some classes are normal."""
    from jaxad.data.tfds import labels

    classes = labels.Classes(tuple(data.normal_classes), tuple(data.anomalous_classes))
    return labels.open_labelled(
        data.name.removeprefix(TFDS),
        data.root,
        classes,
        settings.preparation(data),
        settings.splitting(data),
    )


DATA_SETS: Mapping[str, Callable[[ConfigDict, ReadOptions], Readers]] = {
    "icbm_synth": _icbm_synth,
    "npz": _npz,
    **dict.fromkeys(("folder", "nifti", "dicom"), _own_files),
    **dict.fromkeys(
        ("hcp", "brats2017", "brats2021", "oct2017", "chestxray", "isic2018", "miic"), _published
    ),
}


def is_published(name: str) -> bool:
    """Whether a data set is one of the papers'."""
    return DATA_SETS.get(name) is _published


def is_of_files(name: str) -> bool:
    """Whether a data set is the user's images or scans, whose paths may name patients."""
    return name in KINDS and not is_published(name)


def is_own(name: str) -> bool:
    """Whether a data set is the user's, whose splits nobody has published."""
    return name == "npz" or is_of_files(name)


def _open(data: ConfigDict, options: ReadOptions) -> Readers:
    """The readers of the data set that the config names.

    Raises:
        UserError: there is none of this name, or it is not where the config says.
    """
    if data.name.startswith(TFDS):
        return _any_tfds(data, options)
    if data.name not in DATA_SETS:
        close = difflib.get_close_matches(data.name, DATA_SETS, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else "."
        raise UserError(
            f"config.data.name: unknown data set '{data.name}'{hint} "
            f"Known: {', '.join(sorted((*DATA_SETS, f'{TFDS}<name>')))}."
        )
    return DATA_SETS[data.name](data, options)


def told(split: Split, name: str) -> Split:
    """The split, what was skipped of it told on stderr."""
    if split.files is not None and split.files.skipped:
        logger.warning(describe_skipped(name, split.files))
    return split


def _other_tests(data: ConfigDict, options: ReadOptions) -> Readers:
    """The test splits of `config.data.test`, named after it."""
    own = data.copy_and_resolve_references().unlock()
    own.name, own.root, own.natural_objects = data.test.name, data.test.root, ""
    try:
        readers = _open(own, dataclasses.replace(options, test_only=True))
    except UserError as error:
        told = str(error).replace("config.data.name", "config.data.test.name")
        told = told.replace("config.data.root", "config.data.test.root")
        raise UserError(told) from error
    prefix = own.name.removeprefix(TFDS)
    tests = {
        f"test_{prefix}{name.removeprefix('test')}": functools.partial(_as_other, read, prefix)
        for name, read in readers.items()
        if name.startswith("test")
    }
    if not tests:
        raise UserError(f"config.data.test: {own.name} has no test split.")
    return tests


def _as_other(read: Callable[[], Split], name: str) -> Split:
    """A split of another data set: other patients, and slices that are counted otherwise."""
    split = read()
    groups = tuple(f"{name}:{group}" for group in split.groups)
    unnamed = frozenset(f"{name}:{group}" for group in split.unnamed)
    return dataclasses.replace(split, groups=groups, unnamed=unnamed, positions=None)


#: Data sets with natural objects of their own: the split that they are rendered into.
_RENDERED = {"hcp": "test_normal"}


def _with_natural_objects(readers: Readers, data: ConfigDict) -> Readers:
    """The readers, that of `config.data.natural_objects` replaced by one of `test_objects`."""
    source, rendered = data.natural_objects or _RENDERED[data.name], "test_objects"
    if source not in readers:
        raise UserError(
            f"config.data.natural_objects: {data.name} has no split '{source}', only "
            f"{', '.join(readers)}."
        )
    if not source.startswith("test"):
        raise UserError(
            f"config.data.natural_objects: split '{source}' is learnt from; name a test split of "
            "other normal images."
        )
    if rendered in readers and source != rendered:
        raise UserError(
            f"config.data.natural_objects: '{source}' would become '{rendered}', which "
            f"{data.name} has already; rename or remove that one."
        )

    def render() -> Split:
        return render_natural_objects(readers[source](), seed=data.seed)

    others = {name: read for name, read in readers.items() if name != source}
    return {**others, rendered: render}


class DataSet:
    """The splits of one data set; each is read when it is first asked for.

    Attributes:
        split_names: every split; those that are neither `train` nor `val` are test splits.
        unread: of each folder of the user's own, the files that are not read.
    """

    def __init__(self, data: ConfigDict, *, measure: bool = False):
        """Opens (and where needed generates) the data set that `config.data` names.

        Args:
            data: `config.data`.
            measure: whether splits tell the range of values in all their files.

        Raises:
            UserError: there is no such data set, it is not where the config says, or objects
                cannot be rendered into the split that `config.data.natural_objects` names.
        """
        self._name = data.name
        settings.reading(data, "image")  # says what is wrong with a field, used or not
        settings.check_used(data)
        self.unread: list[Unread] = []
        options = ReadOptions(measure=measure, tell=self.unread.append)
        self._readers = _open(data, options)
        if data.natural_objects or data.name in _RENDERED:
            self._readers = _with_natural_objects(self._readers, data)
        if data.test.name:
            others = _other_tests(data, options)
            for name in others:
                if name in self._readers:
                    raise UserError(
                        f"config.data.test: '{name}' would replace a split of {data.name}; rename "
                        "that one."
                    )
            self._readers = {**self._readers, **others}
        elif data.test.root:
            raise UserError("config.data.test.root: names no data set; set config.data.test.name.")
        for name in self._readers:
            if is_undecodable(name):  # it becomes a folder, a heading and a key in JSON
                raise UserError(
                    f"{data.name}: the name of split '{readable(name)}' is not UTF-8; rename it."
                )
        for unread in self.unread:
            tell_unread(unread, is_strict=data.on_error == "raise")
        self._may_share = is_published(data.name) and published(data.name).SHARES_PATIENTS
        self._splits: dict[str, Split] = {}
        self._image_shape = (int(data.image_size), int(data.image_size), int(data.channels))
        self.split_names = tuple(self._readers)

    @property
    def test_split_names(self) -> tuple[str, ...]:
        return tuple(name for name in self.split_names if name.startswith("test"))

    def check(self) -> None:
        """Reads and checks every split, and that no patient is in two of them.

        Of the user's own data also that no image that is learnt from is in another split, under
        whatever name, and that no patient is, spelt in another way.

        Raises:
            UserError: see `split`; or a patient or an image of one split is in another.
        """
        owner: dict[str, str] = {}
        for name in self.split_names:
            for group in set(self.split(name).groups):
                first = owner.setdefault(group, name)
                as_published = self._may_share and "test" in (first, name)
                if first != name and not as_published:
                    hint = f" {SEVERAL_UNDER_ONE_NAME}" if is_of_files(self._name) else ""
                    raise UserError(
                        f"{self._name}: patient '{group}' is in splits '{first}' and "
                        f"'{name}'; keep each patient in one split.{hint}"
                    )

        if is_own(self._name):
            splits = {name: self.split(name) for name in self.split_names}
            check_spelling(self._name, splits)
            check_images_apart(self._name, splits)

    def split(self, name: str) -> Split:
        """The split of this name, checked.

        Raises:
            UserError: no such split, it is empty, an image is unusable (named by its id), an id
                appears twice, the images to learn from hold an anomalous one, or masks are
                inverted.
        """
        if name not in self._readers:
            raise UserError(f"split '{name}': {self._name} has {', '.join(self.split_names)}.")
        if name not in self._splits:
            split = told(self._readers[name](), f"{self._name} {name}")
            check_split(
                split, f"{self._name} split '{name}'", self._image_shape,
                normal=name in ("train", "val"),
            )  # fmt: skip
            self._tell_coverage(split, name)
            self._splits[name] = split
        return self._splits[name]

    def _tell_coverage(self, split: Split, name: str) -> None:
        """Tells what is suspicious of a split's masks; raises where they are inverted."""
        if note := check_coverage(split, f"{self._name} split '{name}'"):
            logger.warning(f"note: {self._name} {name}: {note}")


def check_split(
    split: Split, source: str, image_shape: tuple[int, int, int], *, normal: bool
) -> None:
    """Raises a UserError for the first thing that is wrong with a split."""
    if not len(split):
        raise UserError(f"{source}: holds no images.")
    check_images(split.images, split.ids, image_shape, source)
    if constant := [split.ids[place] for place in np.flatnonzero(are_constant(split.images))]:
        verb = "is" if len(constant) == 1 else "are"
        raise UserError(
            f"{source}: {list_ids(constant)} {verb} constant, every pixel has one value; leave "
            "out what shows nothing."
        )
    if len(set(split.ids)) != len(split):
        first = next(i for n, i in enumerate(split.ids) if i in split.ids[:n])
        raise UserError(f"{source}: id '{first}' appears twice; give every image its own.")
    if normal and split.labels.any():
        first = split.ids[int(np.argmax(split.labels))]
        raise UserError(
            f"{source}: image '{first}' is labelled anomalous; only normal images are learnt "
            "from and calibrated on, move it to a test split or leave it out."
        )
