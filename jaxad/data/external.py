"""Data sets of other packages: `config.data.name` names a function that returns the splits.

    config.data.name = "my_package.my_data:open_splits"

The module may be installed, or lie in the current folder. The function takes `config.data` and
returns a mapping from the names of splits to a `jaxad.types.Split`, or to a function without
arguments that returns one and is called when the split is first needed:

    def open_splits(data):
        return {"train": read_train(data), "test_tumour": lambda: read_tumours(data)}

`train` is required. Without `val`, `config.data.val_share` of the patients of `train` become `val`.
All other names start with `test`. The same config must give the same splits in every process.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping

import numpy as np
from ml_collections import ConfigDict

from jaxad.data import settings
from jaxad.data.data_sets import Readers
from jaxad.data.files.masks import check_labels
from jaxad.data.files.splitting import Splitting, pick
from jaxad.errors import UserError
from jaxad.extension import errors_named, load_object
from jaxad.types import Split

_SPLIT_NAME = re.compile(r"train|val|test(_[\w.-]+)?")


def open_external(data: ConfigDict, *, test_only: bool) -> Readers:
    """Calls the function that `config.data.name` names, and returns a reader for each split.

    With `test_only`, `train` and `val` may be missing and are not drawn.

    Raises:
        UserError: there is no such function, it fails, or it returns something other than splits.
    """
    function = load_object(data.name, "config.data.name")
    if not callable(function):
        raise UserError(
            f"config.data.name: '{data.name}' is a {type(function).__name__}; name a function that "
            "takes config.data and returns a mapping from names to jaxad.types.Split."
        )
    with errors_named(data.name, data.name):
        splits = function(data)
    if not isinstance(splits, Mapping):
        raise UserError(
            f"{data.name}: returned a {type(splits).__name__}; return a mapping from the names of "
            "splits to jaxad.types.Split, or to functions that return one."
        )
    for name, split in splits.items():
        if not isinstance(name, str) or not _SPLIT_NAME.fullmatch(name):
            raise UserError(
                f"{data.name}: {name!r} is not the name of a split; use 'train', 'val', 'test' or "
                "'test_<name>'."
            )
        if not isinstance(split, Split) and not callable(split):
            raise UserError(
                f"{data.name}: split '{name}' is a {type(split).__name__}; return a "
                "jaxad.types.Split, or a function without arguments that returns one."
            )
    readers = {
        name: functools.partial(_read, split, data.name, f"{data.name} split '{name}'")
        for name, split in splits.items()
    }
    if test_only:
        return readers
    if "train" not in readers:
        raise UserError(
            f"{data.name}: returned no split 'train', only {sorted(readers)}; return it, too."
        )
    if "val" in readers:
        return readers
    return _draw_val(readers, settings.splitting(data), data.name)


def _read(split: Split | Callable[[], Split], function: str, source: str) -> Split:
    if not isinstance(split, Split):
        with errors_named(source, function):
            split = split()
    return check_columns(split, source)


def check_columns(split: object, source: str) -> Split:
    """Returns a split with int32 labels and positions, uint8 masks, and tuples of texts.

    Types and lengths are checked here, images elsewhere.

    Raises:
        UserError: it is not a `Split`, or a field is not as `Split` describes it.
    """
    if not isinstance(split, Split):
        raise UserError(f"{source}: is a {type(split).__name__}; return a jaxad.types.Split.")
    for name in ("images", "labels", "masks", "positions"):
        array = getattr(split, name)
        if not isinstance(array, np.ndarray) and (
            array is not None or name in ("images", "labels")
        ):
            raise UserError(f"{source}: {name} is a {type(array).__name__}; give a NumPy array.")
    count = split.images.shape[:1]
    for name in ("labels", "ids", "groups", "positions"):
        column = getattr(split, name)
        if column is not None and np.shape(column) != count:
            raise UserError(
                f"{source}: {name} has shape {np.shape(column)}, but images have shape "
                f"{split.images.shape}; give one value for each image."
            )
    for name in ("ids", "groups"):
        for text in getattr(split, name):
            if not isinstance(text, str) or not text:
                raise UserError(f"{source}: {name} holds {text!r}; give non-empty strings.")
    for name, texts in split.extra.items():
        if np.shape(texts) != count:
            raise UserError(
                f"{source}: extra column '{name}' has shape {np.shape(texts)}, but images have "
                f"shape {split.images.shape}; give one text for each image."
            )
    if not np.isin(split.labels, (0, 1)).all():
        raise UserError(
            f"{source}: labels hold values other than 0 and 1; write 0 for normal, 1 for anomalous."
        )
    if split.positions is not None and split.positions.dtype.kind not in "ui":
        raise UserError(
            f"{source}: positions are {split.positions.dtype}; give slice indices as integers."
        )
    if split.masks is not None:
        _check_masks(split, split.masks[:], source)
    ids, groups = tuple(split.ids), tuple(split.groups)
    return dataclasses.replace(
        split,
        labels=split.labels.astype(np.int32),
        ids=ids,
        groups=groups,
        unnamed=frozenset(ids) if ids == groups else split.unnamed,
        masks=None if split.masks is None else split.masks[:].astype(np.uint8),
        positions=None if split.positions is None else split.positions.astype(np.int32),
        extra={str(name): tuple(map(str, texts)) for name, texts in split.extra.items()},
    )


def _check_masks(split: Split, masks: np.ndarray, source: str) -> None:
    if masks.shape != split.images.shape[:3]:
        raise UserError(
            f"{source}: masks have shape {masks.shape}, but images have shape "
            f"{split.images.shape}; give one mask [H, W] for each image."
        )
    if not np.isin(masks, (0, 1)).all():
        raise UserError(
            f"{source}: masks hold values other than 0 and 1; write 1 for anomalous pixels, 0 "
            "elsewhere."
        )
    check_labels(f"{source}: masks", split.ids, split.labels, np.asarray(masks.any(axis=(1, 2))))


def _draw_val(readers: Readers, splitting: Splitting, source: str) -> Readers:
    """Moves a share of the patients of `train` to `val`."""

    @functools.cache
    def parts() -> tuple[Split, Split]:
        split = readers["train"]()
        chosen, left = pick(split.groups, (splitting.val_share,), splitting.seed)
        if not chosen or not left:
            raise UserError(
                f"{source}: val_share {splitting.val_share} of {len(chosen | left)} patients "
                "leaves a split empty; return a split 'val', or change config.data.val_share."
            )
        is_val = np.array([group in chosen for group in split.groups])
        return split.rows(np.flatnonzero(~is_val)), split.rows(np.flatnonzero(is_val))

    tests = {name: read for name, read in readers.items() if name != "train"}
    return {"train": lambda: parts()[0], "val": lambda: parts()[1], **tests}
