"""DICOM series: the slices of one scan in one folder (the extra `dicom`)."""

import contextlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from jaxad.data.files.tree import is_hidden
from jaxad.data.readers.checks import check_file, check_memory, readable
from jaxad.data.readers.volumes import Volume, to_right_anterior_superior
from jaxad.errors import DataError, UserError

SUFFIXES = (".dcm", ".ima", "")

#: Files that lie beside series.
OTHERS = ("DICOMDIR", "README", "LICENSE", "LICENCE")

#: From DICOM's left, posterior, superior to right, anterior, superior.
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def may_be_dicom(path: Path) -> bool:
    """Whether a file is named as one of DICOM."""
    # Many are named by their UID alone: `1.2.840.10008` has the suffix `.10008`.
    named = path.suffix.lower() in SUFFIXES or path.suffix[1:].isdigit()
    return named and not is_hidden(path.name) and path.name.upper() not in OTHERS


def patient_of(folder: Path) -> str:
    """The patient that the first DICOM file of a folder names; "" where none does.

    Raises:
        UserError: the extra is not installed.
    """
    pydicom, _ = _libraries()
    with readable(folder, "folder"):
        paths = sorted(path for path in folder.iterdir() if may_be_dicom(path))
    for path in paths[:1]:
        # What is wrong with the file is told when it is read.
        with contextlib.suppress(DataError), readable(path, "DICOM file"):
            return str(pydicom.dcmread(path, stop_before_pixels=True).get("PatientID") or "")
    return ""


def read_series(folder: Path) -> Volume:
    """The scan whose slices are the DICOM files of a folder, in modality units (HU for CT).

    Raises:
        DataError: a file or the folder cannot be read, or they are not one regularly spaced
            series.
        UserError: the extra is not installed.
    """
    pydicom, highdicom = _libraries()
    slices, series, num_bytes = [], set(), 0
    with readable(folder, "folder"):
        paths = sorted(folder.iterdir())
    for path in paths:
        if not may_be_dicom(path) or path.is_dir():
            continue
        check_file(path)
        with readable(path, "DICOM file"):
            data = pydicom.dcmread(path)
            size = int(data.Rows) * int(data.Columns) * 8
            check_memory(path, size)
            check_memory(folder, num_bytes := num_bytes + size)
            series.add(str(data.get("SeriesInstanceUID")))
            if not data.file_meta.TransferSyntaxUID.is_encapsulated:
                # Read without a word: the series would tell, and not which file it is.
                missing = pydicom.pixels.utils.get_expected_length(data) - len(data.PixelData)
                if missing > 0:
                    raise ValueError(f"{missing:,} bytes of its pixels are missing")
            slices.append(data)
    if not slices:
        raise DataError(f"{folder}: holds no DICOM files; name the folder of one series.")
    if len(series) > 1:
        raise DataError(
            f"{folder}: holds {len(series)} DICOM series; give each a folder of its own."
        )
    remedy = (
        "its slices must be parallel, evenly spaced and of one size: add those that are missing, "
        "move away those that are not of the scan, or leave the folder out"
    )
    with readable(folder, "DICOM series", remedy):
        # What the pixels measure, not how they are shown: MONOCHROME1 would be inverted.
        volume = highdicom.get_volume_from_series(
            slices, dtype=np.float32, apply_real_world_transform=False, apply_presentation_lut=False
        )
        image = nib.Nifti1Image(volume.array, _TO_RAS @ volume.affine)
    return to_right_anterior_superior(image, folder, volume.array.nbytes)


def _libraries() -> tuple[Any, Any]:
    try:
        import highdicom
        import pydicom
    except ImportError as error:
        raise UserError(
            "DICOM series need the extra 'dicom'; install it with pip install 'jaxad[dicom]'."
        ) from error
    return pydicom, highdicom
