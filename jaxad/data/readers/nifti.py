"""Reader of NIfTI scans, rotated so that their axes point right, anterior and superior (RAS+).

Importing it loads nibabel and pydicom: modules that training imports load it inside functions.
"""

import gzip
import io
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float

from jaxad.data.readers.checks import check_file, check_memory, readable
from jaxad.data.readers.volumes import Volume
from jaxad.errors import DataError

_GZIP_MAGIC = b"\x1f\x8b"

#: First bytes of a NIfTI-2 file: the length of its header, in either byte order.
_NIFTI2_STARTS = ((540).to_bytes(4, "little"), (540).to_bytes(4, "big"))


def read_nifti(path: Path) -> Volume:
    """Reads a `.nii` or `.nii.gz` file and rotates it by its affine to the nearest RAS+ axes.

    Raises:
        DataError: the file cannot be read, is not three-dimensional, has values that are not real
            and finite, or has an affine without an orientation.
    """
    size = check_file(path)
    with readable(path, "NIfTI file"), path.open("rb") as raw:
        image, file = _open(raw)
        is_zipped = file is not raw
        # Deflate compresses by a factor of 1032 at most.
        volume = to_right_anterior_superior(image, path, size * 1032 if is_zipped else size)
        # Reading to the end checks the checksum.
        while is_zipped and file.read(2**20):
            pass
        return volume


def _open(raw: io.BufferedIOBase) -> tuple[nib.Nifti1Image, io.BufferedIOBase]:
    """Opens a NIfTI file: its image, whose voxels are not read yet, and the uncompressed stream."""
    is_zipped = raw.read(2) == _GZIP_MAGIC
    raw.seek(0)
    file: io.BufferedIOBase = gzip.GzipFile(fileobj=raw) if is_zipped else raw
    kind = nib.Nifti2Image if file.read(4) in _NIFTI2_STARTS else nib.Nifti1Image
    file.seek(0)
    return kind.from_file_map(kind.make_file_map({"image": file}), mmap=False), file


def like_file(path: Path, voxels: Float[np.ndarray, "x y z"]) -> nib.Nifti1Image:
    """Returns voxels [X, Y, Z], RAS+, as an image with the axes and the header of a NIfTI file.

    The voxels have the shape of that file's scan.

    Raises:
        DataError: the file cannot be read.
    """
    with readable(path, "NIfTI file"), path.open("rb") as raw:
        template, _ = _open(raw)
        to_file = nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.io_orientation(template.affine)
        )
        stored = nib.orientations.apply_orientation(voxels, to_file)
        header = template.header.copy()
        header.set_slope_inter(1, 0)
        header.set_data_dtype(stored.dtype)
        # These texts may name the patient.
        header.extensions.clear()
        for field in ("db_name", "aux_file", "intent_name", "descrip"):
            if field in header:
                header[field] = b""
        return type(template)(stored, template.affine, header)


def to_right_anterior_superior(image: nib.Nifti1Image, path: Path, max_bytes: int) -> Volume:
    """Reads the voxels of an opened image and rotates them to RAS+; see `read_nifti`.

    The file or folder at `path` holds at most `max_bytes` bytes of voxels.
    """
    with readable(path, "NIfTI header"):
        shape = tuple(int(length) for length in image.shape)
        stored, affine = image.get_data_dtype(), image.affine
    if len(shape) == 4 and shape[3] == 1:
        shape = shape[:3]
    if len(shape) != 3:
        raise DataError(
            f"{path}: has {len(shape)} dimensions {shape}, but a scan has 3; save each volume in "
            "its own file."
        )
    if min(shape) < 1:
        raise DataError(f"{path}: has shape {shape} and so no voxels; leave it out.")
    if stored.kind not in "uif" or stored.itemsize > 8:
        raise DataError(f"{path}: holds {stored}; save it as integers or floats.")
    num_voxels = int(np.prod(shape, dtype=object))
    num_bytes = num_voxels * stored.itemsize
    if num_bytes > max_bytes:
        raise DataError(
            f"{path}: its header promises {num_bytes:,} bytes of voxels, but the file holds at "
            f"most {max_bytes:,}; copy it again or leave it out."
        )
    # Scaling makes them float64.
    check_memory(path, num_voxels * 8)
    if affine is None or not np.isfinite(affine).all() or not _is_regular(affine):
        shown = "it has none" if affine is None else np.round(affine[:3, :3], 3).tolist()
        raise DataError(f"{path}: its affine has no orientation ({shown}); repair the header.")
    with readable(path, "NIfTI file"):
        rotated = nib.as_closest_canonical(image)
        voxels = np.asarray(rotated.dataobj)
    voxels = voxels.reshape(voxels.shape[:3])
    voxels = voxels.astype(voxels.dtype.newbyteorder("="), copy=False)
    if not np.isfinite(voxels).all():
        raise DataError(f"{path}: has NaN or infinite voxels; repair it or leave it out.")
    return Volume(voxels, np.asarray(rotated.affine, np.float64), path)


def _is_regular(affine: Float[np.ndarray, "4 4"]) -> bool:
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not ((lengths > 1e-6) & (lengths < 1e6)).all():
        return False
    return bool(abs(np.linalg.det(affine[:3, :3] / lengths)) > 1e-3)
