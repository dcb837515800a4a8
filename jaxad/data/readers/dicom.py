"""Reader of DICOM series: the slices of one scan in one folder. Needs the extra `dicom`."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from jaxad.data.readers.checks import check_file, check_memory, is_hidden, readable
from jaxad.data.readers.volumes import Volume
from jaxad.errors import DataError, UserError

#: Suffixes of DICOM files; many have none.
SUFFIXES = (".dcm", ".ima", "")

#: Upper-case names of files without a suffix that are no DICOM slices.
NOT_SLICES = ("DICOMDIR", "README", "LICENSE", "LICENCE")

#: Maps DICOM axes (left, posterior, superior) to NIfTI axes (right, anterior, superior).
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

_SERIES_REMEDY = (
    "the slices of a scan must be parallel, evenly spaced and of one size: add missing slices, "
    "move away slices of other scans, or leave the folder out"
)


def may_be_dicom(path: Path) -> bool:
    """Tells whether a path has a name that DICOM files have."""
    # Many are named by their UID alone: `1.2.840.10008` has the suffix `.10008`.
    fits = path.suffix.lower() in SUFFIXES or path.suffix[1:].isdigit()
    return fits and not is_hidden(path.name) and path.name.upper() not in NOT_SLICES


def patient_of(folder: Path) -> str:
    """Returns the PatientID in the first DICOM file of a folder; "" if it has none."""
    pydicom, _ = _import_libraries()
    with readable(folder, "folder"):
        paths = sorted(path for path in folder.iterdir() if may_be_dicom(path))
    for path in paths[:1]:
        # A damaged file is reported when its pixels are read.
        with contextlib.suppress(DataError), readable(path, "DICOM file"):
            return str(pydicom.dcmread(path, stop_before_pixels=True).get("PatientID") or "")
    return ""


def read_series(folder: Path) -> Volume:
    """Returns the scan whose slices are the DICOM files of a folder, in modality units (CT: HU).

    Raises:
        DataError: the folder or a file cannot be read, or the files are not one series of
            regularly spaced slices.
        UserError: the extra `dicom` is not installed.
    """
    pydicom, highdicom = _import_libraries()
    import nibabel as nib

    from jaxad.data.readers.nifti import to_right_anterior_superior

    slices, series_uids, num_bytes = [], set(), 0
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
            series_uids.add(str(data.get("SeriesInstanceUID")))
            if not data.file_meta.TransferSyntaxUID.is_encapsulated:
                # pydicom accepts truncated pixels; later errors would not name the file.
                missing = pydicom.pixels.utils.get_expected_length(data) - len(data.PixelData)
                if missing > 0:
                    raise ValueError(f"{missing:,} bytes of its pixels are missing")
            slices.append(data)
    if not slices:
        raise DataError(f"{folder}: holds no DICOM files; name the folder of one series.")
    if len(series_uids) > 1:
        raise DataError(
            f"{folder}: holds {len(series_uids)} DICOM series; give each its own folder."
        )
    with readable(folder, "DICOM series", _SERIES_REMEDY):
        # The values that were measured, not those for display: MONOCHROME1 would be inverted.
        volume = highdicom.get_volume_from_series(
            slices, dtype=np.float32, apply_real_world_transform=False, apply_presentation_lut=False
        )
        image = nib.Nifti1Image(volume.array, _LPS_TO_RAS @ volume.affine)
    return to_right_anterior_superior(image, folder, volume.array.nbytes)


def _import_libraries() -> tuple[Any, Any]:
    try:
        import highdicom
        import pydicom
    except ImportError as error:
        raise UserError(
            "DICOM series need the extra 'dicom'; install it with pip install 'jaxad[dicom]'."
        ) from error
    return pydicom, highdicom
