"""Checks and conversion of image arrays: whatever a caller has becomes float32 in [0, 1]."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Shaped

from jaxad.errors import UserError

#: Integer types whose range stands for [0, 1], with their largest values.
LARGEST = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}


def native(array: object, source: str) -> np.ndarray:
    """Returns real numbers as a plain array in native byte order, without a copy if possible.

    Raises:
        UserError: it is not an array, holds no real numbers, or some of its values are masked.
    """
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise UserError(
            f"{source}: has masked values; fill them in, for example with numpy.ma.filled."
        )
    try:
        numbers = np.asarray(array)
    except (ValueError, TypeError) as error:  # lists of different lengths
        raise UserError(
            f"{source}: is not an array ({error}); give one of real numbers."
        ) from error
    if numbers.dtype.kind not in "buif":
        raise UserError(f"{source}: holds {numbers.dtype}; give real numbers.")
    return numbers.astype(numbers.dtype.newbyteorder("="), copy=False)


def check_images(
    images: np.ndarray, ids: Sequence[str], image_shape: tuple[int, int, int], source: str
) -> None:
    """Raises a UserError that names the first image that a detector cannot take.

    Valid images are [N, H, W, C], uint8, uint16 or float in [0, 1], with (H, W, C) = `image_shape`.
    """
    shape = tuple(images.shape)
    if len(shape) != 4:
        raise UserError(
            f"{source}: images have rank {len(shape)} (shape {shape}); give [N, H, W, C], here "
            f"[N, {', '.join(map(str, image_shape))}]."
        )
    if shape[1:] != tuple(image_shape):
        first = f" (first image: '{ids[0]}')" if len(ids) else ""
        remedy, field = "resize them", "config.data.image_size"
        if shape[1:3] == tuple(image_shape[:2]):
            count = f"{image_shape[2]} channel{'s' * (image_shape[2] != 1)}"
            remedy, field = f"give them {count}", "config.data.channels"
        raise UserError(
            f"{source}: images are {shape[1:]}{first}, but the config needs {tuple(image_shape)}; "
            f"{remedy} or, before training, change {field}."
        )
    if images.dtype.newbyteorder("=") in LARGEST:
        return
    if not np.issubdtype(images.dtype, np.floating):
        raise UserError(
            f"{source}: images are {images.dtype}; give uint8, uint16 or float in [0, 1]."
        )
    lowest, highest = images.min(axis=(1, 2, 3)), images.max(axis=(1, 2, 3))
    # NaN and infinity propagate through min and max.
    not_finite = ~(np.isfinite(lowest) & np.isfinite(highest))
    if not_finite.any():
        raise UserError(
            f"{source}: image '{ids[int(np.argmax(not_finite))]}' has NaN or infinite pixels; "
            "repair it or leave it out."
        )
    outside = (lowest < 0) | (highest > 1)
    if outside.any():
        index = int(np.argmax(outside))
        raise UserError(
            f"{source}: image '{ids[index]}' has values in [{lowest[index]:.4g}, "
            f"{highest[index]:.4g}]; scale images to [0, 1] with background 0."
        )


def are_constant(images: Shaped[np.ndarray, "n h w c"]) -> Bool[np.ndarray, " n"]:
    """Tells which images have one colour in all pixels."""
    constant = np.zeros(len(images), bool)
    # Every eighth pixel rules out nearly all images at little cost.
    sample = images[:, ::8, ::8]
    for index in np.flatnonzero((sample == sample[:, :1, :1]).all(axis=(1, 2, 3))):
        constant[index] = (images[index] == images[index, :1, :1]).all()
    return constant


def to_unit_interval(images: np.ndarray) -> Float[np.ndarray, "*batch"]:
    """Converts to float32 in [0, 1]: uint8 / 255, uint16 / 65535, floats unchanged; copies."""
    largest = LARGEST.get(images.dtype.newbyteorder("="))
    converted = images.astype(np.float32)
    return converted if largest is None else converted / np.float32(largest)
