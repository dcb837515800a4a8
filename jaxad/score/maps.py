"""Anomaly maps as files: PNG overlays of images, NIfTI volumes of scans."""

import collections
import gzip
import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import matplotlib
import nibabel as nib
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from jaxad.data.files.items import Reading, Rows
from jaxad.data.files.names import stem
from jaxad.data.prepare.cutting import place_back
from jaxad.data.readers.nifti import like_file
from jaxad.storage.workdir import atomic_write

#: Smallest side of an overlay in pixels; smaller images are enlarged.
_LEAST_SIDE = 256

#: Opacity of the brightest colour.
_OPACITY = 0.65

#: Longest file name in bytes; file systems allow 255 or fewer.
_LONGEST = 120


class Places:
    """Assigns each item a file name inside one folder."""

    def __init__(self, folder: Path, names: Sequence[str]):
        """Takes the ids of all items, so that no two share a file."""
        self._folder = folder
        counts = collections.Counter(_short(name) for name in names)
        self._shared = {short for short, count in counts.items() if count > 1}

    def of(self, name: str, suffix: str) -> Path:
        """Returns the path of an item's file, named after the item's id.

        A known suffix of the id is removed; a digest is added if several items would share a name.
        """
        short = _short(name)
        if short in self._shared:
            short = f"{short}-{_digest(name)}"
        return self._folder / f"{short}{suffix}"


def _short(name: str) -> str:
    """Returns an item's id as a relative path inside the folder, without a known suffix."""
    parts = [part for part in PurePosixPath(name).parts if part not in ("/", "..", ".")]
    *folders, last = parts or ["unnamed"]
    return "/".join(_fitting(part) for part in (*folders, stem(Path(last))))


def _fitting(part: str) -> str:
    part = part.replace("\0", "")
    if len(part.encode(errors="surrogateescape")) <= _LONGEST:
        return part
    return f"{part[: _LONGEST // 4]}-{_digest(part)}"


def _digest(name: str) -> str:
    return hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=4).hexdigest()


def write_overlay(
    path: Path,
    image: Float[np.ndarray, "s s c"],
    anomaly_map: Float[np.ndarray, "s s"],
    brightest: float,
) -> None:
    """Writes a PNG of the image, in [0, 1], and beside it of the image under its coloured map.

    `brightest` is the map value that is shown brightest; with one value for all images, colours are
    comparable.
    """
    colours = image if image.shape[-1] == 3 else np.repeat(image.mean(-1, keepdims=True), 3, -1)
    share = np.clip(anomaly_map / max(brightest, 1e-12), 0, 1)[..., None]
    heat = matplotlib.colormaps["inferno"](share[..., 0])[..., :3]
    mixed = colours * (1 - _OPACITY * share) + heat * _OPACITY * share
    picture = Image.fromarray(np.concatenate([_enlarged(colours), _enlarged(mixed)], axis=1))
    with atomic_write(path, "wb") as file:
        picture.save(file, format="PNG")


def _enlarged(picture: Float[np.ndarray, "s s 3"]) -> UInt8[np.ndarray, "t t 3"]:
    pixels = Image.fromarray(np.rint(255 * picture).astype(np.uint8))
    times = max(1, -(-_LEAST_SIDE // len(picture)))
    size = (pixels.width * times, pixels.height * times)
    return np.asarray(pixels.resize(size, Image.Resampling.BICUBIC))


def write_volume(
    path: Path, rows: Rows, maps: Float[np.ndarray, "n s s"], reading: Reading
) -> None:
    """Writes the maps of a scan's slices as a volume (`.nii.gz`) on the scan's grid."""
    assert rows.grid is not None
    assert rows.positions is not None
    space, grid = reading.space, rows.grid
    voxels = place_back(
        maps, rows.positions, grid if space is None else space.grid,
        reading.preparation, reading.cutting,
    )  # fmt: skip
    if space is not None:
        voxels = space.place_back(voxels, grid)
    source = rows.item.paths[0]
    # A DICOM series has no NIfTI header to copy.
    is_series = source.is_dir()
    image = nib.Nifti1Image(voxels, grid.affine) if is_series else like_file(source, voxels)
    image.header.set_data_dtype(np.float32)
    image.header["cal_min"], image.header["cal_max"] = 0.0, float(maps.max(initial=0.0))
    image.header["descrip"] = b"anomaly map"
    with atomic_write(path, "wb") as file:
        file.write(gzip.compress(image.to_bytes(), compresslevel=4))
