"""Intensities, channels and depth: how raw pixels become those of an image of the data set.

The same functions prepare a data set and, later, the images that a trained run scores; everything
they depend on is in `config.data`. They end in uint8 or uint16, so that an image is the same bit
for bit whether it comes from a cache or from its file.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped
from PIL import Image
from skimage.filters import threshold_otsu

from jaxad.data.prepare.preprocess import LARGEST
from jaxad.errors import DataError, UserError

#: Normalised foreground stays above the background, which is 0.
_MIN_FOREGROUND = 1 / 255

#: If a scan has negative values, at least this share of it must be 0 for 0 to be its background.
_MIN_BACKGROUND = 0.05

#: A background is noise if at least the first share of the border is dark and less than the second
#: is 0. The neck, or corners that were padded with 0, may fill the rest.
_DARK_BORDER, _ZERO_BORDER = 0.75, 0.5


class BlankImageError(DataError):
    """All pixels of an image have the same value, as in the outermost slices of a scan."""


@dataclasses.dataclass(frozen=True)
class Preparation:
    """How pixels become an image; see `config.data.preprocess`."""

    image_size: int  # pixels per side
    channels: int  # the number of channels; grey and colour are converted to each other
    #: `range` keeps the range of uint8, of uint16, or [0, 1] of floats; `zscore` subtracts the mean
    #: of the foreground, divides by its standard deviation, clips to +-`clip` and maps to [0, 1];
    #: `percentile` maps `percentiles` of the foreground to 0 and 1 and clips. `auto` is `range` for
    #: images and `zscore` for volumes. `zscore` and `percentile` set the background to 0
    intensity: str = "auto"
    foreground: str = "nonzero"  # `nonzero` pixels, `all`, or those above the threshold of `otsu`
    clip: float = 3.0  # the limit of intensities, in standard deviations
    #: the lower and the upper percentile, in [0, 100]
    percentiles: tuple[float, float] = (1.0, 99.0)
    square: str = "pad"  # `pad` with 0, `crop` to the middle, or `stretch`

    def __post_init__(self) -> None:
        if len(self.percentiles) != 2 or not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise UserError(
                f"config.data.preprocess.percentiles: {self.percentiles}; give a lower and an "
                "upper percentile between 0 and 100."
            )

    def of_images(self) -> "Preparation":
        """Returns these settings with `auto` resolved for images."""
        return self._resolve("range")

    def of_volumes(self) -> "Preparation":
        """Returns these settings with `auto` resolved for volumes."""
        return self._resolve("zscore")

    def _resolve(self, automatic: str) -> "Preparation":
        return dataclasses.replace(self, intensity=automatic) if self.intensity == "auto" else self


def check_pixels(pixels: Shaped[np.ndarray, "..."], name: str) -> None:
    """Checks that there are pixels, that they differ and that they are finite.

    Raises:
        BlankImageError: all pixels have the same value.
        DataError: there are no pixels, or some are not finite.
    """
    if not pixels.size:
        raise DataError(f"{name}: holds no pixels; leave it out.")
    lowest, highest = pixels.min(), pixels.max()
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise DataError(f"{name}: has NaN or infinite values; repair it or leave it out.")
    if lowest == highest:
        raise BlankImageError(f"{name}: is constant, every value is {lowest:g}; leave it out.")


def to_channels(
    pixels: Shaped[np.ndarray, "h w c"], channels: int, name: str
) -> Shaped[np.ndarray, "h w k"]:
    """Converts grey to colour or colour to grey (ITU-R BT.601) if the channels differ.

    Raises:
        DataError: the pixels are neither grey nor colour.
    """
    num_channels = pixels.shape[-1]
    if num_channels == channels:
        return pixels
    if num_channels == 1:
        return np.repeat(pixels, channels, axis=-1)
    if num_channels == 3 and channels == 1:
        if pixels.dtype == np.uint8:  # Pillow's rounding, as in `prepare_plain`
            return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
        weights = np.array([0.299, 0.587, 0.114], np.result_type(pixels.dtype, np.float32))
        grey = pixels.astype(weights.dtype) @ weights
        if pixels.dtype in LARGEST:
            grey = np.rint(grey).astype(pixels.dtype)
        return grey[..., None]
    raise DataError(
        f"{name}: has {num_channels} channels, but config.data.channels is {channels}; only grey "
        "and colour are converted to each other."
    )


def foreground_of(
    pixels: Shaped[np.ndarray, "..."], foreground: str, name: str
) -> Bool[np.ndarray, "..."]:
    """Tells which pixels show something; see `Preparation.foreground`.

    Raises:
        DataError: 0 is not the background.
    """
    if foreground == "all":
        return np.ones(pixels.shape, bool)
    if foreground == "nonzero":
        inside = pixels != 0
        # In CT, 0 is water and air is about -1000.
        if pixels.min() < 0 and inside.mean() > 1 - _MIN_BACKGROUND:
            raise DataError(
                f"{name}: has negative values and hardly any zeros, so 0 is not its background; "
                "set config.data.preprocess.foreground to otsu or all."
            )
        return inside
    values = pixels.ravel()  # scikit-image might take the last axis of an image for colours
    if values.dtype.itemsize > 2:
        # In [0, 1]: for integers, scikit-image counts every number in between, up to 2**32.
        low, high = float(values.min()) / 2, float(values.max()) / 2  # the difference may overflow
        values = (values / 2 - low) / (high - low)
    return (values > threshold_otsu(values)).reshape(pixels.shape)


def has_noisy_background(
    pixels: Shaped[np.ndarray, "..."], num_axes: int, settings: Preparation, name: str
) -> bool:
    """Tells whether `foreground=nonzero` normalises over a background that is noise instead of 0.

    It looks at the border, the first and the last pixels along each of the first `num_axes` axes.
    The background is noise if most of the border is dark (not above Otsu's threshold), but little
    of it is 0. If the object fills the border, there is no background.
    """
    if settings.intensity == "range" or settings.foreground != "nonzero":
        return False

    def border(array: np.ndarray) -> np.ndarray:
        return np.concatenate([array.take((0, -1), axis).ravel() for axis in range(num_axes)])

    if (border(pixels) == 0).mean() >= _ZERO_BORDER:
        return False
    is_dark = ~foreground_of(pixels, "otsu", name)
    return bool(border(is_dark).mean() >= _DARK_BORDER)


def normalise(
    pixels: Shaped[np.ndarray, "..."], settings: Preparation, name: str
) -> Shaped[np.ndarray, "..."]:
    """Maps intensities to [0, 1] with background 0, using the statistics of all pixels together.

    The pixels are finite and of more than one value, and `settings.intensity` is not `auto`.

    Returns:
        uint8 or uint16 pixels unchanged if their range is kept, else float32 in [0, 1].

    Raises:
        DataError: the foreground is empty or constant, or the range of the values is unknown.
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
    # float64 for integers of more than 16 bits, which would lose digits in float32.
    mapped = pixels.astype(np.result_type(pixels.dtype, np.float32))
    # Overflow is reported below, or clipped.
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
                f"{name}: has values in [{values.min():.4g}, {values.max():.4g}], a range too "
                "small or too large to normalise; repair it or leave it out."
            )
        mapped -= start
        mapped /= extent
    np.clip(mapped, _MIN_FOREGROUND, 1, out=mapped)
    mapped[~inside] = 0
    return mapped.astype(np.float32, copy=False)


def _keep_range(pixels: Shaped[np.ndarray, "..."], name: str) -> Shaped[np.ndarray, "..."]:
    if pixels.dtype in LARGEST:
        return pixels
    if not np.issubdtype(pixels.dtype, np.floating):
        raise DataError(
            f"{name}: is {pixels.dtype}, which has no natural range; set "
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
    """Converts floats in [0, 1] to uint16; returns integers unchanged."""
    if pixels.dtype in LARGEST:
        return pixels
    return np.rint(np.clip(pixels, 0, 1) * 65535).astype(np.uint16)


def to_depth(pixels: Shaped[np.ndarray, "..."], dtype: Any) -> Shaped[np.ndarray, "..."]:
    """Converts between uint8 and uint16, whose largest values, 255 and 65535, both stand for 1."""
    if pixels.dtype == dtype:
        return pixels
    if dtype == np.uint16:
        return pixels.astype(np.uint16) * np.uint16(257)
    return np.rint(pixels / 257).astype(np.uint8)
