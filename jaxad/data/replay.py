"""Images that are no data set's: read and prepared as those that a run learnt from.

All that this depends on is in the run's `config.data`, so that what is scored later, on another
machine, is treated to the bit as what was trained on.
"""

from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float, Shaped
from ml_collections import ConfigDict

from jaxad.data import settings
from jaxad.data.cutting import cut
from jaxad.data.folders import read_normal_folder
from jaxad.data.items import Item, Reading
from jaxad.data.npz import read_npz
from jaxad.data.prepare_images import prepare_image
from jaxad.data.readers.volumes import turn
from jaxad.data.reading import read_split
from jaxad.data.sources import KINDS, TFDS, check_split, is_published, published, told
from jaxad.data.tables import read_rows
from jaxad.errors import UserError
from jaxad.types import Split


def is_prepared(data: ConfigDict) -> bool:
    """Whether a run's images were prepared before jaxad saw them: `icbm_synth` and `npz`."""
    return data.name not in KINDS and not data.name.startswith(TFDS)


def _reading(data: ConfigDict) -> Reading:
    """How the files of the run's data set were read."""
    reading = settings.reading(data, KINDS[data.name])
    return published(data.name).reading_of(reading) if is_published(data.name) else reading


def prepare_pixels(
    pixels: Shaped[np.ndarray, "..."], data: ConfigDict, affine: Float[np.ndarray, "4 4"] | None
) -> Shaped[np.ndarray, "n s s c"]:
    """Images of raw pixels, as the run's own were made of those of files.

    Args:
        pixels: for a run on images one grey image [H, W], or images [N, H, W] (grey) or
            [N, H, W, C] of any size; for a run on scans one scan [X, Y, Z].
        data: the run's; see `is_prepared`.
        affine: of a scan, from indices to mm, RAS+; without: right, anterior, superior at 1 mm.

    Raises:
        UserError: they cannot be prepared.
    """
    if KINDS.get(data.name, "image") == "image":
        stack = pixels[None] if pixels.ndim == 2 else pixels
        stack = stack[..., None] if stack.ndim == 3 else stack
        if stack.ndim != 4 or not len(stack):
            raise UserError(
                f"images: have shape {pixels.shape}; give [H, W], [N, H, W] or [N, H, W, C]."
            )
        settings_ = settings.preparation(data)
        return np.stack(
            [prepare_image(one, settings_, f"image {place}") for place, one in enumerate(stack)]
        )
    if pixels.ndim != 3:
        raise UserError(f"scan: has shape {pixels.shape}; give one scan [X, Y, Z].")
    reading = _reading(data)
    image = nib.Nifti1Image(pixels, np.eye(4) if affine is None else affine)
    volume = turn(image, Path("scan"), pixels.nbytes)
    channels = reading.preparation.channels
    return cut([volume] * channels, None, reading.preparation, reading.cutting).images


def read_files(path: Path, data: ConfigDict) -> Split:
    """Files as a run's data set was read, without labels: another site's, or what is to be scored.

    Args:
        path: a folder of images, scans or DICOM series, one of them, or a table of them.
        data: the run's.

    Raises:
        UserError: the run's data set is not of files, or these cannot be used.
    """
    if data.name not in KINDS:
        raise UserError(
            f"{path}: a run on '{data.name}' takes images that are prepared, as an .npz file; "
            f"files are taken by runs on {', '.join(KINDS)}."
        )
    kind, splitting, reading = KINDS[data.name], settings.splitting(data), _reading(data)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; name one that is there.")
    if path.suffix.lower() == ".csv":
        items = [item for _, item in read_rows(path, kind, splitting)]
    elif path.is_file():
        items = [Item(id=path.name, group=path.name, paths=(path,), label=0)]
    else:
        items = read_normal_folder(path, kind, splitting)
    return told(read_split(items, reading, str(path)), str(path))


def read_normals(path: Path, data: ConfigDict) -> Split:
    """Normal images of another site.

    Args:
        path: an `.npz` file (see `npz_readers`), without labels or all 0, that says which patient
            each image is of: slices of one taken for patients of their own would make any
            guarantee untrue. For runs on files also what `read_files` takes.
        data: the run's.

    Raises:
        UserError: it cannot be read, an `.npz` file has no `group`, an image is unusable, or one is
            labelled anomalous.
    """
    is_npz = path.suffix.lower() == ".npz" or data.name not in KINDS
    split = read_npz(path, needed=("group",)) if is_npz else read_files(path, data)
    shape = (int(data.image_size), int(data.image_size), int(data.channels))
    check_split(split, f"'{path}'", shape, normal=True)
    return split
