"""Opens each kind of data set: finds its splits, which are read when they are first needed."""

import dataclasses
import functools
import itertools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from jaxad.data import settings
from jaxad.data.data_sets import Readers, data_set_info, users_of
from jaxad.data.external import open_external
from jaxad.data.files.folders import read_folder
from jaxad.data.files.formats import FORMATS
from jaxad.data.files.items import Item, Reading, files_of
from jaxad.data.files.names import is_table
from jaxad.data.files.npz import npz_readers
from jaxad.data.files.places import passed_over
from jaxad.data.files.reading import read_split
from jaxad.data.files.tables import read_table
from jaxad.data.files.tree import check_not_hidden, describe_missing, files_in
from jaxad.data.files.unread import Unread, find_unread
from jaxad.data.foreground import choose_foreground
from jaxad.data.leaks import linked_patients
from jaxad.data.readers.checks import is_hidden
from jaxad.data.synthetic.natural_objects import render_natural_objects
from jaxad.errors import UserError
from jaxad.runtime.progress import counted
from jaxad.storage.buckets import is_url
from jaxad.storage.locations import locate_data
from jaxad.storage.paths import expand
from jaxad.types import Split

logger = logging.getLogger(__name__)

#: Suffixes of files that a folder of TFDS's does not have.
_SUFFIXES_OF_USERS = (
    ".csv", ".tsv", ".xlsx", ".zip", ".tar", ".tgz",
    *filter(None, itertools.chain.from_iterable(formats.suffixes for formats in FORMATS.values())),
)  # fmt: skip

#: Number of folders that are searched for files of a user.
_NUM_SEARCHED = 1000


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """Options for opening a data set that are not part of `config.data`."""

    measure: bool = False  # whether to find the range of values in all files, which takes time
    #: whether only test splits are needed: `train` and `val` may be missing and are not drawn
    test_only: bool = False
    #: how files of the user's are read; None: as `config.data` says
    reading: Reading | None = None
    #: whether `config.data.normal_classes` is that of another data set
    inherits_classes: bool = False
    #: called with the files of a folder that are not read
    on_unread: Callable[[Unread], None] = lambda _: None
    #: called with the number of the user's files in each split, before they are read
    on_listed: Callable[[Mapping[str, int]], None] = lambda _: None


# --- One function for each kind of data set. TensorFlow is imported inside: it takes seconds.


def _check_tfds_root(data: ConfigDict) -> None:
    """Raises a UserError if the root of data that TFDS keeps is a file or holds a user's files."""
    if not data.root:
        return
    is_remote = is_url(data.root)
    root = Path(data.root) if is_remote else expand(data.root, "config.data.root")
    problem = ""
    if root.name.lower().endswith(_SUFFIXES_OF_USERS) and (is_remote or not root.is_dir()):
        problem = "is named like a file"
    elif not is_remote and root.is_file():
        problem = "is a file"
    elif not is_remote and (first := _find_users_file(root)):
        problem = f"holds '{first}'"
    if problem:
        raise UserError(
            f"config.data.root '{data.root}': {problem}, but config.data.name is '{data.name}', "
            "which reads no files of yours: its root is a data folder of TFDS. Set "
            f"--config.data.name: {', '.join(users_of(('files',)))} read folders and tables, npz "
            "reads arrays. Or leave out config.data.root."
        )


def _find_users_file(root: Path) -> Path | None:
    """Returns an image, a scan, an array or a table in a folder without data of TFDS, or None.

    In a large tree only some of the folders are searched.
    """
    first = None
    for folder, folders, files in itertools.islice(os.walk(root), _NUM_SEARCHED):
        if "dataset_info.json" in files:  # TFDS wrote it
            return None
        folders[:] = sorted(name for name in folders if not is_hidden(name) and name != "downloads")
        names = sorted(
            n for n in files if not is_hidden(n) and n.lower().endswith(_SUFFIXES_OF_USERS)
        )
        if first is None and names:
            first = Path(folder, names[0]).relative_to(root)
    return first


def _open_generated(data: ConfigDict, _: ReadOptions) -> Readers:
    """Opens `icbm_synth`, which is generated on first use and then read from the cache."""
    _check_tfds_root(data)
    from jaxad.data.synthetic.icbm_synth import IcbmSynth, make_config
    from jaxad.data.tfds import splits as tfds_splits

    builder_config = make_config(
        image_size=data.image_size, seed=data.seed, num_subjects=tuple(data.num_subjects)
    )
    return tfds_splits.open_builder(
        IcbmSynth, builder_config, data.root, budget=settings.memory_budget(data)
    )


def _locate(root: str) -> Path:
    """Returns the path of a user's data; raises a UserError if there is nothing."""
    path = locate_data(root, "config.data.root")
    if not path.exists():
        missing = describe_missing(path, "--config.data.root")
        raise UserError(f"config.data.root '{path}': {missing}")
    return path


def _open_npz(data: ConfigDict, options: ReadOptions) -> Readers:
    root = _locate(data.root or ".")
    readers = npz_readers(root, test_only=options.test_only)
    if root.is_dir():
        options.on_unread(find_unread(root, "npz", files_in(root, ".npz")))
    return readers


def _open_files(data: ConfigDict, options: ReadOptions) -> Readers:
    """Opens a folder or a table of the user's files, which are read each time.

    If the foreground is `auto`, it is decided, and `data` changes.
    """
    if not data.root:
        raise UserError(
            "config.data.root: missing; name the folder of your images or scans. See docs/data.md."
        )
    root, info = _locate(data.root), data_set_info(data.name)
    file_format = info.format_of_files
    check_not_hidden(root)
    reading = options.reading or settings.reading(data, file_format)
    reading = dataclasses.replace(reading, measure=options.measure)
    splitting = settings.splitting(data)
    if options.inherits_classes:
        splitting = dataclasses.replace(splitting, shares_classes=True, inherits_classes=True)
    if is_table(root):
        splits = read_table(
            root, file_format, splitting,
            allow_outside_root=data.allow_outside_root, test_only=options.test_only,
        )  # fmt: skip
    else:
        splits = read_folder(root, file_format, splitting, test_only=options.test_only)
        used = files_of(splits.values())
        options.on_unread(find_unread(root, file_format, used, passed_over(root, used)))
    options.on_listed({name: len(items) for name, items in splits.items()})
    is_undecided = data.preprocess.foreground == "auto" and options.reading is None
    if is_undecided and settings.normalises(data):
        data.preprocess.foreground = choose_foreground(splits["train"], reading)
        reading = dataclasses.replace(reading, preparation=settings.preparation(data))

    def read(items: Sequence[Item], name: str) -> Split:
        return read_split(items, reading, f"{data.name} {name}", f"{root}")

    readers: dict[str, Callable[[], Split]] = {
        name: functools.partial(read, items, name) for name, items in splits.items()
    }
    drawn = [name for name in ("val", "test") if any(i.is_drawn for i in splits.get(name, ()))]
    if data.duplicates == "keep" and drawn:
        drawn = ["train", *drawn]

        @functools.cache
        def read_drawn() -> dict[str, Split]:
            return _keep_together({name: splits[name] for name in drawn}, read)

        readers |= {name: functools.partial(lambda n: read_drawn()[n], name) for name in drawn}
    return readers


#: Splits that patients move to, and splits that they leave, in the order of the attempts. `test`
#: gives none away: its patients with an anomaly cannot move.
_MOVES = (("test", ("train", "val")), ("train", ("val",)), ("val", ("train",)))


def _keep_together(
    drawn: Mapping[str, list[Item]], read: Callable[[Sequence[Item], str], Split]
) -> dict[str, Split]:
    """Reads drawn splits, and moves patients who share an image with another one.

    Those of `train` and `val` move to a drawn `test`. Those of `val` move to `train`, or the other
    way round if more than half of `val` would move. No split loses more than half of its images:
    such patients stay, and `DataSet.check` refuses the splits.
    """
    items = dict(drawn)
    splits = {name: read(items[name], name) for name in items}
    for target, sources in _MOVES:
        if target not in items:
            continue
        linked = linked_patients(splits[target], *(splits[name] for name in sources))
        if not linked:
            continue
        kept = {
            name: [item for item in items[name] if item.group not in linked] for name in sources
        }
        if any(2 * len(kept[name]) < len(items[name]) for name in sources):
            continue
        left = [name for name in sources if len(kept[name]) < len(items[name])]
        logger.info(
            f"note: moved {counted(len(linked), 'patient')} drawn for {' and '.join(left)} to "
            f"{target}, which has some of the same images, such as '{min(linked)}'."
        )
        moved = [item for name in left for item in items[name] if item.group in linked]
        items |= {**kept, target: [*items[target], *moved]}
        splits.clear()  # their memory may be needed
        splits |= {name: read(items[name], name) for name in items}
    return splits


def _open_published(data: ConfigDict, options: ReadOptions) -> Readers:
    """Opens a published data set: files are read once, then images come from the TFDS cache."""
    from jaxad.data.published.manual import Choices, config_for
    from jaxad.data.tfds import splits as tfds_splits

    builder = data_set_info(data.name).load_builder()
    instructions = " ".join((builder.MANUAL_DOWNLOAD_INSTRUCTIONS or "").split())
    if not data.root:
        raise UserError(
            f"config.data.root: {data.name} needs files that you download. {instructions}"
        )
    root = locate_data(data.root, "config.data.root")
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
    readers = tfds_splits.open_builder(
        builder, config_for(builder, root, choices), "", root, budget=settings.memory_budget(data)
    )
    if data.on_error == "skip":
        return readers
    return {name: functools.partial(_read_complete, read) for name, read in readers.items()}


def _read_complete(read: Callable[[], Split]) -> Split:
    """Reads a split; refuses one that was cached without some bad files (`on_error=skip`)."""
    split = read()
    if split.files is not None and split.files.skipped:
        raise UserError(
            f"{counted(len(split.files.skipped), 'file')} cannot be used; the first: "
            f"{split.files.skipped[0]} Or leave them out with config.data.on_error=skip."
        )
    return split


def _open_tfds(data: ConfigDict, _: ReadOptions) -> Readers:
    from jaxad.data.tfds import labels

    _check_tfds_root(data)
    return labels.open_labelled(data)


_OPENERS: Mapping[str, Callable[[ConfigDict, ReadOptions], Readers]] = {
    "generated": _open_generated,
    "npz": _open_npz,
    "files": _open_files,
    "published": _open_published,
    "tfds": _open_tfds,
    "external": lambda data, options: open_external(data, test_only=options.test_only),
}


def open_readers(data: ConfigDict, options: ReadOptions) -> Readers:
    """Opens the data set that `config.data.name` names, without `config.data.test`.

    Raises:
        UserError: the data are not where the config says.
    """
    return _OPENERS[data_set_info(data.name).kind](data, options)


# --- Splits that are made from others.


def _open_tests(data: ConfigDict, options: ReadOptions) -> Readers:
    """Opens the test splits of `config.data.test`, renamed to `test_<data set>...`."""
    test = data.copy_and_resolve_references().unlock()
    test.name, test.root, test.natural_objects = data.test.name, data.test.root, ""
    if test.preprocess.foreground == "auto":  # training data decide, and these do not
        test.preprocess.foreground = "nonzero"
    info = data_set_info(test.name, "config.data.test.name")
    try:
        readers = open_readers(test, dataclasses.replace(options, test_only=True))
    except UserError as error:
        message = str(error).replace("config.data.name", "config.data.test.name")
        message = message.replace("config.data.root", "config.data.test.root")
        raise UserError(message) from error
    tests = {
        f"test_{info.short_name}{name.removeprefix('test')}": functools.partial(
            _read_other, read, info.short_name
        )
        for name, read in readers.items()
        if name.startswith("test")
    }
    if not tests:
        raise UserError(f"config.data.test: {test.name} has no test split; name another data set.")
    return tests


def _read_other(read: Callable[[], Split], name: str) -> Split:
    """Reads a split of another data set: its patients get a prefix, and it loses its positions.

    Slices of two data sets are counted differently.
    """
    split = read()
    groups = tuple(f"{name}:{group}" for group in split.groups)
    unnamed = frozenset(f"{name}:{group}" for group in split.unnamed)
    return dataclasses.replace(split, groups=groups, unnamed=unnamed, positions=None)


def _render_into(readers: Readers, source: str, data: ConfigDict) -> Readers:
    """Replaces the split `source` by `test_objects`, the same with natural objects."""
    if source not in readers:
        raise UserError(
            f"config.data.natural_objects: {data.name} has no split '{source}'; choose from "
            f"{', '.join(readers)}."
        )
    if not source.startswith("test"):
        raise UserError(
            f"config.data.natural_objects: split '{source}' is used for training; name a test "
            "split of other normal images."
        )
    if "test_objects" in readers and source != "test_objects":
        raise UserError(
            f"config.data.natural_objects: '{source}' would become 'test_objects', a split that "
            f"{data.name} already has; rename or remove that one."
        )
    others = {name: read for name, read in readers.items() if name != source}
    return {
        **others,
        "test_objects": lambda: render_natural_objects(readers[source](), seed=data.seed),
    }


def open_splits(data: ConfigDict, options: ReadOptions) -> Readers:
    """Opens (and if needed generates) the data set of `config.data`, with its other test set.

    If intensities are normalised over the foreground `auto`, it is decided, once for both data
    sets, and `data` changes: to `otsu` or `nonzero` for files, to `nonzero` for all others.

    Returns:
        For each split, by name, a function that reads it.

    Raises:
        UserError: the data are not where the config says, objects cannot be rendered into the split
            that `config.data.natural_objects` names, or `config.data.test` is unusable.
    """
    info = data_set_info(data.name)
    readers = open_readers(data, options)
    if data.preprocess.foreground == "auto" and settings.normalises(data):
        data.preprocess.foreground = "nonzero"
    if rendered := data.natural_objects or info.rendered_split:
        readers = _render_into(readers, rendered, data)
    if not data.test.name:
        if data.test.root:
            raise UserError("config.data.test.root: names no data set; set config.data.test.name.")
        return readers
    tests = _open_tests(data, options)
    for name in tests:
        if name in readers:
            raise UserError(
                f"config.data.test: '{name}' would replace a split of {data.name}; rename that one."
            )
    return {**readers, **tests}
