"""From the pixels of one image file to an image of the data set."""

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from jaxad.data.prepare.framing import Frame
from jaxad.data.prepare.preparation import (
    Preparation,
    check_pixels,
    normalise,
    quantise,
    to_channels,
)
from jaxad.errors import DataError


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


def prepare_plain(
    image: Image.Image, settings: Preparation, name: str
) -> UInt8[np.ndarray, "s s k"]:
    """What `prepare_image` makes of an 8-bit image whose range is kept, to the bit, but sooner.

    Args:
        image: of mode L or RGB.
        settings: for 1 or 3 channels; its `intensity` is `range` for images.
        name: for messages.

    Raises:
        DataError: the image is of one colour.
    """
    mode = "L" if settings.channels == 1 else "RGB"
    wanted = image if image.mode == mode else image.convert(mode)
    frame = Frame.of((float(image.height), float(image.width)), settings)
    resized = frame.resize_plain(wanted)
    # A few pixels first: they differ but where all may be the same.
    some = image.resize((8, 8), Image.Resampling.NEAREST)
    if all(low == high for few in (some, image) for low, high in extrema_of(few)):
        raise DataError(
            f"{name}: is constant, every pixel is {image.getpixel((0, 0))}; leave it out."
        )
    return resized


def extrema_of(image: Image.Image) -> list[tuple[int, int]]:
    """The least and the largest value of each channel of an image of mode L or RGB."""
    if image.mode == "L":
        lowest, highest = (int(value) for value in np.ravel(image.getextrema()))
        return [(lowest, highest)]
    # Of colours Pillow's own getextrema copies every channel first.
    counts = np.array(image.histogram()).reshape(-1, 256)
    there = [np.flatnonzero(channel) for channel in counts]
    return [(int(values[0]), int(values[-1])) for values in there]
