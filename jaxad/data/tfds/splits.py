"""Splits of our own TFDS builders, whose features are the fields of a `Split`."""

import functools
import logging
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from jaxad.data.tfds.folder import data_folder, exclusive, raise_if_full, upload
from jaxad.data.tfds.stored_pixels import Records, StoredPixels
from jaxad.errors import UserError, first_line
from jaxad.runtime.cpu_tensorflow import tensorflow
from jaxad.storage import io_errors
from jaxad.storage.paths import show
from jaxad.types import FilesRead, Split

logger = logging.getLogger(__name__)

#: Examples whose columns are read at once.
_PART = 1024


def open_builder(
    builder_class: Any,
    builder_config: Any,
    root: str,
    manual_dir: Path | None = None,
    *,
    budget: float = math.inf,
) -> dict[str, functools.partial[Split]]:
    """Prepares the data of a builder unless they are cached, and returns a reader for each split.

    If several processes need the same data, one of them prepares them.

    Args:
        builder_class: the class of the builder.
        builder_config: its config.
        root: the data folder of TFDS; "" for the default.
        manual_dir: the folder of the files that the user fetched; None if there are none.
        budget: bytes of decoded pixels from which on they stay on disk.

    Raises:
        UserError: the data folder cannot be read or written.
        RunError: the data folder is full.
    """
    tensorflow()  # hides the accelerators before TFDS uses it
    from google.protobuf.json_format import ParseError

    part = f"{builder_class.name}/{builder_config.name}"
    folder = data_folder(root, part)
    # For the user's files config.data.root names their folder, as opposed to TFDS's.
    remedy = "$TFDS_DATA_DIR" if manual_dir else "--config.data.root or $TFDS_DATA_DIR"
    from jaxad.data.tfds.quiet import silent_tfds

    def make_builder() -> Any:
        try:
            with silent_tfds():
                return builder_class(
                    config=builder_config,
                    data_dir=folder,
                    file_format="array_record",
                )
        except (OSError, ValueError, ParseError) as error:
            place = f"{show(folder)}/{part}"
            raise UserError(
                f"cached data in '{place}' cannot be read ({first_line(error)}); delete that "
                f"folder to prepare them again, or choose another data folder with {remedy}."
            ) from error

    import tensorflow_datasets as tfds

    download = tfds.download.DownloadConfig(manual_dir=manual_dir) if manual_dir else None
    builder = make_builder()
    if not builder.data_path.exists():
        try:
            with exclusive(str(builder.data_path.parent)):
                builder = make_builder()  # another process may have prepared the data
                builder.download_and_prepare(download_config=download)
                upload(folder, part)
        # array_record raises RuntimeError for any error of the file system.
        except (OSError, RuntimeError) as error:
            raise_if_full(str(builder.data_dir), error, remedy)
            number = io_errors.find_error_number(error)
            if number is None:
                raise
            raise UserError(
                f"data folder '{builder.data_dir}' cannot be written ({os.strerror(number)}); "
                f"choose another with {remedy}."
            ) from error
    read = functools.partial(_read, builder, _keeps_on_disk(builder, budget))
    return {name: functools.partial(read, name) for name in builder.info.splits}


def _keeps_on_disk(builder: Any, budget: float) -> bool:
    """Tells whether the decoded pixels of all splits exceed a budget in bytes; logs it if so."""
    size = sum(
        info.num_examples * int(np.prod(feature.shape)) * np.dtype(feature.np_dtype).itemsize
        for split, info in builder.info.splits.items()
        for feature in _pixel_features(builder, split).values()
    )
    if size > budget:
        logger.info(
            f"data: {builder.name}: {size / 2**30:.3g} GiB of pixels are read from disk when they "
            f"are needed, because config.data.in_memory allows {budget / 2**30:.3g} GiB."
        )
    return size > budget


def _pixel_features(builder: Any, split: str) -> dict[str, Any]:
    """Returns the features of a split that hold pixels: images, and masks of test splits.

    Training images are normal, so that their masks are not read.
    """
    names = ("image", "mask") if split.startswith("test") else ("image",)
    return {name: builder.info.features[name] for name in names if name in builder.info.features}


def _read(builder: Any, on_disk: bool, split: str) -> Split:
    """Reads a split, in the order in which it was generated; with `on_disk`, without its pixels."""
    records = Records(builder, split)
    columns = _read_columns(records)
    pixels: dict[str, Any] = {}
    for name, feature in _pixel_features(builder, split).items():
        shape = feature.shape if name == "image" else feature.shape[:2]
        stored = StoredPixels(records, name, shape, np.dtype(feature.np_dtype))
        pixels[name] = stored if on_disk else stored[:]
    ids, groups = tuple(columns["id"]), tuple(columns["group"])
    positions = columns.get("position")
    return Split(
        images=pixels["image"],
        labels=np.array(columns["label"], np.int32),
        ids=ids,
        groups=groups,
        masks=pixels.get("mask"),
        positions=None if positions is None else np.array(positions, np.int32),
        files=_files_read(builder, split),
        unnamed=frozenset(ids) if ids == groups else frozenset(),
    )


def _read_columns(records: Records) -> dict[str, list[Any]]:
    """Reads the numbers and texts of all examples by feature, a part of them at a time."""
    columns: dict[str, list[Any]] = {}
    with records.damage_reported():
        for start in range(0, len(records), _PART):
            for features in records.read(range(start, min(start + _PART, len(records)))):
                for name in ("id", "group"):
                    (text,) = features[name].bytes_list.value
                    columns.setdefault(name, []).append(text.decode())
                for name in ("label", "position"):
                    if name in features:
                        (number,) = features[name].int64_list.value
                        columns.setdefault(name, []).append(number)
    return columns


def _files_read(builder: Any, split: str) -> FilesRead | None:
    """Returns the facts about the user's files that a builder keeps; None if it has no files."""
    files = (builder.info.metadata or {}).get("files", {}).get(split)
    if files is None:
        return None
    lists = {name: tuple(files.get(name, ())) for name in ("skipped", "blank")}
    return FilesRead(**{**files, **lists})
