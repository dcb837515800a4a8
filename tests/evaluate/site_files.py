"""Images of sites, for tests of evaluations on other sites."""

import numpy as np
from PIL import Image


def write(path, seed, bright=False, shape=(40, 44)):
    """Writes noise, with a bright square if it is anomalous."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(60, 120, shape).astype(np.uint8)
    if bright:
        pixels[10:20, 12:24] = 255
    Image.fromarray(pixels).save(path)


def write_site(root, seed=100, good=4, bright=4):
    """A site whose classes are folders in its root."""
    for number in range(good):
        write(root / f"good/{number}.png", seed + number)
    for number in range(bright):
        write(root / f"bright/{number}.png", seed + 50 + number, bright=True)
    return root
