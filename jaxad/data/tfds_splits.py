"""Splits of TFDS builders whose features are those of a Batch: image, label, mask, id, ..."""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from jaxad.errors import UserError
from jaxad.host_tensorflow import tensorflow
from jaxad.types import Split


def open_builder(
    builder_class: Any, builder_config: Any, root: str
) -> dict[str, functools.partial[Split]]:
    """Prepares a builder's data (once; then it is cached) and says how to read its splits.

    Args:
        builder_class: a `tfds.core.DatasetBuilder` class.
        builder_config: the builder config to prepare.
        root: the TFDS data folder; "" takes TFDS's own default.

    Raises:
        UserError: the data folder cannot be written.
    """
    tensorflow()  # hides the accelerators before TFDS uses it
    from google.protobuf.json_format import ParseError

    local = root if "://" in root else str(Path(root).expanduser())
    try:
        builder = builder_class(
            config=builder_config, data_dir=local if root else None, file_format="array_record"
        )
    except (OSError, ValueError, ParseError) as error:
        name = f"{builder_class.name}/{builder_config.name}"
        raise UserError(
            f"cached data '{name}' in data folder '{root or 'of TFDS'}' cannot be read "
            f"({_first_line(error)}); delete that folder to make them again, or choose another "
            "with --config.data.root."
        ) from error
    try:
        builder.download_and_prepare()
    except OSError as error:
        raise UserError(
            f"data folder '{builder.data_dir}' cannot be written ({_first_line(error)}); choose "
            "another with --config.data.root or $TFDS_DATA_DIR."
        ) from error
    return {name: functools.partial(_read, builder, name) for name in builder.info.splits}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _read(builder: Any, split: str) -> Split:
    """A whole split in memory, in the order in which it was generated.

    Masks are read for test splits alone: in the others nothing is anomalous.
    """
    import tensorflow_datasets as tfds

    features = builder.info.features
    with_masks = "mask" in features and split.startswith("test")
    skipped = {"mask": tfds.decode.SkipDecoding()} if "mask" in features else {}
    try:
        source = builder.as_data_source(split=split, decoders=None if with_masks else skipped)
        rows = source.__getitems__(range(len(source)))
    except (OSError, ValueError, IndexError, RuntimeError) as error:
        raise UserError(
            f"cached data in '{builder.data_dir}' are damaged ({_first_line(error)}); delete that "
            "folder to make them again."
        ) from error

    def column(name: str) -> np.ndarray:
        return np.stack([row[name] for row in rows])

    return Split(
        images=column("image"),
        labels=column("label").astype(np.int32),
        ids=tuple(row["id"].decode() for row in rows),
        groups=tuple(row["group"].decode() for row in rows),
        masks=column("mask")[..., 0] if with_masks else None,
        positions=column("position").astype(np.int32) if "position" in features else None,
    )
