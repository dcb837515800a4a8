"""Natural objects rendered into normal images of any size and type, and from a config."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from jaxad import config as config_lib
from jaxad.data.sources import DataSet
from jaxad.data.synthetic import natural_objects
from jaxad.data.synthetic.natural_objects import render_natural_objects
from jaxad.errors import UserError
from jaxad.types import Split

SIZE = 64
SUBJECTS, POSITIONS = 7, 6


def disc(shape=(SIZE, SIZE), radius=0.45):
    """A disc of this radius, in shorter sides, in the middle of an image, bool [H, W]."""
    rows, columns = (np.arange(side) - (side - 1) / 2 for side in shape)
    return np.hypot(rows[:, None], columns[None, :]) < radius * min(shape)


def normal_split(foreground=None, channels=1, dtype=np.float32, count=SUBJECTS * POSITIONS):
    """Smooth noise of mean .5 and s.d. .1 on a foreground; `POSITIONS` slices a patient."""
    foreground = disc() if foreground is None else foreground
    noise = np.random.default_rng(0).standard_normal((count, *foreground.shape, channels))
    noise = ndimage.gaussian_filter(noise, (0, 2, 2, 0))
    values = np.clip(0.5 + 0.1 * noise / noise.std(), 0.05, 0.95) * foreground[..., None]
    if np.issubdtype(dtype, np.integer):
        values = values * np.iinfo(dtype).max
    return Split(
        images=values.astype(dtype),
        labels=np.zeros(count, np.int32),
        ids=tuple(f"image-{i}" for i in range(count)),
        groups=tuple(f"patient-{i // POSITIONS}" for i in range(count)),
        positions=np.arange(count, dtype=np.int32) % POSITIONS,
    )


def rows_of(split, rows):
    """Returns rows of a split in the given order."""
    return Split(
        images=split.images[rows],
        labels=split.labels[rows],
        ids=tuple(split.ids[row] for row in rows),
        groups=tuple(split.groups[row] for row in rows),
        masks=None if split.masks is None else split.masks[rows],
        positions=None if split.positions is None else split.positions[rows],
    )


def assert_same(first, second):
    for field in dataclasses.fields(Split):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(second, field.name))


@pytest.fixture(scope="module")
def normal():
    return normal_split()


@pytest.fixture(scope="module")
def rendered(normal):
    return render_natural_objects(normal, seed=0)


@pytest.fixture(scope="module")
def all_rendered(normal):
    return render_natural_objects(normal, seed=0, share=1.0)


# --- What is in the new split.


def test_labels_and_masks_agree(normal, rendered):
    assert rendered.labels.dtype == np.int32
    assert rendered.masks.dtype == np.uint8 and rendered.masks.shape == normal.images.shape[:3]
    assert set(np.unique(rendered.masks)) == {0, 1}
    np.testing.assert_array_equal(rendered.labels, rendered.masks.any(axis=(1, 2)))
    assert rendered.ids == normal.ids and rendered.groups == normal.groups
    np.testing.assert_array_equal(rendered.positions, normal.positions)


def test_other_images_are_bit_identical(normal, rendered):
    others = rendered.labels == 0
    assert rendered.images[others].tobytes() == normal.images[others].tobytes()


def test_the_input_is_not_modified():
    split, untouched = normal_split(), normal_split()
    render_natural_objects(split, seed=0, share=1.0)
    assert_same(split, untouched)


def test_objects_show_where_the_mask_says(normal, all_rendered):
    change = np.abs(all_rendered.images - normal.images)[..., 0]
    for index, mask in enumerate(all_rendered.masks.astype(bool)):
        # An object's own s.d. is 1.4 or more of the .1 that it hides; .05 leaves room for the
        # local s.d. in one place to be lower than everywhere.
        assert change[index][mask].mean() > 0.05
        # The feather ends 2 mm beyond the outline along the shorter axis, 64 / 34 as far along
        # the longer one, 1.23 as far again at a superellipse's corner, and the mask, that of
        # opacities above .5, begins a fifth of that inside: 6 of 200 mm, that is 2 of 64 pixels.
        around = ndimage.binary_dilation(mask, np.ones((3, 3)), iterations=3)
        assert (change[index][~around] == 0).all()


def area_limits(shape):
    """The least and the largest area of an object, in pixels.

    Axes are .17 to .32 of the shorter side. An ellipse fills pi/4 of its box, a superellipse of
    power 5 fills .94. The opacity of .85 and the border of the foreground take some off, a
    feather (.02) and a twentieth of the area at worst; half a pixel at either end comes on top.
    """
    side = min(shape)
    return np.pi / 4 * (0.15 * side) ** 2 * 0.95, 0.94 * (0.32 * side + 1) ** 2


@pytest.mark.parametrize(
    "foreground",
    [disc(), disc((48, 96)), disc((130, 100)), np.ones((SIZE, SIZE), bool)],
    ids=["square", "wide", "high", "no-background"],
)
def test_objects_have_their_size_and_lie_in_the_foreground(foreground):
    split = render_natural_objects(normal_split(foreground, count=24), seed=3, share=1.0)
    assert split.labels.all()
    assert not split.masks[:, ~foreground].any()
    areas = split.masks.sum(axis=(1, 2))
    least, largest = area_limits(foreground.shape)
    assert areas.min() >= least and areas.max() <= largest
    assert areas.max() > 1.5 * areas.min()  # they are not all the same


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_every_type_gets_the_same_objects(dtype, all_rendered):
    normal = normal_split(dtype=dtype)
    split = render_natural_objects(normal, seed=0, share=1.0)
    assert split.images.dtype == dtype
    np.testing.assert_array_equal(split.masks, all_rendered.masks)
    scale = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    # The values are cut to whole numbers before and rounded after: at most 2 of 255 in all, and
    # the contrast, up to 2.4 * 2 s.d. of what is hidden, adds a little to the first.
    np.testing.assert_allclose(split.images / scale, all_rendered.images, atol=3 / 255)
    # Where an object is not, not even the last bit changes.
    far = ~ndimage.binary_dilation(split.masks, np.ones((1, 3, 3)), iterations=3)
    np.testing.assert_array_equal(split.images[far], normal.images[far])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_foreground_stays_foreground(dtype):
    """Also where the image is so dark that the dark half of an object would be below zero."""
    normal = normal_split(dtype=np.float32)
    # Mean and s.d. are about .1: an object of 1.4 to 2.4 s.d. reaches below 0.
    dark = np.clip(normal.images - 0.4, 1 / 255, 1) * disc()[..., None]
    images = np.rint(dark * 255).astype(dtype) if dtype == np.uint8 else dark
    split = render_natural_objects(dataclasses.replace(normal, images=images), seed=0, share=1.0)
    np.testing.assert_array_equal(split.images > 0, images > 0)
    assert (split.images < images).any()


def test_channels_get_one_object_each_at_its_own_level():
    normal = normal_split(channels=3)
    # The channels' means are .5, .25 and .125; so are the factors between their contrasts.
    scaled = (normal.images[..., :1] * [1, 0.5, 0.25]).astype(np.float32)
    split = render_natural_objects(dataclasses.replace(normal, images=scaled), seed=0, share=1.0)
    change = split.images - scaled
    np.testing.assert_allclose(change[..., 1], change[..., 0] / 2, atol=2e-3)
    np.testing.assert_allclose(change[..., 2], change[..., 0] / 4, atol=2e-3)
    assert (np.abs(change).mean(axis=(0, 1, 2)) > 0).all()
    single = dataclasses.replace(normal, images=scaled[..., :1])
    alone = render_natural_objects(single, seed=0, share=1.0)
    np.testing.assert_array_equal(split.masks, alone.masks)
    np.testing.assert_array_equal(split.images[..., :1], alone.images)


def test_empty_channel_is_drawn_into_like_a_flat_one():
    """A pixel that is above 0 in one channel alone is foreground, and keeps its colour."""
    images = normal_split().images * np.float32([1, 0, 0])
    split = render_natural_objects(
        dataclasses.replace(normal_split(), images=images), seed=0, share=1.0
    )
    assert split.labels.all()
    assert not split.images[..., 1:].any()


# --- Which images.


def test_share_and_positions_are_balanced(rendered):
    # A third of 7 patients is 2 1/3 at each of the 6 positions and 14 in all.
    counts = np.bincount(rendered.positions[rendered.labels == 1], minlength=POSITIONS)
    assert set(counts) <= {2, 3} and counts.sum() == 14


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.5, 21), (1.0, 42)])
def test_share_is_that_of_all_images_without_positions(normal, share, expected):
    bare = dataclasses.replace(normal, positions=None)
    split = render_natural_objects(bare, seed=0, share=share)
    assert split.labels.sum() == expected  # of 42 images
    assert split.positions is None


def test_share_is_right_in_expectation(normal):
    one = rows_of(normal, [0])
    able = np.ones(1, bool)
    counts = [natural_objects._choose(one, able, seed, 1 / 3).sum() for seed in range(450)]
    # 450 draws of probability 1/3: 150 with an s.d. of 10.
    assert abs(sum(counts) - 150) < 40


def test_images_that_cannot_hold_an_object_do_not_count(normal):
    """Two of seven patients have a disc of 3 pixels: a third is of the five others."""
    images = normal.images.copy()
    images[: 2 * POSITIONS, ~disc(radius=3 / SIZE)] = 0
    tiny = dataclasses.replace(normal, images=images)
    split = render_natural_objects(tiny, seed=0)
    assert not split.labels[: 2 * POSITIONS].any()
    counts = np.bincount(split.positions[split.labels == 1], minlength=POSITIONS)
    assert set(counts) <= {1, 2} and counts.sum() == 10
    assert render_natural_objects(tiny, seed=0, share=1.0).labels.sum() == 5 * POSITIONS


def test_images_of_one_grey_level_cannot_hold_an_object(normal):
    images = normal.images.copy()
    images[:10, disc()] = 0.5
    split = render_natural_objects(dataclasses.replace(normal, images=images), seed=0, share=1.0)
    np.testing.assert_array_equal(split.labels, np.arange(len(normal)) >= 10)


def test_foreground_is_the_largest_part_with_its_holes_filled(normal):
    images = normal.images.copy()
    hole = disc(radius=0.1)
    images[:, hole] = 0
    images[:, :8, :8] = 1  # a label burnt into the corner, too far off for a disc of radius 29
    split = render_natural_objects(dataclasses.replace(normal, images=images), seed=0, share=1.0)
    assert split.labels.all()
    assert not split.masks[:, ~disc()].any()
    assert split.masks[:, hole].any()


# --- On what it depends.


def test_same_seed_gives_the_same_bytes_and_another_one_does_not(normal, rendered):
    assert_same(render_natural_objects(normal, seed=0), rendered)
    other = render_natural_objects(normal, seed=1, share=1.0)
    first = render_natural_objects(normal, seed=0, share=1.0)
    assert (other.masks != first.masks).any(axis=(1, 2)).all()
    assert (render_natural_objects(normal, seed=1).labels != rendered.labels).any()


def test_order_of_the_rows_does_not_matter(normal, rendered):
    order = np.random.default_rng(0).permutation(len(normal))
    shuffled = render_natural_objects(rows_of(normal, order), seed=0)
    assert_same(shuffled, rows_of(rendered, order))


def test_an_object_does_not_depend_on_the_other_images(normal, all_rendered):
    for row in (0, 17):
        alone = render_natural_objects(rows_of(normal, [row]), seed=0, share=1.0)
        assert_same(alone, rows_of(all_rendered, [row]))


def test_an_object_does_not_depend_on_the_share(rendered, all_rendered):
    chosen = np.flatnonzero(rendered.labels)
    assert_same(rows_of(rendered, chosen), rows_of(all_rendered, chosen))


def test_objects_follow_the_id(normal, all_rendered):
    renamed = dataclasses.replace(normal, ids=tuple(f"other-{name}" for name in normal.ids))
    split = render_natural_objects(renamed, seed=0, share=1.0)
    assert (split.masks != all_rendered.masks).any(axis=(1, 2)).all()


# --- Error messages.


def _anomalous(split):
    return dataclasses.replace(split, labels=np.int32(np.arange(len(split)) >= 5))


def _marked(split):
    masks = np.zeros(split.images.shape[:3], np.uint8)
    masks[5, 3, 3] = 1
    return dataclasses.replace(split, masks=masks)


def _not_finite(split):
    images = split.images.copy()
    images[5, 3, 3] = np.nan
    return dataclasses.replace(split, images=images)


@pytest.mark.parametrize(
    ("spoil", "arguments", "expected"),
    [
        (_anomalous, {}, "image 'image-5' is anomalous already; render them into .* normal"),
        (_marked, {}, "image 'image-5' is anomalous already"),
        (_not_finite, {}, "natural objects: image 'image-5' has NaN"),
        (lambda s: s, {"seed": -1}, "the seed is -1; use 0 or more"),
        (lambda s: s, {"share": 1.5}, "the share is 1.5; use a number from 0 to 1"),
        (
            lambda s: dataclasses.replace(s, images=s.images * disc(radius=0.05)[..., None]),
            {},
            "no image has a foreground that holds an object of 17 to 32 %.*set the background",
        ),
        (
            lambda s: dataclasses.replace(s, images=np.zeros_like(s.images)),
            {},
            "no image has a foreground",
        ),
    ],
)
def test_mistakes_are_named_with_the_remedy(normal, spoil, arguments, expected):
    with pytest.raises(UserError, match=expected) as raised:
        render_natural_objects(spoil(normal), **{"seed": 0, **arguments})
    assert "\n" not in str(raised.value)


# --- From a config.


def _data_config(root, natural_objects, **names):
    """The config of an npz data set of `train`, `val` and a split for each of `names`."""
    for number, name in enumerate(("train", "val", *names)):
        split = normal_split(count=12)
        np.savez(
            root / f"{name}.npz",
            image=np.roll(split.images, number, axis=1),  # no split has an image of another
            label=names.get(name, split.labels),
            group=[f"{number}-{group}" for group in split.groups],
            position=split.positions,
        )
    data = config_lib.base().data
    data.name, data.root, data.image_size = "npz", str(root), SIZE
    data.natural_objects = natural_objects
    return data


NORMAL, ANOMALOUS = np.zeros(12, int), np.ones(12, int)


def test_config_renders_into_the_named_split_alone(tmp_path):
    data = _data_config(tmp_path, "test_healthy", test_healthy=NORMAL, test_tumour=ANOMALOUS)
    data.seed = 5
    data_set = DataSet(data)
    assert set(data_set.test_split_names) == {"test_objects", "test_tumour"}
    data_set.check()  # no patient is in two splits: the source is no split any more
    data.natural_objects = ""
    plain = DataSet(data)
    assert set(plain.test_split_names) == {"test_healthy", "test_tumour"}
    assert_same(
        data_set.split("test_objects"),
        render_natural_objects(plain.split("test_healthy"), seed=5),
    )
    for name in ("train", "val", "test_tumour"):
        assert_same(data_set.split(name), plain.split(name))


def test_source_may_be_called_test_objects_itself(tmp_path):
    data_set = DataSet(_data_config(tmp_path, "test_objects", test_objects=NORMAL))
    assert data_set.split("test_objects").labels.sum() == 4  # a third of 12


@pytest.mark.parametrize(
    ("source", "names", "expected"),
    [
        (
            "test_b",
            {"test_a": NORMAL},
            "npz has no split 'test_b'; choose from test_a, train, val\\.",
        ),
        ("val", {}, "split 'val' is used for training; name a test split"),
        ("train", {}, "split 'train' is used for training; name a test split"),
        (
            "test_a",
            {"test_a": NORMAL, "test_objects": ANOMALOUS},
            "'test_a' would become 'test_objects', a split that npz already has; rename",
        ),
    ],
)
def test_splits_that_cannot_be_rendered_into_are_named(tmp_path, source, names, expected):
    data = _data_config(tmp_path, source, **names)
    with pytest.raises(UserError, match=f"^config.data.natural_objects: {expected}") as raised:
        DataSet(data)
    assert "\n" not in str(raised.value)


def test_anomalous_images_of_the_source_are_named(tmp_path):
    data_set = DataSet(_data_config(tmp_path, "test_a", test_a=ANOMALOUS))
    with pytest.raises(UserError, match="image 'test_a-0' is anomalous already"):
        data_set.split("test_objects")
