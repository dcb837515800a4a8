"""Formats of files by kind of data: those that are read, and those that must be converted."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from jaxad.data.readers import dicom, images, volumes

#: What an item is: an image file, a NIfTI scan or a DICOM series.
Kind = Literal["image", "nifti", "dicom"]

_SCANS = (
    ".hdr", ".img", ".mha", ".mhd", ".nrrd", ".nhdr", ".mgz", ".mgh", ".mnc", ".nii.bz2", ".nii.xz",
    ".nii.zst", ".nii.zip",
)  # fmt: skip
_IMAGES = (
    ".gif", ".webp", ".jp2", ".j2k", ".jxl", ".heic", ".heif", ".avif", ".tga", ".psd", ".svs",
    ".ndpi", ".mrxs", ".scn", ".czi", ".lsm", ".exr", ".pfm",
    *_SCANS,
    *filter(None, dicom.SUFFIXES),
)  # fmt: skip
_ARRAYS = (".npy", ".mat", ".h5", ".hdf5", ".pkl", ".pt")


@dataclasses.dataclass(frozen=True)
class Formats:
    """The formats of one kind of data."""

    name: str  # the name of the data, for messages
    suffixes: tuple[str, ...]  # the suffixes of files that are read, in lower case
    others: tuple[str, ...]  # suffixes of files that hold such data in a format that is not read
    target: str  # the format to convert those to


FORMATS: Mapping[Kind | Literal["npz"], Formats] = {
    "image": Formats(f"images ({', '.join(images.SUFFIXES)})", images.SUFFIXES, _IMAGES, "PNG"),
    "nifti": Formats(
        f"scans ({', '.join(volumes.NIFTI_SUFFIXES)})",
        volumes.NIFTI_SUFFIXES,
        _SCANS,
        "NIfTI (.nii.gz)",
    ),
    "dicom": Formats(
        "DICOM series",
        dicom.SUFFIXES,
        _SCANS,
        "NIfTI (.nii.gz), which config.data.name=nifti reads",
    ),
    "npz": Formats("arrays", (".npz",), _ARRAYS, ".npz (numpy.savez)"),
}


#: What files are, by suffix.
_NOUNS: Mapping[str, tuple[str, ...]] = {
    "an image": images.SUFFIXES,
    "a NIfTI scan": volumes.NIFTI_SUFFIXES,
    "a DICOM file": tuple(filter(None, dicom.SUFFIXES)),
    "an array file": FORMATS["npz"].suffixes,
}


def noun_of_other_kind(path: Path, kind: Kind) -> str:
    """Returns what a file of another kind of data is, such as `an image`; "" for others."""
    own = tuple(filter(None, FORMATS[kind].suffixes))
    if kind == "dicom":
        own += FORMATS["nifti"].suffixes  # as masks of series are
    name = path.name.lower()
    if name.endswith(own) or is_other_format(path, kind) or not path.is_file():
        return ""
    return next((noun for noun, suffixes in _NOUNS.items() if name.endswith(suffixes)), "")


def is_other_format(path: Path, kind: Kind | Literal["npz"]) -> bool:
    """Tells whether a file's name suggests that it holds such data in a format that is not read."""
    return path.name.lower().endswith(FORMATS[kind].others)
