"""Image files: PNG, JPEG, TIFF, BMP and PNM, grey and colour, 8 and 16 bit."""

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

#: What Pillow may decode; for other kinds, whatever the name says, it starts programs or guesses.
PILLOW_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "PPM")

#: The TIFF tag that says where the first row and the first column are.
ORIENTATION = 274


def read_image(path: Path) -> Shaped[np.ndarray, "h w c"]:
    """The pixels of an image file.

    Palettes become colours, an alpha channel is dropped, and an image is turned as its EXIF or
    TIFF tags say.

    Returns:
        [H, W, 1] grey or [H, W, 3] colour; uint8, uint16, or as a TIFF file has them.

    Raises:
        DataError: it cannot be read, or has several pages or another number of channels.
    """
    check_file(path)
    with readable(path, "image"):
        with path.open("rb") as file:
            head = file.read(26)
        if head[:4] in TIFF_MAGICS:
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


def read_plain(path: Path) -> Image.Image | None:
    """A file of 8-bit grey or RGB, but TIFF, as Pillow decodes it; None for all others.

    The pixels are those of `read_image`, without the copies that NumPy takes.

    Raises:
        DataError: see `read_image`.
    """
    check_file(path)
    with readable(path, "image"), path.open("rb") as file:
        head = file.read(26)
        is_deep = head[:8] == _PNG_MAGIC and head[24] == 16
        if head[:4] in TIFF_MAGICS or is_deep:
            return None
        file.seek(0)
        return _open_plain(file, path)


def _open_plain(file: BinaryIO, path: Path) -> Image.Image | None:
    allow_large_images()
    image = Image.open(file, formats=PILLOW_FORMATS)
    check_memory(path, image.width * image.height * 4)
    _check_depth(image, path)
    if image.mode not in ("L", "RGB"):
        return None
    ImageOps.exif_transpose(image, in_place=True)
    image.load()
    return image


def _read_with_pillow(path: Path) -> Shaped[np.ndarray, "h w c"]:
    allow_large_images()
    # Given a name, it maps plain TIFF files into memory, and those that are to be turned wrongly.
    with path.open("rb") as file, Image.open(file, formats=PILLOW_FORMATS) as opened:
        # The header is read, the pixels are not yet.
        check_memory(path, opened.width * opened.height * 4)
        _check_depth(opened, path)
        ImageOps.exif_transpose(opened, in_place=True)  # a copy of every image otherwise
        if opened.mode.startswith("I"):
            # Grey of 16 bits, which some versions of Pillow open as 32-bit integers.
            return np.asarray(opened).astype(np.uint16)[..., None]
        mode = "L" if opened.mode in ("1", "L", "LA") else "RGB"
        pixels = np.asarray(opened if opened.mode == mode else opened.convert(mode))
        return pixels[..., None] if mode == "L" else pixels


def _check_depth(image: Image.Image, path: Path) -> None:
    """Raises a DataError for PNM of deep colour, which Pillow would read as 8-bit."""
    if not isinstance(image, PpmImagePlugin.PpmImageFile) or image.mode != "RGB":
        return
    # The largest value is among them, where it is not 255.
    arguments = [tile.args for tile in image.tile if isinstance(tile.args, tuple)]
    if any(isinstance(most, int) and most > 255 for one in arguments for most in one):
        raise DataError(f"{path}: is PNM of deep colour, which is not read; convert it to PNG.")


@functools.cache
def allow_large_images() -> None:
    """Lifts Pillow's limit of pixels, for the whole process; `check_memory` has a larger one."""
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
            raise DataError(f"{path}: has {len(file.pages)} pages; give one image a file.")
        page = file.pages[0]
        if not isinstance(page, tifffile.TiffPage) or page.dtype is None:
            raise ValueError("its first page is no image")
        if page.imagedepth != 1:
            raise DataError(f"{path}: has {page.imagedepth} layers; give one image a file.")
        if page.samplesperpixel > 4:
            raise DataError(f"{path}: has {page.samplesperpixel} channels; give grey or colour.")
        check_memory(path, int(np.prod(page.shape, dtype=object)) * page.dtype.itemsize)
        parts = int(np.prod(page.chunked, dtype=object))
        there = sum(length > 0 for length in page.databytecounts[:parts])
        if there < parts:
            # Both libraries would take what is not there as black.
            raise ValueError(f"{parts - there:,} of its {parts:,} strips or tiles are missing")
        grey = page.photometric == tifffile.PHOTOMETRIC.MINISBLACK and page.samplesperpixel == 1
        # Pillow knows all compressions and kinds of colour, but not what is deeper.
        if page.dtype.kind in "bu" and (page.dtype.itemsize == 1 or grey and page.dtype == "u2"):
            return _read_with_pillow(path)
        return _read_deep_tiff(page, path)


def _read_deep_tiff(page: tifffile.TiffPage, path: Path) -> Shaped[np.ndarray, "h w c"]:
    photometric = tifffile.PHOTOMETRIC(page.photometric)
    inverted = photometric == tifffile.PHOTOMETRIC.MINISWHITE
    known = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
    pixels = page.asarray()
    if pixels.dtype.kind not in "uif" or not (photometric in known or inverted):
        raise DataError(
            f"{path}: holds {photometric.name} of {pixels.dtype}; save it as grey or RGB."
        )
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    elif page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
        pixels = np.moveaxis(pixels, 0, -1)
    if inverted:
        if pixels.dtype.kind != "u":
            raise DataError(f"{path}: its white is {pixels.dtype} 0; save it with a black of 0.")
        pixels = np.iinfo(pixels.dtype).max - pixels
    orientation = page.tags.valueof(ORIENTATION, 1)
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels.astype(pixels.dtype.newbyteorder("="))
