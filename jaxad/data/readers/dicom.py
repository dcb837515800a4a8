"""DICOM series: the slices of one scan in one folder (the extra `dicom`)."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from jaxad.data.readers.checks import check_file, check_memory, readable
from jaxad.data.readers.volumes import Volume, turn
from jaxad.errors import DataError, UserError

SUFFIXES = (".dcm", ".ima", "")

#: From DICOM's left, posterior, superior to right, anterior, superior.
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_series(folder: Path) -> Volume:
    """The scan whose slices are the DICOM files of a folder, in modality units (HU for CT).

    Raises:
        DataError: a file cannot be read, or they are not one regularly spaced series.
        UserError: the extra is not installed.
    """
    pydicom, highdicom = _libraries()
    slices = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in SUFFIXES or path.is_dir():
            continue
        check_file(path)
        with readable(path, "DICOM file"):
            data = pydicom.dcmread(path)
            check_memory(path, int(data.Rows) * int(data.Columns) * 8)
            slices.append(data)
    if not slices:
        raise DataError(f"{folder}: holds no DICOM files; name the folder of one series.")
    check_memory(folder, sum(int(data.Rows) * int(data.Columns) * 8 for data in slices))
    series = {str(data.get("SeriesInstanceUID")) for data in slices}
    if len(series) > 1:
        raise DataError(
            f"{folder}: holds {len(series)} DICOM series; give each a folder of its own."
        )
    with readable(folder, "DICOM series"):
        volume = highdicom.get_volume_from_series(slices, dtype=np.float32)
        image = nib.Nifti1Image(volume.array, _TO_RAS @ volume.affine)
        return turn(image, folder, volume.array.nbytes)


def _libraries() -> tuple[Any, Any]:
    try:
        import highdicom
        import pydicom
    except ImportError as error:
        raise UserError(
            "DICOM series need the extra 'dicom'; install it with pip install 'jaxad[dicom]'."
        ) from error
    return pydicom, highdicom
