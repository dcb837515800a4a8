"""Reader of image files: PNG, JPEG, TIFF, BMP and PNM, grey and colour, 8 and 16 bit."""

import functools
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tifffile
from jaxtyping import Shaped
from PIL import Image, ImageOps, PpmImagePlugin

from jaxad.data.readers.checks import check_file, check_memory, readable
from jaxad.errors import DataError
from jaxad.runtime.cpu_tensorflow import tensorflow

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".pbm", ".pgm", ".ppm",
    ".pnm",
)  # fmt: skip

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
TIFF_MAGICS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")

#: Formats that Pillow may decode. For others it starts external programs or guesses.
PILLOW_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "PPM")

#: The EXIF and TIFF tag Orientation: on which sides the first row and the first column lie.
ORIENTATION = 274


def read_image(path: Path) -> Shaped[np.ndarray, "h w c"]:
    """Returns the pixels of an image file, rotated as its EXIF or TIFF tag Orientation says.

    Palettes become colours, and an alpha channel is dropped.

    Returns:
        [H, W, 1] grey or [H, W, 3] colour; uint8, uint16, or the type stored in a TIFF file.

    Raises:
        DataError: the file cannot be read, or has several pages or another number of channels.
    """
    check_file(path)
    with readable(path, "image"):
        with path.open("rb") as file:
            head = file.read(26)
        if head[:4] in TIFF_MAGICS:
            pixels = _read_tiff(path)
        # Pillow reads 16-bit colour as 8-bit. PNG: byte 24 is the depth, byte 25 the colour type.
        elif head[:8] == _PNG_MAGIC and head[24:26] in (b"\x10\x02", b"\x10\x04", b"\x10\x06"):
            pixels = _read_deep_png(path)
        else:
            pixels = _read_with_pillow(path)
    if pixels.shape[-1] in (2, 4):
        pixels = pixels[..., :-1]
    if pixels.shape[-1] not in (1, 3):
        raise DataError(f"{path}: has {pixels.shape[-1]} channels; give grey or colour.")
    return pixels


def read_plain(path: Path) -> Image.Image | None:
    """Decodes an 8-bit grey or RGB file with Pillow; returns None for TIFF and all other images.

    Pixels and errors are those of `read_image`, without the copies into NumPy arrays.
    """
    check_file(path)
    with readable(path, "image"), path.open("rb") as file:
        head = file.read(26)
        is_deep = head[:8] == _PNG_MAGIC and head[24] == 16
        if head[:4] in TIFF_MAGICS or is_deep:
            return None
        file.seek(0)
        image = _open_with_pillow(file, path)
        if image.mode not in ("L", "RGB"):
            return None
        ImageOps.exif_transpose(image, in_place=True)
        image.load()
        return image


def _open_with_pillow(file: BinaryIO, path: Path) -> Image.Image:
    """Opens and checks an image whose pixels are not decoded yet."""
    allow_large_images()
    image = Image.open(file, formats=PILLOW_FORMATS)
    check_memory(path, image.width * image.height * 4)
    if isinstance(image, PpmImagePlugin.PpmImageFile) and image.mode == "RGB":
        # Pillow would read deep colour as 8-bit. The decoder's arguments hold the largest value.
        arguments = [tile.args for tile in image.tile if isinstance(tile.args, tuple)]
        if any(isinstance(value, int) and value > 255 for args in arguments for value in args):
            raise DataError(f"{path}: PNM with 16-bit colour is not read; convert it to PNG.")
    return image


def _read_with_pillow(path: Path) -> Shaped[np.ndarray, "h w c"]:
    # Given a path, Pillow memory-maps plain TIFF files and then rotates some of them wrongly.
    with path.open("rb") as file, _open_with_pillow(file, path) as image:
        ImageOps.exif_transpose(image, in_place=True)  # otherwise copies every image
        if image.mode.startswith("I"):
            # 16-bit grey, which some versions of Pillow open as 32-bit integers.
            return np.asarray(image).astype(np.uint16)[..., None]
        mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
        return pixels[..., None] if mode == "L" else pixels


@functools.cache
def allow_large_images() -> None:
    """Lifts Pillow's pixel limit for the process; `check_memory` applies a larger one."""
    Image.MAX_IMAGE_PIXELS = None


def _read_deep_png(path: Path) -> Shaped[np.ndarray, "h w c"]:
    content = path.read_bytes()
    width, height = np.frombuffer(content[16:24], ">u4")
    check_memory(path, int(width) * int(height) * 8)
    tf = tensorflow()
    return tf.io.decode_png(content, dtype=tf.uint16).numpy()


def _read_tiff(path: Path) -> Shaped[np.ndarray, "h w c"]:
    with tifffile.TiffFile(path) as file:
        if len(file.pages) != 1:
            raise DataError(f"{path}: has {len(file.pages)} pages; save one image per file.")
        page = file.pages[0]
        if not isinstance(page, tifffile.TiffPage) or page.dtype is None:
            raise ValueError("its first page is not an image")
        if page.imagedepth != 1:
            raise DataError(f"{path}: has {page.imagedepth} layers; save one image per file.")
        if page.samplesperpixel > 4:
            raise DataError(f"{path}: has {page.samplesperpixel} channels; give grey or colour.")
        check_memory(path, int(np.prod(page.shape, dtype=object)) * page.dtype.itemsize)
        num_parts = int(np.prod(page.chunked, dtype=object))
        num_present = sum(length > 0 for length in page.databytecounts[:num_parts])
        if num_present < num_parts:
            # Both libraries would fill missing parts with black.
            missing = num_parts - num_present
            raise ValueError(f"{missing:,} of its {num_parts:,} strips or tiles are missing")
        is_grey = page.photometric == tifffile.PHOTOMETRIC.MINISBLACK and page.samplesperpixel == 1
        # Pillow knows all compressions and colour spaces, but not deeper pixels.
        if page.dtype.kind in "bu" and (page.dtype.itemsize == 1 or is_grey and page.dtype == "u2"):
            return _read_with_pillow(path)
        return _read_deep_tiff(page, path)


def _read_deep_tiff(page: tifffile.TiffPage, path: Path) -> Shaped[np.ndarray, "h w c"]:
    photometric = tifffile.PHOTOMETRIC(page.photometric)
    is_inverted = photometric == tifffile.PHOTOMETRIC.MINISWHITE
    is_known = photometric in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
    pixels = page.asarray()
    if pixels.dtype.kind not in "uif" or not (is_known or is_inverted):
        raise DataError(
            f"{path}: holds {pixels.dtype} in {photometric.name} colours; save it as grey or RGB."
        )
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    elif page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
        pixels = np.moveaxis(pixels, 0, -1)
    if is_inverted:
        if pixels.dtype.kind != "u":
            raise DataError(
                f"{path}: it is {pixels.dtype} with 0 as white; save it with 0 as black."
            )
        pixels = np.iinfo(pixels.dtype).max - pixels
    orientation = page.tags.valueof(ORIENTATION, 1)
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels.astype(pixels.dtype.newbyteorder("="))
