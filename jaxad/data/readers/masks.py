"""Reader of masks: which pixels a mask marks, and which way up it lies on its image."""

from pathlib import Path

import numpy as np
import tifffile
from jaxtyping import Bool, Shaped
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy import ndimage

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

#: Values of the tag Orientation that exchange rows and columns.
_TRANSPOSING = (5, 6, 7, 8)

_REMEDY = "save it as grey without palette or transparency, 0 where nothing is anomalous."

#: The largest whole number that is taken for the number of a class rather than for a grey level.
_MAX_CLASS = 64

#: Up to this number of classes, none of them has to fill an area.
_FEW_CLASSES = 8

#: How far a float may lie from a whole number: scaled integers are rounded.
_ROUNDING = 1e-3


def read_mask(path: Path, shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Reads which pixels a mask of an image of this shape marks; see `marked_pixels`.

    Black marks nothing.

    Raises:
        DataError: the mask cannot be read, has another shape, or is ambiguous: soft edges,
            transparency that contradicts the colours, or a palette whose entry 0 is not black.
    """
    pixels = read_image(path)
    if pixels.shape[:2] != shape:
        raise DataError(
            f"{path}: the mask has shape {pixels.shape[:2]}, but its image has {shape}; give a "
            "mask of the image's size, or leave the image out."
        )
    with readable(path, "image"), path.open("rb") as file:
        is_lossy = file.read(3) == _JPEG_MAGIC
    numbers, opacity = _palette_numbers_and_opacity(path)
    is_black = (pixels == 0).all(axis=-1)
    is_grey = bool((pixels[..., 1:] == pixels[..., :-1]).all())
    if numbers is not None and not is_grey and ((numbers == 0) != is_black).any():
        raise DataError(f"{path}: the mask has a palette whose entry 0 is not black; {_REMEDY}")
    # An alpha channel that is opaque everywhere says nothing.
    if opacity is not None and (opacity != 255).any() and ((opacity == 0) != is_black).any():
        raise DataError(
            f"{path}: the transparent pixels of the mask are not its black ones; {_REMEDY}"
        )
    is_colour = not is_grey and numbers is None
    if is_grey:
        numbers = pixels[..., 0]
    elif numbers is None:
        if pixels.dtype.kind != "u" or pixels.itemsize > 2:
            raise DataError(f"{path}: the mask has {pixels.dtype} colours; {_REMEDY}")
        numbers = pixels.astype(np.int64) @ np.array([2**32, 2**16, 1])
    return marked_pixels(numbers, str(path), is_lossy=is_lossy, is_colour=is_colour)


def _palette_numbers_and_opacity(
    path: Path,
) -> tuple[Shaped[np.ndarray, "h w"] | None, Shaped[np.ndarray, "h w"] | None]:
    """Returns the palette index of each pixel and the alpha channel; None where there is none."""
    allow_large_images()
    with readable(path, "image"), path.open("rb") as file:
        try:
            image = Image.open(file, formats=PILLOW_FORMATS)
        except UnidentifiedImageError:  # a TIFF file of numbers that are no colours
            return None, None
        has_alpha = "transparency" in image.info or "A" in image.getbands()
        has_palette = image.mode in ("P", "PA")
        if not has_alpha and not has_palette:
            return None, None
        ImageOps.exif_transpose(image, in_place=True)
        numbers = np.asarray(image.getchannel(0)) if has_palette else None
        opacity = np.asarray(image.convert("RGBA").getchannel(3)) if has_alpha else None
        return numbers, opacity


def marked_pixels(
    values: Shaped[np.ndarray, "..."],
    name: str,
    *,
    is_lossy: bool = False,
    is_colour: bool = False,
) -> Bool[np.ndarray, "..."]:
    """Tells where a mask, [H, W] or [X, Y, Z], is not 0, if its values have a clear meaning.

    They do if the mask holds 0 and one other value, class numbers, or grey levels that each fill an
    area (of more than `_FEW_CLASSES` class numbers, half must fill one). JPEG and smooth resizing
    leave levels that occur along edges only. With `is_lossy`, the file format changes values; with
    `is_colour`, each value stands for a colour and is no class number.

    Raises:
        DataError: a value is negative or not a number, or the mask has a soft edge.
    """
    if values.dtype.kind == "b":
        return values
    if values.dtype.kind not in "uif":
        raise DataError(f"{name}: the mask is {values.dtype}; write it as whole numbers.")
    lowest, highest = (values.min(), values.max()) if values.size else (0, 0)
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise DataError(f"{name}: the mask has NaN or infinite values; write 0 or 1 there.")
    if lowest < 0:
        raise DataError(
            f"{name}: the mask has values below 0, down to {lowest:g}; write 0 where nothing is "
            "anomalous and 1 elsewhere."
        )
    if values.dtype.kind == "f":
        whole = np.rint(values)
        if highest >= 0.5 and (np.abs(values - whole) <= _ROUNDING).all():
            values = whole
    levels = np.unique(values[values != 0])
    has_several = len(levels) > 1
    if has_several and (values != 0).all():
        raise DataError(
            f"{name}: the mask has {len(levels):,} {'colours' if is_colour else 'values'} and is "
            f"nowhere {'black' if is_colour else '0'}; write 0 where nothing is anomalous."
        )
    is_dark = len(levels) == 1 and not is_colour and levels[0] < 2 * _MAX_CLASS
    is_soft = has_several and (is_lossy or not _are_classes(values, levels, is_colour))
    if is_soft or (is_lossy and is_dark):
        noun = ("colour" if is_colour else "value") + "s" * has_several
        counted = f"{len(levels):,} {noun} beside {'black' if is_colour else '0'}"
        if not is_colour:
            counted += f", from {levels[0]:g} to {levels[-1]:g}"
        raise DataError(
            f"{name}: the mask has {counted}, probably from JPEG compression or resizing, so its "
            "edge is uncertain; save it in a lossless format (PNG, not JPEG) with two values, 0 "
            "and 1 or 255."
        )
    return values != 0


def _are_classes(
    values: Shaped[np.ndarray, "..."], levels: Shaped[np.ndarray, " n"], is_colour: bool
) -> bool:
    """Tells whether the levels are classes rather than steps of a soft edge."""
    if len(levels) > _MAX_CLASS:
        return False
    is_whole = levels.dtype.kind != "f" or bool((levels == np.rint(levels)).all())
    if is_colour or not is_whole or levels[-1] > _MAX_CLASS:
        return _num_areas(values, levels[:-1]) == len(levels) - 1
    # A class may be small everywhere; most levels of a soft edge are.
    return len(levels) <= _FEW_CLASSES or 2 * _num_areas(values, levels) >= len(levels)


def _num_areas(values: Shaped[np.ndarray, "..."], levels: Shaped[np.ndarray, " n"]) -> int:
    """Counts the levels that fill 3 x 3 pixels somewhere."""
    block = np.ones((3, 3) + (1,) * (values.ndim - 2), bool)
    # Most of a scan is empty: look at the bounding box only.
    values = values[ndimage.find_objects((values != 0).astype(np.int8))[0]]
    return sum(bool(ndimage.binary_erosion(values == level, block).any()) for level in levels)


def check_orientation(image: Path, mask: Path, shape: tuple[int, int]) -> None:
    """Raises a DataError if it is uncertain which way up a mask lies on its image.

    An image is rotated, to `shape`, as its tag Orientation says. A mask without that tag may have
    been drawn on the stored pixels or on the rotated ones, unless `shape` allows only one of them.
    """
    tags = {image: orientation_of(image), mask: orientation_of(mask)}
    if tags[image] == tags[mask]:
        return
    rotated = [tag for tag in tags.values() if tag != 1]
    if len(rotated) == 1 and rotated[0] in _TRANSPOSING and shape[0] != shape[1]:
        return  # the shape allows one way only; `read_mask` refuses any other shape
    listed = " and ".join(f"{tag} in '{path}'" for path, tag in tags.items())
    raise DataError(
        f"{mask}: it is uncertain which way up the mask lies: the EXIF or TIFF tag Orientation is "
        f"{listed}; save both without the tag, as they fit each other, or leave the image out."
    )


def orientation_of(path: Path) -> int:
    """Returns the EXIF or TIFF tag Orientation of an image file; 1 (as stored) without a tag."""
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
