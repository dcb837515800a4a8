"""Shape of the images of a config."""

from ml_collections import ConfigDict

#: Data sets whose images have colour unless `config.data.channels` says otherwise.
_COLOUR = ("isic2018",)


def data_shape(data: ConfigDict) -> tuple[int, int, int]:
    """(H, W, C) of the images of a `config.data`."""
    channels = int(data.channels) or (3 if data.name in _COLOUR else 1)
    return (int(data.image_size), int(data.image_size), channels)
