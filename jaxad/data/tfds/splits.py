"""Splits of our own TFDS builders, whose features are the fields of a `Split`."""

import functools
import os
from pathlib import Path
from typing import Any

import numpy as np

from jaxad.data.tfds.folder import data_folder, exclusive, raise_if_full, upload
from jaxad.errors import UserError, first_line
from jaxad.runtime.cpu_tensorflow import tensorflow
from jaxad.storage import io_errors
from jaxad.storage.paths import show
from jaxad.types import FilesRead, Split


def open_builder(
    builder_class: Any, builder_config: Any, root: str, manual_dir: Path | None = None
) -> dict[str, functools.partial[Split]]:
    """Prepares the data of a builder unless they are cached, and returns a reader for each split.

    If several processes need the same data, one of them prepares them. `root` is the data folder
    of TFDS ("" for the default), and `manual_dir` the folder of the files that the user fetched.

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
    return {name: functools.partial(_read, builder, name) for name in builder.info.splits}


def _read(builder: Any, split: str) -> Split:
    """Reads a whole split into memory, in the order in which it was generated.

    Only masks of test splits are read: training images are normal.
    """
    import tensorflow_datasets as tfds

    features = builder.info.features
    with_masks = "mask" in features and split.startswith("test")
    is_deep = features["image"].np_dtype == np.uint16
    skipped = ["mask"] if "mask" in features and not with_masks else []
    # TFDS decodes with Pillow, which cannot read 16-bit colour.
    skipped += ["image"] if is_deep else []
    decoders = {name: tfds.decode.SkipDecoding() for name in skipped}
    from jaxad.data.tfds.quiet import silent_tfds

    try:
        with silent_tfds():
            source = builder.as_data_source(split=split, decoders=decoders)
            rows = source.__getitems__(range(len(source)))
        if is_deep:
            decode = tensorflow().io.decode_png
            rows = [{**row, "image": decode(row["image"], dtype=np.uint16).numpy()} for row in rows]
    except (OSError, ValueError, IndexError, RuntimeError) as error:
        raise UserError(
            f"cached data in '{builder.data_dir}' are damaged ({first_line(error)}); delete that "
            "folder to prepare them again."
        ) from error

    def column(name: str) -> np.ndarray:
        return np.stack([row[name] for row in rows])

    ids = tuple(row["id"].decode() for row in rows)
    groups = tuple(row["group"].decode() for row in rows)
    return Split(
        images=column("image"),
        labels=column("label").astype(np.int32),
        ids=ids,
        groups=groups,
        masks=column("mask")[..., 0] if with_masks else None,
        positions=column("position").astype(np.int32) if "position" in features else None,
        files=_files_read(builder, split),
        unnamed=frozenset(ids) if ids == groups else frozenset(),
    )


def _files_read(builder: Any, split: str) -> FilesRead | None:
    """Returns the facts about the user's files that a builder keeps; None if it has no files."""
    files = (builder.info.metadata or {}).get("files", {}).get(split)
    if files is None:
        return None
    lists = {name: tuple(files.get(name, ())) for name in ("skipped", "blank")}
    return FilesRead(**{**files, **lists})
