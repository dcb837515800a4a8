"""Image files: PNG, JPEG and TIFF, grey and colour, 8 and 16 bit."""

import functools
from pathlib import Path

import numpy as np
import tifffile
from jaxtyping import Bool, Shaped
from PIL import Image, ImageOps

from jaxad.data.readers.checks import check_file, check_memory, readable
from jaxad.errors import DataError
from jaxad.host_tensorflow import tensorflow

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_TIFF_MAGICS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")

#: Pillow's modes that hold more than 8 bits in one channel.
_DEEP_MODES = {"I;16": np.uint16, "I;16B": np.uint16, "I": np.int32, "F": np.float32}


def read_image(path: Path) -> Shaped[np.ndarray, "h w c"]:
    """The pixels of an image file.

    Palettes become colours, an alpha channel is dropped, and a photograph is turned as its EXIF
    says.

    Returns:
        [H, W, 1] grey or [H, W, 3] colour; uint8, uint16, or as a TIFF file has them.

    Raises:
        DataError: it cannot be read, or has several pages or another number of channels.
    """
    check_file(path)
    with readable(path, "image"):
        with path.open("rb") as file:
            head = file.read(26)
        if head[:4] in _TIFF_MAGICS:
            pixels = _read_tiff(path)
        # Pillow reads 16-bit colour as 8-bit. Byte 24 of a PNG file: bits, byte 25: colour type.
        elif head[:8] == _PNG_MAGIC and head[24:26] in (b"\x10\x02", b"\x10\x04", b"\x10\x06"):
            pixels = _read_deep_png(path)
        else:
            pixels = _read_with_pillow(path)
    if pixels.shape[-1] in (2, 4):
        pixels = pixels[..., :-1]
    if pixels.shape[-1] not in (1, 3):
        raise DataError(f"{path}: has {pixels.shape[-1]} channels; give grey or colour.")
    return pixels


def read_mask(path: Path, shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Where a mask file is not 0.

    Raises:
        DataError: it cannot be read, or is not of this shape (H, W).
    """
    pixels = read_image(path)
    if pixels.shape[:2] != shape:
        raise DataError(
            f"{path}: the mask has shape {pixels.shape[:2]}, its image {shape}; give a mask of the "
            "image's size or remove it."
        )
    return (pixels != 0).any(axis=-1)


def _read_with_pillow(path: Path) -> Shaped[np.ndarray, "h w c"]:
    _allow_large_images()
    with Image.open(path) as opened:
        # The header is read, the pixels are not yet.
        check_memory(path, opened.width * opened.height * 4)
        image = ImageOps.exif_transpose(opened)
        if image.mode in _DEEP_MODES:
            # Pillow opens some 16-bit files as 32-bit integers.
            pixels = np.asarray(image)
            deep = pixels.dtype == np.int32 and pixels.min() >= 0 and pixels.max() <= 65535
            return np.asarray(pixels, np.uint16 if deep else None)[..., None]
        if image.mode in ("1", "L", "LA"):
            return np.asarray(image.convert("L"))[..., None]
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


@functools.cache
def _allow_large_images() -> None:
    """Pillow's own limit is for the whole process; `check_memory` is ours, and larger."""
    Image.MAX_IMAGE_PIXELS = None


def _read_deep_png(path: Path) -> Shaped[np.ndarray, "h w c"]:
    width, height = np.frombuffer(path.read_bytes()[16:24], ">u4")
    check_memory(path, int(width) * int(height) * 8)
    tf = tensorflow()
    return tf.io.decode_png(tf.io.read_file(str(path)), dtype=tf.uint16).numpy()


def _read_tiff(path: Path) -> Shaped[np.ndarray, "h w c"]:
    with tifffile.TiffFile(path) as file:
        if len(file.pages) != 1:
            raise DataError(f"{path}: has {len(file.pages)} pages; give one image a file.")
        page = file.pages[0]
        if not isinstance(page, tifffile.TiffPage) or page.dtype is None:
            raise ValueError("its first page is no image")
        check_memory(path, int(np.prod(page.shape, dtype=object)) * page.dtype.itemsize)
        photometric = page.photometric
        if photometric in (tifffile.PHOTOMETRIC.PALETTE, tifffile.PHOTOMETRIC.MINISWHITE):
            return _read_with_pillow(path)  # which knows what their numbers mean
        pixels = page.asarray()
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    elif pixels.ndim == 3 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim != 3:
        raise DataError(f"{path}: has {pixels.ndim} axes {pixels.shape}; give one image a file.")
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    return pixels.astype(pixels.dtype.newbyteorder("="))
