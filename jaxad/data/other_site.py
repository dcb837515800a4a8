"""A labelled data set of another site, to evaluate a run on without training it again.

Its images are read and prepared as the run's own were; the user names it with the flags `--test.*`.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxad import config as config_lib
from jaxad.config.fields import find
from jaxad.config.flags import parse_bool, parse_names
from jaxad.config.shape import data_shape
from jaxad.data import replay, settings
from jaxad.data.data_sets import DataSetInfo, Readers, data_set_info, users_of
from jaxad.data.files.folders import WITHOUT_LABELS
from jaxad.data.files.items import Reading
from jaxad.data.files.names import is_archive, is_table
from jaxad.data.files.normals import check_apart
from jaxad.data.files.tree import files_in
from jaxad.data.files.unread import Unread, tell_unread
from jaxad.data.leaks import TRAINING_SPLITS, copies, named_patients
from jaxad.data.openers import ReadOptions, open_readers
from jaxad.data.prepare.preprocess import to_unit_interval
from jaxad.data.sources import DataSet, check_read_split, report_files
from jaxad.errors import UserError
from jaxad.storage.locations import locate_data
from jaxad.types import Split

logger = logging.getLogger(__name__)

#: Names of evaluations; those that begin with `test` are left to the run's own splits.
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,79}", re.ASCII)

#: Fields of `config.data` that another site has its own values of, in messages of the readers.
_FIELDS = re.compile(
    r"(?:--)?config\.data\.(name|root|group_pattern|normal_classes|allow_outside_root|on_error)\b"
)


@dataclasses.dataclass(frozen=True)
class Site:
    """Where another site's data set lies and how it is read.

    Attributes:
        root: a folder, a table or an `.npz` file, as for `config.data.root`.
        data_set: a value of `config.data.name`; "" for the kind of the run's own data set.
        label: name of the evaluation; "" for one that is made from `root`.
        calibrates: whether decisions are calibrated on the site's own `train` and `val`.
        changes: replaces fields of the run's `config.data` by name: `group_pattern`,
            `normal_classes`, `on_error`, `allow_outside_root`.
    """

    root: str
    data_set: str = ""
    label: str = ""
    calibrates: bool = False
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The root as a path, with a leading `~` expanded."""
        return locate_data(self.root, "--test.root")

    @property
    def name(self) -> str:
        """The name of the evaluation.

        Raises:
            UserError: it cannot name a folder, or is kept for the run's own splits.
        """
        if self.label:
            name, hint = self.label, "choose another"
        else:
            place = self.path.resolve()
            plain = place.stem if is_table(place) or is_archive(place) else place.name
            name = re.sub(r"[^\w.-]+", "_", plain, flags=re.ASCII).strip("._-")[:80]
            hint = "name the evaluation with --test.as=<name>"
        if name.casefold().startswith("test") or name.casefold() in TRAINING_SPLITS:
            raise UserError(
                f"--test.as: '{name}' is kept for the run's own splits, as are train, val and all "
                f"names that begin with test; {hint}."
            )
        if not _NAME.fullmatch(name):
            raise UserError(
                f"--test.as: '{name}' cannot name a folder: it takes up to 80 letters, digits, "
                f"dots, underscores and hyphens, a letter or a digit first; {hint}."
            )
        return name

    def digest(self, detector: str = "") -> str:
        """Returns a digest of the absolute root and a detector's name, which discloses neither."""
        place = f"{self.path.resolve()}\0{detector}"
        return hashlib.blake2b(place.encode(errors="surrogateescape"), digest_size=8).hexdigest()


@dataclasses.dataclass(frozen=True)
class SiteSplits:
    """The splits of another site.

    Attributes:
        data_set: the value of `config.data.name` that they were read as.
        tests: name of the evaluation -> labelled images; without positions, because the slices of
            two data sets are counted differently.
        normals: normal images of other patients, to calibrate on; None unless asked for.
    """

    data_set: str
    tests: Mapping[str, Split]
    normals: Split | None

    def with_normals(self, name: str) -> dict[str, Split]:
        """Returns the splits by name, the normal images to calibrate on as `<name> normals`."""
        normals = {} if self.normals is None else {f"{name} normals": self.normals}
        return {**self.tests, **normals}


def site_of_flags(flags: Mapping[str, str]) -> Site:
    """Returns the site that the flags `--test.*` describe, named with `_` instead of the dot."""
    changes: dict[str, Any] = {}
    for field in ("group_pattern", "on_error"):
        if text := flags.get(f"test_{field}"):
            changes[field] = text
    if text := flags.get("test_normal_classes"):
        changes["normal_classes"] = parse_names("test.normal_classes", text)
    permission = flags.get("test_allow_outside_root", "")
    changes["allow_outside_root"] = parse_bool("test.allow_outside_root", permission)
    return Site(
        root=flags["test_root"],
        data_set=flags.get("test_name", ""),
        label=flags.get("test_as", ""),
        calibrates=parse_bool("test.calibrate", flags.get("test_calibrate", "")),
        changes=changes,
    )


def read_site(site: Site, data: ConfigDict) -> SiteSplits:
    """Reads another site's data set, prepared as the data of a run were.

    Args:
        site: the data set.
        data: `config.data` of the run.

    Raises:
        UserError: there is no such data set, it cannot be prepared as the run's data were, is the
            run's own, has no labels, or is unusable, see `check_split`; or normal images are asked
            for and there are none, or they are of patients that are tested.
    """
    name = site.name
    with _flags_named():
        info = _info_of(site, data)
        own = data_set_info(data.name)
        kinds = {info.kind, own.kind}
        if data.root and (kinds == {"npz"} or kinds <= {"files", "published"}):
            check_apart(
                site.path, data.root, is_npz=own.kind == "npz", flag="--test.root",
                remedy="give the data of another site. --mode=evaluate without --test.root "
                "evaluates the run's own test splits",
            )  # fmt: skip
        unread: list[Unread] = []
        num_files: dict[str, int] = {}
        config = _config(site, info, data)
        reading = _reading(info, data, config.on_error)
        options = ReadOptions(
            test_only=True,
            reading=reading,
            inherits_classes="normal_classes" not in site.changes,
            on_unread=unread.append,
            on_listed=num_files.update,
        )
        readers = open_readers(config, options)
        for files in unread:
            tell_unread(files, is_strict=config.on_error == "raise")
        shape = data_shape(data)

        def read(split_name: str, source: str) -> Split:
            split = readers[split_name]()
            if reading is not None:
                images = replay.to_depth_of_run(split.images[:], data, reading)
                split = dataclasses.replace(split, images=images)
            split = report_files(dataclasses.replace(split, positions=None), source, for_run=True)
            check_read_split(split, source, shape, normal=split_name in TRAINING_SPLITS)
            return split

        tests = {
            f"{name}{split_name.removeprefix('test')}": split_name
            for split_name in readers
            if split_name.startswith("test")
        }
        if not tests:
            raise UserError(
                f"--test.root={site.root}: has no test split, only {', '.join(readers)}; put "
                f"labelled images into test/, or give rows the split test. {WITHOUT_LABELS}"
            )
        splits = {target: read(source, target) for target, source in tests.items()}
        normals = _read_normals(site, readers, read) if site.calibrates else None
        left_out = [split_name for split_name in TRAINING_SPLITS if split_name in readers]
        if left_out and not site.calibrates:
            _tell_left_out(site, left_out, num_files)
    if normals is not None:
        _check_normals(site, normals, splits)
    return SiteSplits(info.name, splits, normals)


def check_not_learnt(splits: Mapping[str, Split], run_data: DataSet) -> None:
    """Raises a UserError if an image of another site is one of the run's `train` or `val`."""
    for (name, split), known in itertools.product(splits.items(), TRAINING_SPLITS):
        if found := copies(run_data.split(known), split):
            image, copy = found[0]
            more = f" and {len(found) - 1:,} more are in it, too" if len(found) > 1 else ""
            raise UserError(
                f"{name}: image '{image}' is '{copy}' of the run's split '{known}', pixel by pixel"
                f"{more}; leave such images out: results on them say nothing about new patients."
            )


@contextlib.contextmanager
def _flags_named() -> Iterator[None]:
    """Replaces fields of the config in messages by the flags of another site."""
    try:
        yield
    except UserError as error:
        message = _FIELDS.sub(r"--test.\1", str(error))
        if "has no column 'label'" in message or "has no array 'label'" in message:
            message += f" {WITHOUT_LABELS}"
        raise UserError(message) from error


def _info_of(site: Site, data: ConfigDict) -> DataSetInfo:
    """Returns the record of the site's data set; raises a UserError if it does not fit the run."""
    own, place = data_set_info(data.name), site.path
    default = own.name if own.kind == "files" else "npz"
    if own.kind in ("published", "tfds"):
        default = own.file_format if own.file_format in ("nifti", "dicom") else "folder"
    if own.scan_reading and not (place.is_dir() and files_in(place, ".npz")):
        default = own.format_of_files
    if is_archive(place):
        default = "npz"
    info = data_set_info(site.data_set or default, "--test.name")
    if info.is_prepared:
        return info
    if own.is_prepared:
        if own.takes_files and info.kind == "files" and info.file_format == own.format_of_files:
            return info
        scans = f" or scans (--test.name={own.format_of_files})" if own.takes_files else ""
        raise UserError(
            f"--test.name={info.name}: a run on '{own.name}' takes prepared images{scans}; give an "
            ".npz file, or a folder of test_<name>.npz, of images that were prepared as the run's "
            "were."
        )
    if info.holds_scans != own.holds_scans:
        ours, theirs = ("scans" if each.holds_scans else "images" for each in (own, info))
        raise UserError(
            f"--test.name={info.name}: holds {theirs}, but the run was trained on {ours} of "
            f"'{own.name}', so they cannot be prepared as its data were; give {ours}."
        )
    if "," in data.modality and info.kind == "files":
        raise UserError(
            f"--test.name={info.name}: a run on the modalities {data.modality} reads them only as "
            f"'{own.name}'; name it with --test.name={own.name}, or give an .npz file."
        )
    return info


def _reading(info: DataSetInfo, data: ConfigDict, on_error: str) -> Reading | None:
    """Returns how the run's files were read, for a site of files; None for any other."""
    if info.kind != "files":
        return None
    file_format = info.format_of_files
    takes_files = data_set_info(data.name).takes_files
    reading = replay.reading_of(data) if takes_files else settings.reading(data, file_format)
    return dataclasses.replace(reading, kind=file_format, on_error=on_error)


def _config(site: Site, info: DataSetInfo, data: ConfigDict) -> ConfigDict:
    """Returns `config.data` of the run with the site's own fields.

    Raises:
        UserError: a value is not allowed, or has no effect on such data.
    """
    config = data.copy_and_resolve_references().unlock()
    config.name, config.root = info.name, site.root
    config.natural_objects = config.test.name = config.test.root = ""
    config.allow_outside_root = False  # is not inherited: it trusts one table
    for field, value in site.changes.items():
        record = find(f"data.{field}")
        users = () if record is None or value == record.default else record.data
        if users and not info.kinds & set(users):
            raise UserError(
                f"--test.{field}: has no effect on data set '{info.name}', only on "
                f"{', '.join(users_of(users))}."
            )
        config[field] = value
    config_lib.check(config, "config.data")
    settings.splitting(config)
    return config


def _read_normals(site: Site, readers: Readers, read: Any) -> Split:
    """Reads the site's `train` and `val`, the normal images that it has besides its test splits."""
    splits = [read(name, f"{site.name} {name}") for name in TRAINING_SPLITS if name in readers]
    if not splits:
        raise UserError(
            f"--test.calibrate: '{site.root}' has no normal images besides its test images; put "
            "those of other patients into train/good/, or give their rows the split train."
        )
    images = [np.asarray(split.images) for split in splits]
    is_one_type = len({array.dtype for array in images}) == 1
    return Split(
        images=np.concatenate(images if is_one_type else [*map(to_unit_interval, images)]),
        labels=np.concatenate([split.labels for split in splits]),
        ids=tuple(id_ for split in splits for id_ in split.ids),
        groups=tuple(group for split in splits for group in split.groups),
        unnamed=frozenset().union(*(split.unnamed for split in splits)),
    )


def _tell_left_out(site: Site, names: Sequence[str], num_files: Mapping[str, int]) -> None:
    """Reports `train` and `val` of a site, which are neither tested nor calibrated on.

    Only files are counted before they are read.
    """
    parts = [f"{num_files[name]:,} files of {name}" if num_files else name for name in names]
    logger.info(
        f"note: --test.root={site.root}: {' and '.join(parts)} are left out, as only test splits "
        "are evaluated; to calibrate decisions on them, set --test.calibrate=True."
    )


def _check_normals(site: Site, normals: Split, tests: Mapping[str, Split]) -> None:
    """Raises a UserError if a patient or an image is both to calibrate on and to test on."""
    for name, split in tests.items():
        if shared := named_patients(normals) & set(split.groups):
            raise UserError(
                f"--test.calibrate: patient '{min(shared)}' of '{site.root}' is in the normal "
                f"images to calibrate on and in the test images of '{name}'; keep each patient in "
                "one of the two."
            )
        if found := copies(normals, split):
            raise UserError(
                f"--test.calibrate: image '{found[0][0]}' of '{site.root}' is '{found[0][1]}' of "
                "the normal images to calibrate on, pixel by pixel; remove one of the two."
            )
