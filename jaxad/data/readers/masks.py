"""Masks in image files: which pixels they mark, and which way up they lie on their image."""

from pathlib import Path

import numpy as np
import tifffile
from jaxtyping import Bool, Shaped
from PIL import Image, ImageOps, UnidentifiedImageError

from jaxad.data.files.masks import marked
from jaxad.data.readers.checks import readable
from jaxad.data.readers.images import (
    ORIENTATION,
    PILLOW_FORMATS,
    TIFF_MAGICS,
    allow_large_images,
    read_image,
)
from jaxad.errors import DataError

_JPEG_MAGIC = b"\xff\xd8\xff"

#: Values of EXIF's orientation that exchange rows and columns.
_TRANSPOSING = (5, 6, 7, 8)

_REMEDY = "save it as grey without palette or transparency, 0 where nothing is anomalous."


def read_mask(path: Path, shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Which pixels a mask file marks; see `jaxad.data.files.masks.marked`.

    Colours are classes, black is none of them.

    Raises:
        DataError: it cannot be read, is not of this shape (H, W), or is ambiguous: grey along
            edges alone, transparent, or of a coloured palette whose first colour is not black.
    """
    pixels = read_image(path)
    if pixels.shape[:2] != shape:
        raise DataError(
            f"{path}: the mask has shape {pixels.shape[:2]}, its image {shape}; give a mask of the "
            "image's size, or leave the image out."
        )
    with readable(path, "image"), path.open("rb") as file:
        is_lossy = file.read(3) == _JPEG_MAGIC
    numbers, opacity = _numbers_and_opacity(path)
    is_black = (pixels == 0).all(axis=-1)
    is_grey = bool((pixels[..., 1:] == pixels[..., :-1]).all())
    if numbers is not None and not is_grey and ((numbers == 0) != is_black).any():
        raise DataError(
            f"{path}: the mask has a palette whose number 0 is not its black; {_REMEDY}"
        )
    # Opaque everywhere, it says nothing.
    if opacity is not None and (opacity != 255).any() and ((opacity == 0) != is_black).any():
        raise DataError(
            f"{path}: the mask has transparent pixels that are not its black ones; {_REMEDY}"
        )
    is_colour = not is_grey and numbers is None
    if is_grey:
        numbers = pixels[..., 0]
    elif numbers is None:
        numbers = _colours(pixels, path)
    return marked(numbers, str(path), is_lossy=is_lossy, is_colour=is_colour)


def _colours(pixels: Shaped[np.ndarray, "h w 3"], path: Path) -> Shaped[np.ndarray, "h w"]:
    """One number for each colour, 0 for black."""
    if pixels.dtype.kind != "u" or pixels.itemsize > 2:
        raise DataError(f"{path}: the mask has colours of {pixels.dtype}; {_REMEDY}")
    return pixels.astype(np.int64) @ np.array([2**32, 2**16, 1])


def _numbers_and_opacity(
    path: Path,
) -> tuple[Shaped[np.ndarray, "h w"] | None, Shaped[np.ndarray, "h w"] | None]:
    """The numbers of colours in a palette, and the alpha channel; None where there is none."""
    allow_large_images()
    with readable(path, "image"), path.open("rb") as file:
        try:
            image = Image.open(file, formats=PILLOW_FORMATS)
        except UnidentifiedImageError:  # TIFF of numbers that are no colours
            return None, None
        has_alpha = "transparency" in image.info or "A" in image.getbands()
        has_palette = image.mode in ("P", "PA")
        if not has_alpha and not has_palette:
            return None, None
        ImageOps.exif_transpose(image, in_place=True)
        numbers = np.asarray(image.getchannel(0)) if has_palette else None
        opacity = np.asarray(image.convert("RGBA").getchannel(3)) if has_alpha else None
        return numbers, opacity


def check_orientation(image: Path, mask: Path, shape: tuple[int, int]) -> None:
    """Raises a DataError where it is uncertain which way up a mask lies on its image.

    An image is turned as its tag says. Without that tag its mask may have been drawn on the stored
    pixels or on the turned ones, unless their shapes tell.

    Args:
        image: its file.
        mask: its mask's file.
        shape: of the turned image (H, W).
    """
    tags = {image: orientation_of(image), mask: orientation_of(mask)}
    if tags[image] == tags[mask]:
        return
    turned = [tag for tag in tags.values() if tag != 1]
    if len(turned) == 1 and turned[0] in _TRANSPOSING and shape[0] != shape[1]:
        return  # of the two ways the shape allows for one; another shape is refused later
    listed = " and ".join(f"{tag} in '{path}'" for path, tag in tags.items())
    raise DataError(
        f"{mask}: it is uncertain which way up the mask lies: the EXIF or TIFF tag Orientation is "
        f"{listed}; save both without the tag, as they fit each other, or leave the image out."
    )


def orientation_of(path: Path) -> int:
    """The EXIF or TIFF tag Orientation of an image file; 1, as stored, where there is none.

    Raises:
        DataError: it cannot be read.
    """
    allow_large_images()
    with readable(path, "image"), path.open("rb") as file:
        if file.read(4) in TIFF_MAGICS:
            with tifffile.TiffFile(path) as tiff:
                tag = tiff.pages.first.tags.valueof(ORIENTATION, 1)
        else:
            file.seek(0)
            with Image.open(file, formats=PILLOW_FORMATS) as opened:
                tag = opened.getexif().get(ORIENTATION, 1)
    return int(tag) if tag in range(1, 9) else 1
