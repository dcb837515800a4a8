"""What `config.data.preprocess.foreground=auto` means for the files of a data set."""

import logging
from collections.abc import Sequence

import numpy as np

from jaxad.data.files.items import Item, Reading, read_volume
from jaxad.data.prepare.preparation import check_pixels, foreground_of, has_noisy_background
from jaxad.data.readers.images import read_image
from jaxad.errors import DataError

logger = logging.getLogger(__name__)

#: Number of files that are looked at, spread evenly over the training files.
_NUM_SAMPLED = 5


def choose_foreground(items: Sequence[Item], reading: Reading) -> str:
    """Returns `otsu` if the background of most files is noise, else `nonzero`, and logs the reason.

    It reads a few of the items, always the same ones. Files that cannot be used, or whose
    background `nonzero` refuses, do not count; reading the data set reports them.
    """
    places = np.linspace(0, len(items) - 1, min(_NUM_SAMPLED, len(items))).round().astype(int)
    answers = [_is_noisy(items[place], reading) for place in places]
    counted = [answer for answer in answers if answer is not None]
    noisy = sum(counted)
    choice = "otsu" if 2 * noisy > len(counted) else "nonzero"
    if counted:
        unit = "images" if reading.kind == "image" else "scans"
        logger.info(
            f"foreground: {choice}, because the background of {noisy} of {len(counted)} sampled "
            f"{unit} is noise."
        )
    return choice


def _is_noisy(item: Item, reading: Reading) -> bool | None:
    """Tells whether the background of an item is noise; None if it cannot be used."""
    settings, num_axes = reading.preparation.of_volumes(), 3
    if reading.kind == "image":
        settings, num_axes = reading.preparation.of_images(), 2
    try:
        for path in item.paths:
            name = str(path)
            pixels = read_image(path) if reading.kind == "image" else read_volume(path).voxels
            check_pixels(pixels, name)
            foreground_of(pixels, "nonzero", name)  # CT: an error, whatever its background is
            if has_noisy_background(pixels, num_axes, settings, name):
                return True
    except DataError:
        return None
    return False
