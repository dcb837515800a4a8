"""Photographs of everyday things, from the wheels of scikit-image and scikit-learn."""

import functools

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from jaxad.data.synthetic.template import package_folder
from jaxad.errors import UserError

PHOTOGRAPHS = {
    "cat": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "astronaut": ("skimage", "data/astronaut.png"),
    "coins": ("skimage", "data/coins.png"),
    "camera": ("skimage", "data/camera.png"),
    "cell": ("skimage", "data/cell.png"),
    "moon": ("skimage", "data/moon.png"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "hubble": ("skimage", "data/hubble_deep_field.jpg"),
    "histology": ("skimage", "data/ihc.png"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
}
"""Package and file of each photograph; the order is part of the data."""

_SHORT_SIDE = 300
# Share of the photograph's short side that a crop takes. It shows a thing or a part of one: whole
# scenes at a few dozen pixels look like noise.
_CROP_SHARE = (0.25, 0.6)
# A sample of a patch is the mean of a grid of this many points per side.
_OVERSAMPLING = 4
_TRIES = 8


@functools.cache
def load_photograph(name: str) -> Float[np.ndarray, "h w"]:
    """Loads a photograph as read-only grey levels in [0, 1], its shorter side 300 pixels.

    Raises:
        UserError: the package that ships it is missing or lacks the file.
    """
    from PIL import Image  # only subjects with natural objects need it

    package, file_name = PHOTOGRAPHS[name]
    path = package_folder(package).joinpath(file_name)
    if not path.is_file():
        raise UserError(f"photograph '{path}' is missing; reinstall {package}.")
    with Image.open(path) as image:
        scale = _SHORT_SIDE / min(image.size)
        width, height = (round(side * scale) for side in image.size)
        grey = image.convert("RGB").convert("L").resize((width, height), Image.Resampling.BOX)
        pixels = np.asarray(grey, dtype=np.float32) / np.float32(255)
    pixels.setflags(write=False)
    return pixels


def draw_patch(generator: np.random.Generator, samples: int) -> Float[np.ndarray, "n n"]:
    """Draws a random piece of a random photograph, n samples a side: rotated and perhaps mirrored.

    Returns grey levels in [0, 1]: the first of a few crops with enough contrast, or the one with
    most.
    """
    names = list(PHOTOGRAPHS)
    picture = load_photograph(names[generator.integers(len(names))])
    axis = np.linspace(-1, 1, samples * _OVERSAMPLING)
    centres = np.linspace(-1, 1, samples)
    disc = np.hypot(centres[:, None], centres[None, :]) <= 1
    best, best_contrast = np.zeros((samples, samples)), -1.0
    for _ in range(_TRIES):
        half = generator.uniform(*_CROP_SHARE) * _SHORT_SIDE / 2
        angle = generator.uniform(0, 2 * np.pi)
        mirror = generator.choice((-1.0, 1.0))
        # The crop's disc stays inside the photograph under any rotation; corners are mirrored.
        centre = [generator.uniform(half, side - half) for side in picture.shape]
        down = half * (np.cos(angle) * axis[:, None] - np.sin(angle) * mirror * axis[None, :])
        right = half * (np.sin(angle) * axis[:, None] + np.cos(angle) * mirror * axis[None, :])
        points = np.stack([centre[0] + down, centre[1] + right])
        fine = ndimage.map_coordinates(picture, points, order=1, mode="mirror")
        patch = fine.reshape(samples, _OVERSAMPLING, samples, _OVERSAMPLING).mean(axis=(1, 3))
        contrast = float(patch[disc].std())
        if contrast > best_contrast:
            best, best_contrast = patch, contrast
        if contrast > 0.1:
            break
    return best
