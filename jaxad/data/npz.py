"""Data sets that are `.npz` files: images that their user prepared."""

import functools
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxad.data import names
from jaxad.data.tree import files_in
from jaxad.errors import UserError
from jaxad.types import Split


def npz_readers(root: Path) -> Mapping[str, Callable[[], Split]]:
    """One `<split>.npz` per split in a folder.

    Arrays: `image` [N, H, W] or [N, H, W, C] (uint8, uint16 or float in [0, 1]); for test splits
    `label` [N]; optional `mask` [N, H, W], `id` [N], `group` [N], `position` [N].
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


#: What arrays of an .npz file hold that some files must have.
_NEEDED = {
    "label": "0 normal, 1 anomalous",
    "group": "the patient of each image; its `id` where no two are of one patient",
}


def read_npz(path: Path, needed: Sequence[str]) -> Split:
    """The split that a file holds; see `npz_readers`.

    Args:
        path: of the file.
        needed: arrays that it must have beside `image`.

    Raises:
        UserError: it cannot be read, or an array is missing or of the wrong kind.
    """
    try:
        # Opened here: np.load leaves a damaged archive open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
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
    if "image" not in arrays:
        raise UserError(f"{path}: has no array 'image', only {sorted(arrays)}.")
    images = arrays["image"]
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
        if name in ("label", "id", "group", "position") and array.ndim != 1:
            raise UserError(f"{path}: '{name}' has shape {array.shape}; give [N], one per image.")
    for name in needed:
        if name not in arrays:
            raise UserError(f"{path}: has no array '{name}' ({_NEEDED[name]}).")
    labels = np.asarray(arrays.get("label", np.zeros(count)))
    if not np.isin(labels, (0, 1)).all():
        raise UserError(f"{path}: 'label' holds other values than 0 (normal) and 1 (anomalous).")
    ids = [
        str(name) for name in arrays.get("id", [f"{names.stem(path)}-{i}" for i in range(count)])
    ]
    masks = arrays.get("mask")
    if masks is not None:
        if masks.shape != images.shape[:3]:
            raise UserError(
                f"{path}: 'mask' has shape {masks.shape}, the images want {images.shape[:3]}."
            )
        masks = (masks > 0).astype(np.uint8)
    groups = np.asarray(arrays.get("group", ids))
    if groups.dtype.kind == "f" and not np.isfinite(groups).all():
        raise UserError(f"{path}: 'group' has NaN; name the patient of every image.")
    positions = arrays.get("position")
    if positions is not None and not np.issubdtype(positions.dtype, np.integer):
        raise UserError(f"{path}: 'position' is {positions.dtype}; give slice indices, integers.")
    return Split(
        images=images,
        labels=labels.astype(np.int32),
        ids=tuple(ids),
        groups=tuple(str(group) for group in groups),
        masks=masks,
        positions=None if positions is None else positions.astype(np.int32),
    )
