"""Files that cannot be read: each is reported in one line with a remedy."""

import gzip
import os
import re
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from samples import png, png_chunk, write_nifti, write_series

from jaxad.data.prepare.cutting import Cutting, cut
from jaxad.data.prepare.preparation import Preparation
from jaxad.data.prepare.prepare_images import prepare_image
from jaxad.data.readers.checks import MAX_BYTES, readable
from jaxad.data.readers.dicom import read_series
from jaxad.data.readers.images import read_image
from jaxad.data.readers.nifti import read_nifti
from jaxad.errors import DataError

REMEDY = re.compile(r"; (copy it again|leave it|repair|restore it|make it|scale them|set )")


def _refused(read, path, expected):
    with pytest.raises(DataError, match=expected) as raised:
        read(path)
    message = str(raised.value)
    assert "\n" not in message and message.startswith(f"{path}: ") and REMEDY.search(message), (
        message
    )


def _read(path):
    return (read_nifti if ".nii" in path.name else read_image)(path)


def _pixels(dtype=np.uint8, channels=1):
    return np.random.default_rng(0).integers(0, 200, (20, 24, channels)).astype(dtype)


def _voxels(dtype=np.int16):
    return np.random.default_rng(0).integers(1, 200, (8, 8, 8)).astype(dtype)


def _content(tmp_path, suffix):
    """Returns the content of a good file with this suffix."""
    path = tmp_path / f"good{suffix}"
    if ".nii" in suffix:
        write_nifti(path, _voxels())
    elif suffix == ".deep.png":
        path.write_bytes(png(_pixels(np.uint16, 3)))
    elif suffix == ".deep.tif":
        tifffile.imwrite(path, _pixels(np.uint16, 3), photometric="rgb")
    else:
        Image.fromarray(_pixels()[..., 0]).save(path)
    _read(path)
    return path.read_bytes()


SUFFIXES = (".png", ".deep.png", ".jpg", ".tif", ".deep.tif", ".nii", ".nii.gz")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_empty_cut_short_and_of_another_kind(tmp_path, suffix):
    content, path = _content(tmp_path, suffix), tmp_path / f"bad {suffix}"
    path.write_bytes(b"")
    _refused(_read, path, r"is empty \(0 bytes\)")
    for kept in (0.01, 0.3, 0.6, 0.95):
        path.write_bytes(content[: int(kept * len(content)) + 1])
        _refused(_read, path, "not a readable|has 0 pages|holds at most")
    for other in (b"patient,label\nann,0\n" * 200, b"\0" * 5000, b"\xff" * 5000):
        path.write_bytes(other)
        _refused(_read, path, "not a readable")


def test_the_end_of_a_zipped_file_is_checked(tmp_path):
    content = _content(tmp_path, ".nii.gz")
    # Without the last byte, and with another checksum: all voxels are there but may be wrong.
    for bad in (content[:-1], content[:-8] + b"good" + content[-4:]):
        path = tmp_path / "bad.nii.gz"
        path.write_bytes(bad)
        _refused(read_nifti, path, r"bad\.nii\.gz: not a readable NIfTI file \(")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_nifti_header_that_promises_a_terabyte(tmp_path, suffix):
    content = bytearray(write_nifti(tmp_path / "good.nii", _voxels()).read_bytes())
    content[40:48] = struct.pack("<4h", 3, 10_000, 10_000, 5_000)  # dim, of int16
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(gzip.compress(content) if suffix == ".nii.gz" else content)
    _refused(
        read_nifti, path, r"its header promises 1,000,000,000,000 bytes of voxels, but the file"
    )


def test_more_than_memory_holds(tmp_path):
    # A sparse file holds the 10 GB that it promises.
    path = write_nifti(tmp_path / "a.nii", _voxels(np.uint8))
    content = bytearray(path.read_bytes())
    content[40:48] = struct.pack("<4h", 3, 2_000, 2_000, 2_500)
    path.write_bytes(content)
    os.truncate(path, 352 + 10**10)
    # As float64.
    _refused(read_nifti, path, f"its header promises 80,000,000,000 bytes, .* is {MAX_BYTES:,}")


@pytest.mark.parametrize(("bits", "colour_type"), [(8, 0), (16, 2), (1, 0)])
def test_a_png_header_that_promises_ten_thousand_million_pixels(tmp_path, bits, colour_type):
    header = struct.pack(">IIBBBBB", 100_000, 100_000, bits, colour_type, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    path = tmp_path / "huge.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*part) for part in parts))
    _refused(
        read_image, path, "huge.png: its header promises [48]0,000,000,000 bytes, but the limit"
    )


def test_a_tiff_header_that_promises_a_terabyte(tmp_path):
    path = tmp_path / "huge.tif"
    tifffile.imwrite(path, _pixels()[..., 0], photometric="minisblack")
    with tifffile.TiffFile(path, mode="r+") as file:
        for tag in ("ImageWidth", "ImageLength"):
            file.pages[0].tags[tag].overwrite(10**6, dtype="I")
    _refused(read_image, path, "huge.tif: its header promises 1,000,000,000,000 bytes")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("options", [{"rowsperstrip": 4}, {"tile": (16, 16)}], ids=str)
def test_a_tiff_header_that_promises_more_strips_than_there_are(tmp_path, dtype, channels, options):
    path = tmp_path / "a.tif"
    pixels = _pixels(dtype, channels)
    photometric = "rgb" if channels == 3 else "minisblack"
    written = pixels if channels == 3 else pixels[..., 0]
    tifffile.imwrite(path, written, photometric=photometric, **options)
    np.testing.assert_array_equal(read_image(path), pixels)
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags["ImageLength"].overwrite(200)  # instead of 20
    # 50 strips instead of 5, or 13 rows of two tiles instead of 2.
    missing, parts = (45, 50) if "rowsperstrip" in options else (22, 26)
    message = f"{missing} of its {parts} strips or tiles are missing"
    _refused(read_image, path, message)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers(tmp_path, value):
    voxels = _voxels(np.float32)
    voxels[3, 4, 5] = value
    path = write_nifti(tmp_path / "a.nii.gz", voxels)
    _refused(read_nifti, path, r"a\.nii\.gz: has NaN or infinite voxels")

    pixels = (_pixels() / 255).astype(np.float32)
    pixels[3, 4] = value
    tifffile.imwrite(tmp_path / "a.tif", pixels[..., 0])
    _refused(
        lambda path: prepare_image(read_image(path), Preparation(16, 1), str(path)),
        tmp_path / "a.tif",
        r"a\.tif: has NaN or infinite values",
    )


@pytest.mark.parametrize("intensity", ["range", "zscore", "percentile"])
@pytest.mark.parametrize("channels", [1, 3])
def test_constant_images(tmp_path, intensity, channels):
    settings = Preparation(16, channels, intensity=intensity)

    def prepare(path):
        return prepare_image(read_image(path), settings, str(path))

    for colour in ((0, 0, 0), (255, 255, 255), (200, 30, 60)):
        Image.new("RGB", (20, 20), colour).save(tmp_path / "one colour.png")
        _refused(prepare, tmp_path / "one colour.png", "one colour.png: is constant, every")


@pytest.mark.parametrize("value", [0, 7, -1000])
def test_constant_scans(tmp_path, value):
    path = write_nifti(tmp_path / "a.nii", np.full((8, 8, 8), value, np.int16))

    def slices(path):
        return cut([read_nifti(path)], None, Preparation(16, 1), Cutting())

    _refused(slices, path, rf"a\.nii: is constant, every value is {value}; leave it out")


@pytest.mark.parametrize("value", [0, 50])
@pytest.mark.parametrize("foreground", ["nonzero", "all"])
def test_constant_slices_are_left_out(tmp_path, value, foreground):
    voxels = _voxels()
    voxels[:, :, 3] = value
    path = write_nifti(tmp_path / "a.nii", voxels)
    settings = Preparation(16, 1, foreground=foreground)
    slices = cut([read_nifti(path)], None, settings, Cutting())
    assert slices.positions.tolist() == [0, 1, 2, 4, 5, 6, 7] and slices.num_left_out == 1


def test_a_mark_in_a_constant_slice_is_an_error(tmp_path):
    voxels = _voxels()
    voxels[:, :, 3] = 50
    mask = np.zeros(voxels.shape, np.uint8)
    mask[:5, :5, 3] = 1
    path = write_nifti(tmp_path / "a.nii", voxels)
    marks = write_nifti(tmp_path / "a_mask.nii", mask)

    def slices(path, **cutting):
        return cut([read_nifti(path)], read_nifti(marks), Preparation(16, 1), Cutting(**cutting))

    _refused(slices, path, r"a\.nii: slice 3 is constant, but its mask .*config\.data\.volume\.")
    assert len(slices(path, slices=(4, 8)).images) == 4


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.nii", "a.nii.gz"])
def test_what_is_no_file(tmp_path, name):
    path = tmp_path / name
    _refused(_read, path, "no such file; restore it or leave it out")
    path.mkdir()
    _refused(_read, path, "not a regular file; leave it out")
    path.rmdir()
    os.mkfifo(path)  # opening it would block
    _refused(_read, path, "not a regular file; leave it out")
    path.unlink()
    path.symlink_to(path)
    _refused(_read, path, "[Ss]ymbolic link|too many levels")
    path.unlink()
    path.symlink_to(tmp_path / "nothing")
    _refused(_read, path, "no such file")


def test_a_pipe_among_the_slices_of_a_series(tmp_path):
    folder = write_series(tmp_path / "series", _voxels(np.uint16))
    os.mkfifo(folder / "9.dcm")
    with pytest.raises(DataError, match=r"9\.dcm: not a regular file; leave it out"):
        read_series(folder)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.nii", "a.nii.gz"])
@pytest.mark.parametrize("method", ["stat", "open"])
def test_permission_denied(tmp_path, monkeypatch, name, method):
    path = tmp_path / name
    path.write_bytes(_content(tmp_path, path.name[1:]))
    _read(path)
    real = getattr(Path, method)

    def denied(self, *arguments, **options):
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *arguments, **options)

    # Tests may run as root, who has every permission.
    monkeypatch.setattr(Path, method, denied)
    _refused(_read, path, "(?i)permission denied; make it readable or leave it out")


def test_permission_denied_to_the_folder_of_a_series(tmp_path, monkeypatch):
    def denied(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", denied)
    _refused(read_series, tmp_path, "permission denied; make it readable")


@pytest.mark.parametrize("name", ["ein Bild.png", "été.png", "脳.png", "a'b\"c%s{}.png"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_any_name_will_do(tmp_path, name, dtype):
    pixels = _pixels(dtype, 3)
    (tmp_path / name).write_bytes(png(pixels))
    np.testing.assert_array_equal(read_image(tmp_path / name), pixels)


def test_a_name_that_is_no_text(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff\xfe.png")  # not UTF-8
    for dtype in (np.uint8, np.uint16):
        path.write_bytes(png(_pixels(dtype, 3)))
        np.testing.assert_array_equal(read_image(path), _pixels(dtype, 3))


def test_warnings_of_others_come_back_after_threads_that_overlap(tmp_path):
    before = list(warnings.filters)
    entered, left = threading.Event(), threading.Event()

    def first():
        with readable(tmp_path, "file"):
            entered.set()
            left.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    entered.wait(10)
    with readable(tmp_path, "file"):
        left.set()
        thread.join()
        warnings.warn("suppressed", stacklevel=1)  # an error, unless suppressed
    assert warnings.filters == before
