"""Data sets that are `.npz` files: images that their user prepared."""

import difflib
import functools
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8

from jaxad.data.files import names
from jaxad.data.files.masks import check_labels, marked
from jaxad.data.files.tree import files_in
from jaxad.data.prepare.preprocess import native
from jaxad.errors import DataError, UserError
from jaxad.types import Split


def npz_readers(root: Path) -> Mapping[str, Callable[[], Split]]:
    """One `<split>.npz` per split in a folder.

    Arrays: `image` [N, H, W] or [N, H, W, C] (uint8, uint16 or float in [0, 1]); for test splits
    `label` [N]; optional `mask` [N, H, W], `id` [N], `group` [N], `position` [N]. Letter case does
    not count in their names; any other array is refused.
    """
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
            f"config.data.root '{root}': {strays[0]}.npz is no split; name it "
            f"test_{strays[0]}.npz or move it away."
        )
    missing = [name for name in ("train", "val") if name not in paths]
    if missing:
        raise UserError(
            f"config.data.root '{root}': no {' and no '.join(f'{m}.npz' for m in missing)} there; "
            "an npz data set is train.npz, val.npz and any number of test_<name>.npz."
        )
    return {
        name: functools.partial(read_npz, path, () if name in ("train", "val") else ("label",))
        for name, path in paths.items()
    }


#: Arrays of an .npz file.
_ARRAYS = ("image", "label", "mask", "id", "group", "position")

#: Other words for them, which a message turns into the name that is read.
_OTHER_WORDS = {
    "target": "label", "class": "label", "segmentation": "mask", "patient": "group",
    "subject": "group", "slice": "position", "name": "id",
}  # fmt: skip

#: What arrays of an .npz file hold that some files must have.
_NEEDED = {
    "label": "0 normal, 1 anomalous",
    "group": "the patient of each image; its `id` where no two are of one patient",
}

#: What libraries write for a name that is missing.
_MISSING = ("", "nan", "inf", "-inf", "none", "null", "nat", "<na>")

#: Arrays of names, which need not be numbers.
_NAMES = ("id", "group")


def read_npz(path: Path, needed: Sequence[str], *, is_labelled: bool = True) -> Split:
    """The split that a file holds; see `npz_readers`.

    Args:
        path: of the file.
        needed: arrays that it must have beside `image`.
        is_labelled: whether labels and masks are used; without labels all images are normal.

    Raises:
        UserError: it cannot be read, an array is missing, of another name or of the wrong kind,
            or its masks contradict its labels.
    """
    arrays = _by_name(_arrays(path), path)
    if not is_labelled:
        arrays = {name: array for name, array in arrays.items() if name not in ("label", "mask")}
    if "image" not in arrays:
        raise UserError(f"{path}: has no array 'image', only {sorted(arrays)}.")
    images = native(arrays["image"], f"{path}: 'image'")
    if images.ndim not in (3, 4):
        raise UserError(
            f"{path}: 'image' has shape {images.shape}; give [N, H, W] or [N, H, W, C]."
        )
    if images.ndim == 3:
        images = images[..., None]
    count = len(images)
    for name, array in arrays.items():
        if array.shape[:1] != (count,):
            rows = len(array) if array.ndim else "no"
            raise UserError(f"{path}: '{name}' has {rows} rows, 'image' has {count}.")
        if name in ("label", "position", *_NAMES) and array.ndim != 1:
            raise UserError(f"{path}: '{name}' has shape {array.shape}; give [N], one per image.")
    for name in needed:
        if name not in arrays:
            raise UserError(f"{path}: has no array '{name}' ({_NEEDED[name]}).")
    labels = arrays.get("label", np.zeros(count))
    if labels.dtype.kind not in "buif" or not np.isin(labels, (0, 1)).all():
        raise UserError(f"{path}: 'label' holds other values than 0 (normal) and 1 (anomalous).")
    if "id" in arrays:
        ids = _names(arrays["id"], "id", path)
    else:
        ids = tuple(f"{names.stem(path)}-{place}" for place in range(count))
    masks = arrays.get("mask")
    positions = arrays.get("position")
    if positions is not None and not np.issubdtype(positions.dtype, np.integer):
        raise UserError(f"{path}: 'position' is {positions.dtype}; give slice indices, integers.")
    return Split(
        images=images,
        labels=labels.astype(np.int32),
        ids=ids,
        groups=_names(arrays["group"], "group", path) if "group" in arrays else ids,
        masks=None if masks is None else _masks(masks, images.shape[:3], ids, labels, path),
        positions=None if positions is None else positions.astype(np.int32),
        unnamed=frozenset() if "group" in arrays else frozenset(ids),
    )


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file, as they are written."""
    try:
        # Opened here: np.load leaves a damaged archive open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file.") from error
    # TypeError: a lone array under the name of an archive.
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            raise UserError(
                f"{path}: is no .npz file, or has an array of Python objects; write it with "
                "numpy.savez, text as arrays of str (`.astype(str)`)."
            ) from error
        raise UserError(
            f"{path}: not a readable .npz file ({error}); write it with numpy.savez."
        ) from error


def _by_name(arrays: Mapping[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """The arrays by their names in small letters.

    Raises:
        UserError: an array has another name, or two have one.
    """
    written: dict[str, str] = {}
    for name in arrays:
        folded = names.folded(name.strip())
        if folded not in _ARRAYS:
            near = difflib.get_close_matches(folded, (*_ARRAYS, *_OTHER_WORDS), n=1)
            rename = f"rename it to '{_OTHER_WORDS.get(near[0], near[0])}'" if near else "rename it"
            raise UserError(
                f"{path}: array '{name}' is none of {', '.join(_ARRAYS)}; {rename} or remove it."
            )
        if folded in written:
            raise UserError(
                f"{path}: the arrays '{written[folded]}' and '{name}' have one name (letter case "
                "does not count); rename or remove one of them."
            )
        written[folded] = name
    return {folded: arrays[name] for folded, name in written.items()}


def _names(array: Shaped[np.ndarray, " n"], name: str, path: Path) -> tuple[str, ...]:
    """Names as text: 7, 7.0, "7" and b"7" are the same.

    Raises:
        UserError: one is missing, or they are no names.
    """
    if array.dtype.kind not in "biufSUMm":
        raise UserError(f"{path}: '{name}' is {array.dtype}; give text or whole numbers.")
    texts = tuple(_text(value) for value in array.tolist())
    missing = [place for place, text in enumerate(texts) if text.casefold() in _MISSING]
    if missing:
        what = "the patient of every image" if name == "group" else "every image"
        raise UserError(
            f"{path}: '{name}' has {texts[missing[0]] or 'nothing'} in row {missing[0]}"
            f"{f' and {len(missing) - 1:,} others' if len(missing) > 1 else ''}; name {what}."
        )
    return texts


def _text(value: object) -> str:
    if isinstance(value, bytes):
        text = value.decode(errors="surrogateescape")
    elif isinstance(value, float) and value.is_integer():
        text = str(int(value))
    else:
        text = str(value)
    return names.plain(text.strip())


def _masks(
    masks: np.ndarray,
    shape: tuple[int, ...],
    ids: Sequence[str],
    labels: Shaped[np.ndarray, " n"],
    path: Path,
) -> UInt8[np.ndarray, "n h w"]:
    """The masks of a file, held to what mask files are held to."""
    source = f"{path}: 'mask'"
    if masks.shape != shape:
        raise UserError(
            f"{source} has shape {masks.shape}, the images want {shape}; give a mask of its size "
            "for every image."
        )
    masks = native(masks, source)
    try:
        # All at once, with the classes of all; then one by one, to name the first.
        is_marked = marked(masks.transpose(1, 2, 0), source).transpose(2, 0, 1)
    except DataError:
        each = zip(masks, ids, strict=True)
        is_marked = np.stack([marked(mask, f"{source} of '{name}'") for mask, name in each])
    check_labels(source, ids, labels, np.asarray(is_marked.any(axis=(1, 2))))
    return np.ascontiguousarray(is_marked, np.uint8)
