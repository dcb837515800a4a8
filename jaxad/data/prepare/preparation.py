"""From the pixels of a file to an image of a data set: intensities, square, size, depth.

The same functions prepare a data set and, later, what a trained run is to score: all that they
depend on is in `config.data`. They end in uint8 or uint16, so that an image is the same to the bit
whether it comes from a cache or straight from its file.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped
from PIL import Image
from skimage.filters import threshold_otsu

from jaxad.errors import DataError, UserError

#: Where intensities are normalised the foreground stays above the background, which is 0.
_LEAST_FOREGROUND = 1 / 255

#: The part of a scan that is 0 at least where 0 is the background and values may be negative.
_LEAST_BACKGROUND = 0.05

#: Largest values of the integer types that stand for [0, 1].
LARGEST = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}


@dataclasses.dataclass(frozen=True)
class Preparation:
    """How pixels become an image; see `config.data.preprocess`.

    Attributes:
        image_size: pixels a side.
        channels: of the image; grey and colour are converted to each other.
        intensity: `range` takes the type's range (uint8, uint16) or [0, 1] (floats) as it is;
            `zscore` subtracts the mean of the foreground, divides by its standard deviation, clips
            to +-`clip` and maps to [0, 1]; `percentile` maps `percentiles` of the foreground to 0
            and 1 and clips. `auto` is `range` for images and `zscore` for volumes. Where
            intensities are normalised the background becomes 0.
        foreground: `nonzero` pixels, `all`, or those above the threshold of `otsu`.
        clip: in standard deviations.
        percentiles: lower and upper one.
        square: `pad` with zeros, `crop` to the middle, or `stretch`.
    """

    image_size: int
    channels: int
    intensity: str = "auto"
    foreground: str = "nonzero"
    clip: float = 3.0
    percentiles: tuple[float, float] = (1.0, 99.0)
    square: str = "pad"

    def __post_init__(self) -> None:
        if len(self.percentiles) != 2 or not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise UserError(
                f"config.data.preprocess.percentiles: {self.percentiles}; give a lower and an "
                "upper one between 0 and 100."
            )

    def of_images(self) -> "Preparation":
        """With `auto` resolved for images that are no slices of a volume."""
        return self._resolved("range")

    def of_volumes(self) -> "Preparation":
        """With `auto` resolved for volumes."""
        return self._resolved("zscore")

    def _resolved(self, automatic: str) -> "Preparation":
        own = self.intensity
        return dataclasses.replace(self, intensity=automatic if own == "auto" else own)


def check_pixels(pixels: Shaped[np.ndarray, "..."], name: str) -> None:
    """Raises a DataError where there is nothing to see, or something that is no number."""
    if not pixels.size:
        raise DataError(f"{name}: holds no pixels; leave it out.")
    lowest, highest = pixels.min(), pixels.max()
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise DataError(f"{name}: has NaN or infinite values; repair it or leave it out.")
    if lowest == highest:
        raise DataError(f"{name}: is constant, every value is {lowest:g}; leave it out.")


def to_channels(
    pixels: Shaped[np.ndarray, "h w c"], channels: int, name: str
) -> Shaped[np.ndarray, "h w k"]:
    """Grey repeated, or colour weighted to grey (ITU-R BT.601), where the channels differ.

    Raises:
        DataError: they can be neither.
    """
    given = pixels.shape[-1]
    if given == channels:
        return pixels
    if given == 1:
        return np.repeat(pixels, channels, axis=-1)
    if given == 3 and channels == 1:
        weights = np.array([0.299, 0.587, 0.114], np.result_type(pixels.dtype, np.float32))
        if pixels.dtype == np.uint8:  # as the plain images of prepare_plain
            return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
        grey = pixels.astype(weights.dtype) @ weights
        if pixels.dtype in LARGEST:
            grey = np.rint(grey).astype(pixels.dtype)
        return grey[..., None]
    raise DataError(
        f"{name}: has {given} channels, config.data.channels is {channels}; only grey and colour "
        "are converted to each other."
    )


def foreground_of(
    pixels: Shaped[np.ndarray, "..."], foreground: str, name: str
) -> Bool[np.ndarray, "..."]:
    """Where there is something to see; `otsu` needs more than one value."""
    if foreground == "all":
        return np.ones(pixels.shape, bool)
    if foreground == "nonzero":
        inside = pixels != 0
        # Of CT 0 is water, and air is about -1000.
        if pixels.min() < 0 and inside.mean() > 1 - _LEAST_BACKGROUND:
            raise DataError(
                f"{name}: has negative values and hardly a 0, so that 0 is not its background; set "
                "config.data.preprocess.foreground to otsu or all."
            )
        return inside
    values = pixels.ravel()  # of an image, its last axis might be taken for colours
    lowest, highest = values.min(), values.max()
    if lowest == highest:
        raise DataError(f"{name}: is constant, every value is {lowest:g}; leave it out.")
    if values.dtype.itemsize > 2:
        # In [0, 1]: of integers every number between is counted, and there may be 2**32.
        low, high = float(lowest) / 2, float(highest) / 2  # their difference may be too large
        values = (values / 2 - low) / (high - low)
    return (values > threshold_otsu(values)).reshape(pixels.shape)


def normalise(
    pixels: Shaped[np.ndarray, "..."], settings: Preparation, name: str
) -> Shaped[np.ndarray, "..."]:
    """Intensities in [0, 1], the background 0; all values given are taken together.

    Args:
        pixels: of any shape, finite, of more than one value.
        settings: without `auto`.
        name: for messages.

    Returns:
        uint8 or uint16 as given where their range is kept, else float32 in [0, 1].

    Raises:
        DataError: no foreground, a constant one, or a range that is not known.
    """
    if settings.intensity == "range":
        return _keep_range(pixels, name)
    inside = foreground_of(pixels, settings.foreground, name)
    values = pixels[inside]
    if not values.size or values.min() == values.max():
        raise DataError(
            f"{name}: has no foreground of more than one value "
            f"(config.data.preprocess.foreground={settings.foreground}); leave it out."
        )
    # Integers of more than 16 bits and float64 would lose digits in float32.
    mapped = pixels.astype(np.result_type(pixels.dtype, np.float32))
    # What is too large to be squared or subtracted is told below, or clipped.
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if settings.intensity == "zscore":
            scale = 2 * settings.clip * float(values.std(dtype=np.float64))
            low = float(values.mean(dtype=np.float64)) - scale / 2
        else:
            low, high = (
                float(value)
                for value in np.percentile(
                    values.astype(np.float64), settings.percentiles, overwrite_input=True
                )
            )
            if low == high:
                raise DataError(
                    f"{name}: the percentiles {settings.percentiles} of its foreground are both "
                    f"{low:g}; widen config.data.preprocess.percentiles or leave it out."
                )
            scale = high - low
        start, extent = mapped.dtype.type(low), mapped.dtype.type(scale)
        if not (np.isfinite(start) and 0 < extent < np.inf):
            raise DataError(
                f"{name}: has values in [{values.min():.4g}, {values.max():.4g}], which cannot be "
                "told apart or are too large; repair it or leave it out."
            )
        mapped -= start
        mapped /= extent
    np.clip(mapped, _LEAST_FOREGROUND, 1, out=mapped)
    mapped[~inside] = 0
    return mapped.astype(np.float32, copy=False)


def _keep_range(pixels: Shaped[np.ndarray, "..."], name: str) -> Shaped[np.ndarray, "..."]:
    if pixels.dtype in LARGEST:
        return pixels
    if not np.issubdtype(pixels.dtype, np.floating):
        raise DataError(
            f"{name}: is {pixels.dtype}, whose range says nothing; set "
            "config.data.preprocess.intensity to percentile or zscore."
        )
    lowest, highest = float(pixels.min()), float(pixels.max())
    if lowest < 0 or highest > 1:
        raise DataError(
            f"{name}: has values in [{lowest:.4g}, {highest:.4g}]; scale them to [0, 1], or set "
            "config.data.preprocess.intensity to percentile or zscore."
        )
    return pixels.astype(np.float32)


def quantise(pixels: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """Floats in [0, 1] as uint16; integers as they are."""
    if pixels.dtype in LARGEST:
        return pixels
    return np.rint(np.clip(pixels, 0, 1) * 65535).astype(np.uint16)


def to_depth(pixels: Shaped[np.ndarray, "..."], dtype: Any) -> Shaped[np.ndarray, "..."]:
    """uint8 or uint16 in the other one's range: 255 and 65535 are both 1."""
    wanted = np.dtype(dtype)
    if pixels.dtype == wanted:
        return pixels
    if wanted == np.uint16:
        return pixels.astype(np.uint16) * np.uint16(257)
    return np.rint(pixels / 257).astype(np.uint8)
