"""Data sets that are `.npz` files of prepared images."""

import functools
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8

from jaxad.data.files import names
from jaxad.data.files.masks import check_labels
from jaxad.data.files.tree import files_in
from jaxad.data.prepare.preprocess import native
from jaxad.data.readers.masks import marked_pixels
from jaxad.errors import DataError, UserError
from jaxad.types import Split

#: Arrays of an .npz file.
_ARRAYS = ("image", "label", "mask", "id", "group", "position")

#: What arrays hold that some files must have.
_MEANINGS = {
    "label": "0 normal, 1 anomalous",
    "group": "the patient of each image; equal to `id` if no two are of one patient",
}

#: What libraries write for a missing name.
_MISSING = ("", "nan", "inf", "-inf", "none", "null", "nat", "<na>")


def npz_readers(root: Path, *, test_only: bool = False) -> Mapping[str, Callable[[], Split]]:
    """Returns a reader for each `<split>.npz` in a folder.

    Arrays: `image` [N, H, W] or [N, H, W, C] (uint8, uint16 or float in [0, 1]); for test splits
    `label` [N]; optional `mask` [N, H, W], `id` [N], `group` [N], `position` [N]. Letter case does
    not count in their names; other arrays are refused. With `test_only`, `train.npz` and `val.npz`
    may be missing, and the root may be a file, which becomes `test`.

    Raises:
        UserError: `train.npz` or `val.npz` is missing, or a file is not a split, or a split has two
            files.
    """
    if test_only and names.is_archive(root):
        return {"test": functools.partial(read_npz, root, ("label",))}
    paths: dict[str, Path] = {}
    for path in files_in(root, ".npz") if root.is_dir() else ():
        name = names.split_of(names.stem(path)) or names.stem(path)
        if name in paths:
            raise UserError(
                f"config.data.root '{root}': {paths[name].name} and {path.name} are both split "
                f"'{name}'; move one away."
            )
        paths[name] = path
    strays = [name for name in paths if name not in ("train", "val") and name[:5] != "test_"]
    if strays:
        raise UserError(
            f"config.data.root '{root}': {strays[0]}.npz is not a split; name it "
            f"test_{strays[0]}.npz or move it away."
        )
    missing = [f"{name}.npz" for name in ("train", "val") if name not in paths]
    if missing and not test_only:
        raise UserError(
            f"config.data.root '{root}': has no {' and no '.join(missing)}; an npz data set "
            "consists of train.npz, val.npz and any number of test_<name>.npz."
        )
    return {
        name: functools.partial(read_npz, path, () if name in ("train", "val") else ("label",))
        for name, path in paths.items()
    }


def read_npz(path: Path, needed: Sequence[str], *, is_labelled: bool = True) -> Split:
    """Reads the split in a file, which must have the `needed` arrays besides `image`.

    For the arrays see `npz_readers`. Unless `is_labelled`, labels and masks are ignored: all images
    are normal.

    Raises:
        UserError: it cannot be read, lacks an array, has a wrong one, or masks contradict labels.
    """
    loaded = _load(path)
    spelling = names.spelling_of(loaded, _ARRAYS, str(path))
    arrays = {name: loaded[spelt] for name, spelt in spelling.items()}
    if not is_labelled:
        arrays = {name: array for name, array in arrays.items() if name not in ("label", "mask")}
    if "image" not in arrays:
        raise UserError(
            f"{path}: has no array 'image', only {sorted(arrays)}; save the images under that name."
        )
    images = native(arrays["image"], f"{path}: 'image'")
    if images.ndim not in (3, 4):
        raise UserError(
            f"{path}: 'image' has shape {images.shape}; give [N, H, W] or [N, H, W, C]."
        )
    images = images[..., None] if images.ndim == 3 else images
    count = len(images)
    for name, array in arrays.items():
        if array.shape[:1] != (count,):
            rows = len(array) if array.ndim else "no"
            raise UserError(
                f"{path}: '{name}' has {rows} rows, but 'image' has {count}; give one row per "
                "image."
            )
        if name not in ("image", "mask") and array.ndim != 1:
            raise UserError(f"{path}: '{name}' has shape {array.shape}; give [N], one per image.")
    for name in needed:
        if name not in arrays:
            raise UserError(f"{path}: has no array '{name}' ({_MEANINGS[name]}); add it.")
    labels = arrays.get("label", np.zeros(count))
    if labels.dtype.kind not in "buif" or not np.isin(labels, (0, 1)).all():
        raise UserError(
            f"{path}: 'label' holds values other than 0 and 1; write 0 for normal, 1 for anomalous."
        )
    positions = arrays.get("position")
    if positions is not None and not np.issubdtype(positions.dtype, np.integer):
        raise UserError(f"{path}: 'position' is {positions.dtype}; give slice indices as integers.")
    ids = tuple(f"{names.stem(path)}-{index}" for index in range(count))
    if "id" in arrays:
        ids = _to_names(arrays["id"], "id", path)
    masks = None
    if "mask" in arrays:
        masks = _check_masks(arrays["mask"], images.shape[:3], ids, labels, path)
    return Split(
        images=images,
        labels=labels.astype(np.int32),
        ids=ids,
        groups=_to_names(arrays["group"], "group", path) if "group" in arrays else ids,
        masks=masks,
        positions=None if positions is None else positions.astype(np.int32),
        unnamed=frozenset() if "group" in arrays else frozenset(ids),
    )


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        # np.load would leave a damaged archive open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; name an existing one.") from error
    # TypeError: a single array under the name of an archive.
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            raise UserError(
                f"{path}: is not an .npz file, or has an array of Python objects; write it with "
                "numpy.savez, text as arrays of str (`.astype(str)`)."
            ) from error
        raise UserError(
            f"{path}: not a readable .npz file ({error}); write it with numpy.savez."
        ) from error


def _to_names(array: Shaped[np.ndarray, " n"], name: str, path: Path) -> tuple[str, ...]:
    """Returns names as text: 7, 7.0, "7" and b"7" are the same; refuses missing names."""
    if array.dtype.kind not in "biufSUMm":
        raise UserError(f"{path}: '{name}' is {array.dtype}; give text or whole numbers.")
    texts = tuple(_to_text(value) for value in array.tolist())
    missing = [row for row, text in enumerate(texts) if text.casefold() in _MISSING]
    if missing:
        subject = "the patient of every image" if name == "group" else "every image"
        raise UserError(
            f"{path}: '{name}' has {texts[missing[0]] or 'nothing'} in row {missing[0]}"
            f"{f' and {len(missing) - 1:,} others' if len(missing) > 1 else ''}; name {subject}."
        )
    return texts


def _to_text(value: object) -> str:
    if isinstance(value, bytes):
        text = value.decode(errors="surrogateescape")
    elif isinstance(value, float) and value.is_integer():
        text = str(int(value))
    else:
        text = str(value)
    return names.plain(text.strip())


def _check_masks(
    masks: np.ndarray,
    shape: tuple[int, ...],
    ids: Sequence[str],
    labels: Shaped[np.ndarray, " n"],
    path: Path,
) -> UInt8[np.ndarray, "n h w"]:
    """Checks masks as mask files are checked; returns 1 where a pixel is anomalous."""
    source = f"{path}: 'mask'"
    if masks.shape != shape:
        raise UserError(
            f"{source} has shape {masks.shape}, but the images need {shape}; give a mask of its "
            "size for every image."
        )
    masks = native(masks, source)
    try:
        # Together, so that all their classes are seen; one by one to name the first bad mask.
        is_marked = marked_pixels(masks.transpose(1, 2, 0), source).transpose(2, 0, 1)
    except DataError:
        pairs = zip(masks, ids, strict=True)
        is_marked = np.stack([marked_pixels(mask, f"{source} of '{name}'") for mask, name in pairs])
    check_labels(source, ids, labels, np.asarray(is_marked.any(axis=(1, 2))))
    return np.ascontiguousarray(is_marked, np.uint8)
