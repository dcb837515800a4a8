"""Writers of files for tests of the readers, independent of the readers' libraries if possible."""

import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np

#: Orientations of DICOM slices: directions in which the column and the row index grow, LPS.
AXIAL = (1, 0, 0, 0, 1, 0)
ORIENTATIONS = {
    "axial": AXIAL,
    "prone": (-1, 0, 0, 0, -1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
    # Rotated by 10 degrees about the body's long axis, as patients lie.
    "oblique": (
        np.cos(np.pi / 18),
        np.sin(np.pi / 18),
        0,
        -np.sin(np.pi / 18),
        np.cos(np.pi / 18),
        0,
    ),
}


def png(pixels: np.ndarray) -> bytes:
    """Returns a PNG file of [H, W, C] pixels, uint8 or uint16, C from 1 to 4."""
    height, width, channels = pixels.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, pixels.itemsize * 8, colour_type, 0, 0, 0)
    big_endian = pixels.astype(pixels.dtype.newbyteorder(">"))
    rows = b"".join(b"\0" + row.tobytes() for row in big_endian)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*part) for part in parts)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """Returns a chunk of a PNG file with its checksum."""
    total = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", total)


def write_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """Writes voxels as a NIfTI file; default affine: RAS+, 1 mm."""
    affine = np.eye(4) if affine is None else affine
    nib.save(nib.Nifti1Image(voxels, affine, dtype=voxels.dtype), path)
    return path


def series_affine(
    orientation: tuple[float, ...], spacing: tuple[float, float, float], origin: tuple[float, ...]
) -> np.ndarray:
    """Returns the affine from (column, row, slice) of a series to mm, RAS+."""
    along_columns, along_rows = np.array(orientation[:3]), np.array(orientation[3:])
    axes = np.stack([along_columns, along_rows, np.cross(along_columns, along_rows)], axis=1)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes * spacing, origin
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # LPS to RAS


def write_series(
    folder: Path,
    stored: np.ndarray,
    orientation: tuple[float, ...] = AXIAL,
    spacing: tuple[float, float, float] = (0.75, 0.5, 2.5),
    origin: tuple[float, ...] = (-10.0, -20.0, -30.0),
    rescale: tuple[float, float] | None = (2.0, -1000.0),
    series: str = "1.2.3.4",
    names: str = "{}.dcm",
    **fields: object,
) -> Path:
    """Writes a CT series.

    Args:
        folder: to write to; names of files are not in the order of slices.
        stored: [slices, rows, columns], uint16, stored values.
        orientation: directions of columns and rows, LPS.
        spacing: of columns, rows and slices in mm.
        origin: of the first voxel in mm, LPS.
        rescale: slope and intercept.
        series: its UID.
        names: of files.
        fields: further fields of each file.
    """
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    folder.mkdir(exist_ok=True)
    step = np.cross(orientation[:3], orientation[3:]) * spacing[2]
    shuffled = np.random.default_rng(0).permutation(len(stored))
    for number, pixels in enumerate(stored):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
        data.SOPInstanceUID = f"{series}.{number + 1}"
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.3", series
        data.FrameOfReferenceUID, data.Modality, data.PatientID = "1.2.5", "CT", "ann"
        data.Rows, data.Columns = pixels.shape
        data.PixelSpacing = [spacing[1], spacing[0]]  # of rows first
        data.ImageOrientationPatient = [float(f"{one:.12f}") for one in orientation]
        place = np.array(origin) + number * step
        data.ImagePositionPatient = [float(f"{one:.10f}") for one in place]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
        data.PixelRepresentation, data.PixelData = 0, pixels.astype("<u2").tobytes()
        if rescale is not None:
            data.RescaleSlope, data.RescaleIntercept = rescale
        for name, value in fields.items():
            setattr(data, name, value)
        path = folder / names.format(shuffled[number])
        data.save_as(path, enforce_file_format=True)
    return folder
