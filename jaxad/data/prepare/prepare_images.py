"""From the pixels of one image file to an image of the data set."""

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from jaxad.data.prepare.framing import Frame
from jaxad.data.prepare.preparation import (
    BlankImageError,
    Preparation,
    check_pixels,
    normalise,
    quantise,
    to_channels,
)


def prepare_image(
    pixels: Shaped[np.ndarray, "h w c"], settings: Preparation, name: str
) -> Shaped[np.ndarray, "s s k"]:
    """Returns the image of the data set that pixels become.

    The pixels are grey, colour, or of `settings.channels` channels; `auto` in the settings means
    what it means for images.

    Returns:
        [S, S, settings.channels]; uint8 if the pixels are uint8 and keep their range, else uint16.

    Raises:
        BlankImageError: all pixels have the same colour.
        DataError: the pixels are not finite, or do not fit the settings.
    """
    settings = settings.of_images()
    pixels = to_channels(pixels, settings.channels, name)
    check_pixels(pixels, name)
    # A sample first: comparing all pixels of a photograph takes longer than decoding it.
    if all((some == pixels[0, 0]).all() for some in (pixels[::16, ::16], pixels)):
        raise _constant(pixels[0, 0].tolist(), name)
    normalised = normalise(pixels, settings, name)
    height, width = normalised.shape[:2]
    return quantise(Frame.of((height, width), settings).resize(normalised))


def prepare_plain(
    image: Image.Image, settings: Preparation, name: str
) -> UInt8[np.ndarray, "s s k"]:
    """Returns bit for bit what `prepare_image` makes of an 8-bit image that keeps its range.

    Resizing Pillow's own image, of mode L or RGB, is faster than NumPy arrays. The settings have 1
    or 3 channels and the intensity `range`.

    Raises:
        BlankImageError: all pixels have the same colour.
    """
    mode = "L" if settings.channels == 1 else "RGB"
    converted = image if image.mode == mode else image.convert(mode)
    resized = Frame.of((image.height, image.width), settings).resize_plain(converted)
    # A sample first, as above.
    sample = image.resize((8, 8), Image.Resampling.NEAREST)
    if all(low == high for some in (sample, image) for low, high in extrema_of(some)):
        raise _constant(image.getpixel((0, 0)), name)
    return resized


def _constant(pixel: object, name: str) -> BlankImageError:
    return BlankImageError(f"{name}: is constant, every pixel is {pixel}; leave it out.")


def extrema_of(image: Image.Image) -> list[tuple[int, int]]:
    """Returns the least and the largest value of each channel of an image of mode L or RGB."""
    if image.mode == "L":
        lowest, highest = (int(value) for value in np.ravel(image.getextrema()))
        return [(lowest, highest)]
    # Pillow's getextrema would copy every channel of a colour image.
    counts = np.array(image.histogram()).reshape(-1, 256)
    values = [np.flatnonzero(channel) for channel in counts]
    return [(int(channel[0]), int(channel[-1])) for channel in values]
