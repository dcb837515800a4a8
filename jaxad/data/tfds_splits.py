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
    try:
        builder = builder_class(
            config=builder_config,
            data_dir=str(Path(root).expanduser()) if root else None,
            file_format="array_record",
        )
        builder.download_and_prepare()
    except OSError as error:
        raise UserError(
            f"data folder '{root or 'of TFDS'}' cannot be used ({error}); choose a writable one "
            "with --config.data.root or $TFDS_DATA_DIR."
        ) from error
    return {name: functools.partial(_read, builder, name) for name in builder.info.splits}


def _read(builder: Any, split: str) -> Split:
    """A whole split in memory, in the order in which it was generated."""
    source = builder.as_data_source(split=split)
    rows = source.__getitems__(range(len(source)))

    def column(name: str) -> np.ndarray:
        return np.stack([row[name] for row in rows])

    has = builder.info.features.keys()
    return Split(
        images=column("image"),
        labels=column("label").astype(np.int32),
        ids=tuple(row["id"].decode() for row in rows),
        groups=tuple(row["group"].decode() for row in rows),
        masks=column("mask")[..., 0] if "mask" in has else None,
        positions=column("position").astype(np.int32) if "position" in has else None,
    )
