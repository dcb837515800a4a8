"""PatchCore against a NumPy implementation, and cases with known results."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.special
import skimage.transform
from fitted_inputs import batches_of, images_of

from jaxad import models
from jaxad.errors import UserError
from jaxad.models.patch_core import _Sample, choose_coreset
from jaxad.train.state import initial_variables
from jaxad.types import FittedModel, PretrainedModel

SIZE = 32
FIELDS = {
    "backbone": "efficientnet_lite0",
    "weights": "random",
    "strides": (8, 16),
    "memory_size": 20,
    "candidates": 1000,
    "projection": 1000,  # more than the channels: no projection
    "neighbours": 3,
}
CHANNELS = 40 + 112


def build(**changes):
    common = {"image_shape": (SIZE, SIZE, 1), "dtype": jnp.float32, "axis_name": None}
    return models.build("patchcore", {**FIELDS, **changes}, **common)


@functools.cache
def ready():
    """Returns a model, its variables after a fit to ten images, and the images' features."""
    model = build()
    variables = initial_variables(model, 0)
    features = np.asarray(jax.jit(model.features)(variables, images_of(10, SIZE)))
    return model, model.fit(variables, batches_of(features), jax.random.key(1)), features


def patches_by_hand(features):
    """Returns means over 3x3 places, the coarser level upsampled; float64 [B, 16, channels]."""
    fine = np.float64(features[:, : 4 * 4 * 40]).reshape(-1, 4, 4, 40)
    coarse = np.float64(features[:, 4 * 4 * 40 :]).reshape(-1, 2, 2, 112)

    def local_means(level):
        _, rows, columns, _ = level.shape
        means = np.empty_like(level)
        for row in range(rows):
            for column in range(columns):
                window = level[:, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
                means[:, row, column] = window.mean(axis=(1, 2))
        return means

    upsampled = [
        skimage.transform.resize(one, (4, 4, 112), order=1, mode="edge", anti_aliasing=False)
        for one in local_means(coarse)
    ]
    return np.concatenate([local_means(fine), upsampled], axis=-1).reshape(-1, 16, CHANNELS)


def coreset_by_hand(points, first, count):
    """Runs Algorithm 1 with all distances computed anew in every step."""
    chosen = [first]
    while len(chosen) < count:
        distances = np.linalg.norm(points[:, None] - points[chosen][None], axis=-1).min(axis=1)
        distances[chosen] = -1
        chosen.append(int(distances.argmax()))
    return chosen


def test_it_is_fitted_and_pretrained():
    model, variables, _ = ready()
    assert isinstance(model, FittedModel) and isinstance(model, PretrainedModel)
    shapes = jax.eval_shape(model.init_variables, jax.random.key(0))
    described = jax.tree.map(lambda leaf: (leaf.shape, np.dtype(leaf.dtype)), variables)
    assert described == jax.tree.map(lambda leaf: (leaf.shape, np.dtype(leaf.dtype)), shapes)
    assert model.num_latents == 16 * CHANNELS


def test_patches_are_local_means_at_the_finest_level():
    model, _, features = ready()
    expected = patches_by_hand(features)
    patches = model.patches(jnp.asarray(features)).reshape(-1, 16, CHANNELS)
    np.testing.assert_allclose(patches, expected, rtol=1e-4, atol=1e-5)


def test_the_coreset_is_the_farthest_point_of_every_step(rng):
    points = rng.normal(size=(60, 5)).astype(np.float32)
    points[30:40] = points[0]  # duplicates
    chosen = choose_coreset(jnp.asarray(points), 7, 55)
    assert np.asarray(chosen).tolist() == coreset_by_hand(points, 7, 55)
    assert len(set(np.asarray(chosen).tolist())) == 55


def test_the_coreset_of_a_line_is_known():
    # From 0 the farthest is 10; then 4 (4 from its nearest), then 7 (3) before 2 (2).
    points = jnp.asarray([[0.0], [2.0], [4.0], [7.0], [10.0]])
    assert np.asarray(choose_coreset(points, 0, 5)).tolist() == [0, 4, 2, 3, 1]


def test_the_memory_is_the_coreset_of_the_training_patches():
    model, variables, features = ready()
    memory = np.asarray(variables["params"]["memory"])
    assert int(variables["params"]["count"]) == 20
    patches = patches_by_hand(features).reshape(-1, CHANNELS)
    rows = [int(np.abs(patches - row).sum(axis=1).argmin()) for row in memory]
    np.testing.assert_allclose(memory, patches[rows], rtol=1e-4, atol=1e-5)
    # Padding is no candidate, the first one is drawn, the others follow.
    assert rows == coreset_by_hand(patches, rows[0], 20)
    again = model.fit(variables, batches_of(features, size=3), jax.random.key(1))
    np.testing.assert_allclose(again["params"]["memory"], memory, rtol=1e-5, atol=1e-6)
    other = model.fit(variables, batches_of(features), jax.random.key(2))
    assert not np.array_equal(other["params"]["memory"], memory)


def scores_by_hand(model, variables, images, neighbours):
    """Returns the scores of Eq. 7 and the maps, computed from the memory."""
    count = int(variables["params"]["count"])
    memory = np.float64(variables["params"]["memory"])[:count]
    patches = patches_by_hand(np.asarray(model.features(variables, images)))
    scores, maps = [], []
    for one in patches:
        distances = np.linalg.norm(one[:, None] - memory[None], axis=-1)
        nearest = distances.min(axis=1)
        worst = int(nearest.argmax())
        anchor = int(distances[worst].argmin())
        around = np.argsort(np.linalg.norm(memory - memory[anchor], axis=1))[:neighbours]
        shares = scipy.special.softmax(distances[worst][around])
        assert around[0] == anchor
        scores.append((1 - shares[0]) * nearest[worst])
        upsampled = skimage.transform.resize(
            nearest.reshape(4, 4), (SIZE, SIZE), order=1, mode="edge", anti_aliasing=False
        )
        maps.append(scipy.ndimage.gaussian_filter(upsampled, 4.0))
    return np.array(scores), np.array(maps)


def test_scores_and_maps_are_those_of_numpy():
    model, variables, _ = ready()
    images = images_of(4, SIZE, seed=5)
    actual = jax.jit(model.score)(variables, images)
    scores, maps = scores_by_hand(model, variables, images, 3)
    np.testing.assert_allclose(actual.image, scores, rtol=1e-4)
    np.testing.assert_allclose(actual.pixel, maps, rtol=1e-4)
    assert actual.reconstructions == {}
    np.testing.assert_array_equal(actual.image, actual.components["weighted_distance"])
    unweighted = jax.jit(build(neighbours=1).score)(variables, images)
    np.testing.assert_allclose(unweighted.image, actual.components["distance"], rtol=1e-6)


def test_the_weight_of_three_points_is_known():
    # p* = 0 with m* = 1; the other of its two neighbours, 3, is at distance 3 of p*:
    # (1 - e^1 / (e^1 + e^3)) * 1.
    model = build(memory_size=3, neighbours=2)
    memory = jnp.zeros((3, CHANNELS)).at[:, 0].set(jnp.asarray([1.0, 3.0, 20.0]))
    distance, score = model._image_scores(jnp.zeros((1, CHANNELS)), memory, jnp.int32(3))
    np.testing.assert_allclose(distance, [1.0])
    np.testing.assert_allclose(score, [1 - np.e / (np.e + np.e**3)], rtol=1e-6)


def test_unused_slots_never_count():
    """Two images have 32 patches: 18 of 50 slots stay unused, and their content has no effect."""
    model = build(memory_size=50, neighbours=40)
    variables, features = ready()[1:]
    fitted = model.fit(variables, batches_of(features[:2]), jax.random.key(1))
    assert int(fitted["params"]["count"]) == 32
    score, images = jax.jit(model.score), images_of(3, SIZE, seed=5)
    actual = score(fitted, images)
    expected, _ = scores_by_hand(model, fitted, images, 40)  # 32 there are
    np.testing.assert_allclose(actual.image, expected, rtol=1e-4)
    filled = fitted["params"]["memory"].copy()
    filled[32:] = 1e3
    other = score({**fitted, "params": {**fitted["params"], "memory": filled}}, images)
    for ours, theirs in zip(jax.tree.leaves(other), jax.tree.leaves(actual), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_normal_images_are_next_to_the_memory_and_a_batch_plays_no_part():
    model = build(memory_size=200)
    variables, features = ready()[1:]
    fitted = model.fit(variables, batches_of(features), jax.random.key(1))  # all 160 patches
    score = jax.jit(model.score)
    seen, unseen = score(fitted, images_of(10, SIZE)), score(fitted, images_of(4, SIZE, seed=5))
    # Rounding of squared differences of numbers around 1: sqrt(1e-6).
    assert np.max(seen.components["distance"]) < 1e-2 < np.min(unseen.components["distance"])
    alone = score(fitted, images_of(4, SIZE, seed=5)[2:3])
    np.testing.assert_allclose(alone.image, unseen.image[2:3], rtol=1e-5)


def test_a_sample_is_uniform_and_does_not_depend_on_its_parts():
    rows = np.arange(1000, dtype=np.float32)[:, None]

    def sampled(part, seed=0):
        sample = _Sample(100, 1, np.random.default_rng(seed))
        for start in range(0, 1000, part):
            sample.add(rows[start : start + part])
        return sample.rows[:, 0]

    np.testing.assert_array_equal(sampled(1000), sampled(7))
    assert len(set(sampled(30))) == 100  # without replacement
    # The mean of 100 of 0..999, averaged over 50 samples: 499.5, standard error 289 / sqrt(5000).
    assert np.mean([sampled(50, seed) for seed in range(50)]) == pytest.approx(499.5, abs=4 * 4.1)


def test_a_projection_chooses_from_fewer_dimensions_but_keeps_whole_patches():
    model = build(projection=8)
    _, variables, features = ready()
    fitted = model.fit(variables, batches_of(features), jax.random.key(1))
    patches = patches_by_hand(features).reshape(-1, CHANNELS)
    for row in np.asarray(fitted["params"]["memory"]):
        assert np.abs(patches - row).max(axis=1).min() < 1e-4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memory_size": 0}, r"config.model.memory_size: 0 is not in \[1, inf\)"),
        ({"neighbours": 21}, r"neighbours: 21 is more than config.model.memory_size \(20\)"),
        ({"strides": ()}, "config.model.strides"),
        ({"backbone": "vgg"}, "unknown backbone 'vgg'"),
    ],
)
def test_refused_fields(changes, message):
    with pytest.raises(UserError, match=message):
        build(**changes)
