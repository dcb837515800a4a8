"""From the pixels of a file to an image of a data set: intensities, square, size, depth.

The same functions prepare a data set and, later, what a trained run is to score: all that they
depend on is in `config.data`. They end in uint8 or uint16, so that an image is the same to the bit
whether it comes from a cache or straight from its file.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8
from PIL import Image
from skimage.filters import threshold_otsu

from jaxad.errors import DataError, UserError

INTENSITIES = ("auto", "range", "zscore", "percentile")
FOREGROUNDS = ("nonzero", "all", "otsu")
SQUARES = ("pad", "crop", "stretch")

#: Where intensities are normalised the foreground stays above the background, which is 0.
_LEAST_FOREGROUND = 1 / 255

#: Largest values of the integer types that stand for [0, 1].
_LARGEST = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}


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
        for name, known in (
            ("intensity", INTENSITIES),
            ("foreground", FOREGROUNDS),
            ("square", SQUARES),
        ):
            if getattr(self, name) not in known:
                raise UserError(
                    f"config.data.preprocess.{name}: '{getattr(self, name)}' is not one of "
                    f"{', '.join(known)}."
                )
        if not self.clip > 0:
            raise UserError(f"config.data.preprocess.clip: {self.clip} is not above 0.")
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


def prepare_image(
    pixels: Shaped[np.ndarray, "h w c"], settings: Preparation, name: str
) -> Shaped[np.ndarray, "s s k"]:
    """An image of the data set.

    Args:
        pixels: of 1 or 3 channels; or of `settings.channels`.
        settings: `auto` stands for images.
        name: for messages.

    Returns:
        [S, S, settings.channels]; uint8 where `pixels` are and their range is kept, else uint16.

    Raises:
        DataError: the pixels are not finite, all the same, or cannot be taken as they are.
    """
    settings = settings.of_images()
    pixels = to_channels(pixels, settings.channels, name)
    check_pixels(pixels, name)
    # A few pixels first: comparing all of a photograph takes longer than decoding it.
    if all((some == pixels[0, 0]).all() for some in (pixels[::16, ::16], pixels)):
        raise DataError(
            f"{name}: is constant, every pixel is {pixels[0, 0].tolist()}; leave it out."
        )
    normalised = normalise(pixels, settings, name)
    height, width = normalised.shape[:2]
    frame = Frame.of((float(height), float(width)), settings)
    return quantise(frame.resize(normalised))


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
        grey = pixels.astype(weights.dtype) @ weights
        if pixels.dtype in _LARGEST:
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
        return pixels != 0
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
    if pixels.dtype in _LARGEST:
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
    if pixels.dtype in _LARGEST:
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


@dataclasses.dataclass(frozen=True)
class Frame:
    """Which part of a plane is seen, and where in the square it lies.

    Attributes:
        box: first row, first column, end row and end column of the part, in pixels, fractions
            among them.
        size: rows and columns that the part becomes.
        side: rows and columns of the square; what is not covered is 0, evenly around.
    """

    box: tuple[float, float, float, float]
    size: tuple[int, int]
    side: int

    @classmethod
    def of(
        cls,
        shape: tuple[float, float],
        settings: Preparation,
        spacing: tuple[float, float] = (1.0, 1.0),
        field_of_view: float = 0.0,
    ) -> "Frame":
        """The frame of planes of a shape.

        Args:
            shape: rows and columns.
            settings: how a plane becomes square, and how large.
            spacing: of rows and of columns, in mm.
            field_of_view: side of the square in mm, around the middle of the plane; 0: the longer
                side is seen whole, or the shorter one, as `settings.square` says.
        """
        extents = [length * step for length, step in zip(shape, spacing, strict=True)]
        square = settings.square
        target = field_of_view or (min(extents) if square == "crop" else max(extents))
        starts, ends, sizes = [], [], []
        for length, extent in zip(shape, extents, strict=True):
            whole = extent if square == "stretch" and not field_of_view else target
            seen = min(1.0, whole / extent)
            starts.append(length * (1 - seen) / 2)
            ends.append(length * (1 + seen) / 2)
            share = min(1.0, extent / whole)
            # At least a pixel: a plane may be much longer than it is wide.
            sizes.append(max(1, round(settings.image_size * share)))
        box = (starts[0], starts[1], ends[0], ends[1])
        return cls(box, (sizes[0], sizes[1]), settings.image_size)

    def seen(self, planes: Shaped[np.ndarray, "n h w"]) -> Shaped[np.ndarray, "n k l"]:
        """The pixels whose middle is in the box."""
        ends = [math.ceil(end - 0.5) for end in self.box]
        return planes[:, ends[0] : ends[2], ends[1] : ends[3]]

    def resize(self, plane: Shaped[np.ndarray, "h w c"]) -> Shaped[np.ndarray, "s s c"]:
        """The square, antialiased; of the plane's type, but uint16 becomes float32 in [0, 1]."""
        channels = plane.shape[-1]
        if plane.dtype == np.uint8 and channels in (1, 3):
            whole = Image.fromarray(np.ascontiguousarray(plane[..., 0] if channels == 1 else plane))
            resized = np.asarray(self._resize(whole)).reshape(*self.size, channels)
        else:
            floats = plane.astype(np.float32)
            if plane.dtype in _LARGEST:
                floats /= np.float32(_LARGEST[plane.dtype])
            parts = [self._resize(Image.fromarray(floats[..., one])) for one in range(channels)]
            resized = np.stack([np.asarray(part) for part in parts], axis=-1)
        if self.size == (self.side, self.side):
            return resized
        square = np.zeros((self.side, self.side, plane.shape[-1]), resized.dtype)
        row, column = ((self.side - length) // 2 for length in self.size)
        square[row : row + self.size[0], column : column + self.size[1]] = resized
        return square

    def resize_mask(self, mask: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "s s"]:
        """1 where half of a pixel is anomalous; where none is so full, at the fullest.

        An anomaly that is smaller than a pixel stays one, so that label and mask agree.
        """
        share = self.resize(mask.astype(np.float32)[..., None])[..., 0]
        fullest = float(share.max())
        return (
            (share >= min(0.5, fullest)).astype(np.uint8)
            if fullest > 0
            else np.zeros(share.shape, np.uint8)
        )

    def _resize(self, image: Image.Image) -> Image.Image:
        first_row, first_column, end_row, end_column = self.box
        return image.resize(
            (self.size[1], self.size[0]),
            Image.Resampling.BILINEAR,
            box=(first_column, first_row, end_column, end_row),
        )


def resample_axis(
    voxels: Float[np.ndarray, "n *rest"], spacing: float, wanted: float
) -> Float[np.ndarray, "m *rest"]:
    """Slices at another distance, antialiased; both distances in mm."""
    count = max(1, round(len(voxels) * spacing / wanted))
    if count == len(voxels):
        return voxels
    flat = voxels.reshape(len(voxels), -1).astype(np.float32)
    image = Image.fromarray(flat).resize((flat.shape[1], count), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(count, *voxels.shape[1:])
