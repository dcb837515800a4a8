"""Natural objects rendered into normal images of any data set: the pchVAE paper's protocol.

    split = render_natural_objects(data_set.split("test_normal"), seed=0)

Zimmerer, Petersen and Maier-Hein "randomly render natural objects in the brain area of some
slices" of held-back normal patients, "which are then considered anomalies". The objects are those
of the embedded data: the shorter side of an image counts as a field of view of 200 mm.
"""

import dataclasses
import hashlib

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy import ndimage

from jaxad.data.files.masks import are_marked
from jaxad.data.prepare.preprocess import check_images, to_unit_interval
from jaxad.data.synthetic.geometry import WELL_INSIDE, inside_share, plane_axes_mm
from jaxad.data.synthetic.objects import Outline, blend, draw_alpha
from jaxad.data.synthetic.template import spacing_mm
from jaxad.errors import UserError
from jaxad.types import Split

Images = Shaped[np.ndarray, "n h w c"]

_CANDIDATES = 256
# Foreground pixels stay above 0, at least at the lowest level of an integer type or at this value.
_LEAST_FLOAT = 1 / 255


def render_natural_objects(split: Split, *, seed: int, share: float = 1 / 3) -> Split:
    """Draws a piece of a photograph into the foreground of some images of a normal split.

    The foreground is the largest connected part of the pixels above 0 in any channel, its holes
    filled. An image can hold its object if the object fits into the foreground, over more than one
    grey level; other images stay normal. If the split has positions, the same share of the images
    that can hold an object gets one at each position: position then predicts nothing if all images
    can. If images at some positions are often too small, positives are rarer there, and only
    position-corrected metrics are comparable. The object of an image depends only on the seed, the
    image and its id.

    Args:
        split: normal images [N, H, W, C] of any size; not modified.
        seed: seed of the choice of images and of the objects, not negative.
        share: share of the images that can hold an object that get one, in [0, 1].

    Returns:
        The split with new `images` (same dtype; bit-identical without an object), `labels` (1 = has
        an object) and `masks` (1 = the object outweighs the image).

    Raises:
        UserError: an image is anomalous or unusable (named by its id), no image can hold an object,
            or the seed or the share is out of range.
    """
    # Rendered images are not in the files, so that all images of the split stay in memory.
    images = np.array(split.images)
    _check(split, images, seed, share)
    places = [
        _find_place(image, _keyed_generator(seed, "object", name))
        for image, name in zip(images, split.ids, strict=True)
    ]
    able = np.array([place is not None for place in places], bool)
    if len(split) and not able.any():
        raise UserError(
            "natural objects: no image has a foreground that holds an object of 17 to 32 % of its "
            "shorter side; set the background to 0, and crop the images to what they show."
        )
    chosen = _choose(split, able, seed, share)
    masks = np.zeros(images.shape[:3], np.uint8)
    for index, place in enumerate(places):
        if place is not None and chosen[index]:
            images[index], masks[index] = _render(images[index], place)
    return dataclasses.replace(split, images=images, labels=chosen.astype(np.int32), masks=masks)


def _check(split: Split, images: Images, seed: int, share: float) -> None:
    if seed < 0:
        raise UserError(f"natural objects: the seed is {seed}; use 0 or more.")
    if not 0 <= share <= 1:
        raise UserError(f"natural objects: the share is {share}; use a number from 0 to 1.")
    check_images(images, split.ids, images.shape[-3:], "natural objects")
    anomalous = split.labels != 0
    if split.masks is not None:
        anomalous = anomalous | are_marked(split.masks)
    if anomalous.any():
        raise UserError(
            f"natural objects: image '{split.ids[int(np.argmax(anomalous))]}' is anomalous "
            "already; render them into a split of normal images only."
        )


def _keyed_generator(seed: int, purpose: str, name: str) -> np.random.Generator:
    """Returns the random generator of a purpose for a name, the same in every process."""
    digest = hashlib.blake2b(f"{purpose}:{name}".encode(), digest_size=16).digest()
    key = (int.from_bytes(digest, "little"),)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _choose(
    split: Split, able: Bool[np.ndarray, " n"], seed: int, share: float
) -> Bool[np.ndarray, " n"]:
    """Chooses the images that get an object: at each position, a share of those that can."""
    positions = np.zeros(len(split), int) if split.positions is None else split.positions
    places, place_of = np.unique(positions, return_inverse=True)
    counts = np.bincount(place_of[able], minlength=len(places))
    generator = _keyed_generator(seed, "plan", "")
    # The running total over shuffled positions is rounded, with a random start, so that the share
    # of each position and of the whole split is rounded up or down.
    order = generator.permutation(len(places))
    total = np.concatenate([[0.0], np.cumsum(share * counts[order])]) + generator.uniform()
    wanted = np.zeros(len(places), int)
    wanted[order] = np.diff(np.floor(total).astype(int))
    # Drawn per id, so that the order of the rows does not matter.
    ranks = np.array([_keyed_generator(seed, "choice", name).uniform() for name in split.ids])
    chosen = np.zeros(len(split), bool)
    for place, count in enumerate(wanted):
        candidates = np.flatnonzero(able & (place_of == place))
        chosen[candidates[np.argsort(ranks[candidates])[:count]]] = True
    return chosen


@dataclasses.dataclass(frozen=True)
class _Place:
    """An object's place in an image."""

    outline: Outline  # outline of the object
    #: centre of the outline, (x, y) in mm from the centre of the image
    centre: Float[np.ndarray, "2"]
    alpha: float  # opacity inside the outline
    #: generator of the photograph, level and contrast, which are drawn later
    generator: np.random.Generator


def _find_place(
    image: Shaped[np.ndarray, "h w c"], generator: np.random.Generator
) -> _Place | None:
    """Draws an outline and the first random centre where it fits; None if it fits nowhere."""
    foreground = _foreground(image)
    # Points outside the image count as points on its border, which therefore is no foreground.
    inner = np.pad(foreground[1:-1, 1:-1], 1)
    outline = Outline.draw(generator)
    alpha = draw_alpha(generator)
    if not inner.any():
        return None
    candidates = _candidates(inner, generator)
    good = inside_share(inner, candidates, outline.points()) >= WELL_INSIDE
    if not good.any():
        return None
    centre = candidates[:, int(np.argmax(good))]
    hidden = image[(alpha * outline.weight(centre, foreground.shape) > 0.5) & foreground]
    # The contrast of an object is a multiple of the contrast of the pixels it covers: on one grey
    # level, or if it covers no pixel, it would be invisible.
    visible = len(hidden) > 0 and bool((hidden != hidden[0]).any())
    return _Place(outline, centre, alpha, generator) if visible else None


def _candidates(
    foreground: Bool[np.ndarray, "h w"], generator: np.random.Generator
) -> Float[np.ndarray, "2 n"]:
    """Draws points (x, y) in mm, evenly over the foreground."""
    row, column = generator.choice(np.argwhere(foreground), _CANDIDATES).T
    rows, columns = plane_axes_mm(foreground.shape)
    jitter = generator.uniform(-0.5, 0.5, size=(2, _CANDIDATES)) * spacing_mm(min(foreground.shape))
    return np.stack([columns[column], rows[row]]) + jitter


def _foreground(image: Shaped[np.ndarray, "h w c"]) -> Bool[np.ndarray, "h w"]:
    """Returns the largest connected part of the pixels above 0 in any channel, holes filled."""
    parts, _ = ndimage.label((image > 0).any(axis=-1))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0  # the background
    largest = int(np.argmax(sizes))
    return np.asarray(ndimage.binary_fill_holes((parts == largest) & (parts > 0)))


def _render(
    image: Shaped[np.ndarray, "h w c"], place: _Place
) -> tuple[Shaped[np.ndarray, "h w c"], Bool[np.ndarray, "h w"]]:
    """Returns the image with its object, and a mask of where the object outweighs the image."""
    foreground = _foreground(image)
    shape = foreground.shape
    weight = place.outline.weight(place.centre, shape)
    patch = place.outline.photograph(place.generator, place.centre, shape)
    unit = to_unit_interval(image)
    means = unit[foreground].mean(axis=0, dtype=np.float64).tolist()
    blended, opacity = blend(place.generator, unit, foreground, means, place.alpha, weight, patch)
    drawn = np.clip(blended, 0, 1)
    least = _LEAST_FLOAT
    if np.issubdtype(image.dtype, np.integer):
        drawn, least = np.rint(drawn * np.iinfo(image.dtype).max), 1
    drawn = np.maximum(drawn.astype(image.dtype), np.minimum(image, image.dtype.type(least)))
    return np.where((opacity > 0)[..., None], drawn, image), opacity > 0.5
