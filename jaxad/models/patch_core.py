"""PatchCore: distances of an image's patches from a memory of normal patches.

Roth et al. 2022, "Towards Total Recall in Industrial Anomaly Detection" (CVPR). A patch is the
mean of the frozen encoder's features over 3x3 positions, at several strides: coarser levels are
upsampled (bilinear) and concatenated with the finest one. The memory is a coreset of the training
patches: starting at random, each step adds the patch that is farthest from all chosen ones
(greedy k-centre, its Algorithm 1; distances in a random projection).

    d(p)  = min over memory patches m of |p - m|
    map   = d, upsampled, smoothed with a Gaussian of 4 pixels
    s*    = max over patches of d(p), attained by p* with nearest memory patch m*       (Eq. 6)
    score = (1 - exp |p* - m*| / sum over m in N_b(m*) of exp |p* - m|) s*              (Eq. 7)

N_b(m*) are the b memory patches nearest to m*, itself included.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxad.errors import UserError
from jaxad.models.pretrained import FeatureMap, Flat, PyramidSystem
from jaxad.nn.fields import Interval
from jaxad.types import Batch, Images, PerExample, Scores, Variables

Patches = Float[Array, "n channels"]
Memory = Float[Array, "slots channels"]
HostPatches = Float[np.ndarray, "n channels"]

#: Memory patches that all patches of a batch are compared with at once; bounds the memory in use.
_CHUNK = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchCore(PyramidSystem):
    """PatchCore as a `jaxad.types.FittedModel` and `jaxad.types.PretrainedModel`.

    Attributes:
        memory_size: patches in the memory. A training set of fewer patches leaves slots unused.
        candidates: training patches that the memory is chosen from. If there are more, a uniform
            random sample without replacement is taken.
        projection: dimensions of the random projection in which the memory is chosen; patches of
            no more channels are not projected.
        neighbours: b of Eq. 7; 1 leaves s* unweighted.
    """

    score_weights: ClassVar[Mapping[str, float]] = {"weighted_distance": 1.0}

    memory_size: Annotated[int, Interval("[1, inf)")]
    candidates: Annotated[int, Interval("[1, inf)")]
    projection: Annotated[int, Interval("[1, inf)")]
    neighbours: Annotated[int, Interval("[1, inf)")]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.neighbours > self.memory_size:
            raise UserError(
                f"config.model.neighbours: {self.neighbours} is more than config.model.memory_size "
                f"({self.memory_size}); choose a smaller number."
            )

    @property
    def num_latents(self) -> int:
        """The count of numbers in an image's patch features."""
        return self._num_places * self._total_channels

    def init_variables(self, key: Key[Array, ""]) -> Variables:
        """Returns a full memory of noise; the encoder's variables are NaN until they are read."""
        memory = jax.random.normal(key, (self.memory_size, self._total_channels))
        count = jnp.asarray(self.memory_size, jnp.int32)
        return {
            "params": {"memory": memory, "count": count},
            "encoder": self._encoder.unread_variables,
        }

    @functools.partial(jax.jit, static_argnums=0)  # compiled once for equal systems
    def patches(self, features: Flat) -> FeatureMap:
        """Returns the locally aware patch features at the positions of the finest level."""
        # Places outside of the map do not count.
        means = [
            nn.avg_pool(level, (3, 3), padding="SAME", count_include_pad=False)
            for level in self._levels(features.astype(jnp.float32))
        ]
        return self._join(means, "linear")

    def fit(self, variables: Variables, batches: Iterable[Batch], key: Key[Array, ""]) -> Variables:
        """Fills the memory with a coreset of the training patches, in the order of choice."""
        rng = np.random.default_rng(np.asarray(jax.random.bits(key, (4,), jnp.uint32)))
        sample = _Sample(self.candidates, self._total_channels, rng)
        for batch in batches:
            patches = np.asarray(self.patches(batch["features"]))[np.asarray(batch["_valid"])]
            sample.add(patches.reshape(-1, self._total_channels))
        points = sample.rows
        if self._total_channels > self.projection:
            matrix = rng.standard_normal((self._total_channels, self.projection), np.float32)
            points = points @ matrix / np.float32(np.sqrt(self.projection))
        count = min(self.memory_size, len(points))
        first = int(rng.integers(len(points)))
        chosen = np.asarray(choose_coreset(jnp.asarray(points), first, count))
        memory = np.zeros((self.memory_size, self._total_channels), np.float32)
        memory[:count] = sample.rows[chosen]
        return {**variables, "params": {"memory": memory, "count": np.int32(count)}}

    def score(self, variables: Variables, images: Images) -> Scores:
        """Scores images by Eq. 7; components are s* and the weighted distance."""
        memory, count = variables["params"]["memory"], variables["params"]["count"]
        patches = self.patches(self.features(variables, images))
        flat = patches.reshape(images.shape[0], -1, self._total_channels)
        distances = _nearest_distances(flat, memory, count)
        worst = jnp.argmax(distances, axis=1)[:, None, None]
        farthest = jnp.take_along_axis(flat, worst, axis=1)[:, 0]
        distance, weighted = self._image_scores(farthest, memory, count)
        return Scores(
            image=weighted,
            pixel=self._draw_map(distances),
            components={"distance": distance, "weighted_distance": weighted},
            reconstructions={},
        )

    def _image_scores(
        self, farthest: Patches, memory: Memory, count: Int[Array, ""]
    ) -> tuple[PerExample, PerExample]:
        """Returns s* and the score of Eq. 7 of images whose p* are given."""
        nearest = jnp.argmin(_squared_distances(farthest, memory, count), axis=1)
        distance = _lengths(farthest - memory[nearest])
        if self.neighbours == 1:
            return distance, distance
        around = _squared_distances(memory[nearest], memory, count)
        # m* is its own nearest patch, also where rounding or a duplicate says otherwise.
        around = around.at[jnp.arange(farthest.shape[0]), nearest].set(-jnp.inf)
        _, places = jax.lax.top_k(-around, self.neighbours)
        to_places = _lengths(farthest[:, None] - memory[places])
        # Unused slots are the last of the sorted places; they have no share in the sum.
        shares = jax.nn.softmax(jnp.where(places < count, to_places, -jnp.inf), axis=1)
        return distance, (1 - shares[:, 0]) * distance


class _Sample:
    """Uniform random sample without replacement of rows that arrive in parts (reservoir sampling).

    The sample depends on the order of the rows, not on their division into parts.
    """

    def __init__(self, size: int, channels: int, rng: np.random.Generator):
        self.rows = np.empty((0, channels), np.float32)
        self._size, self._rng, self._num_seen = size, rng, 0

    def add(self, rows: HostPatches) -> None:
        """Adds rows; once the sample is full, each replaces a random row or is dropped."""
        room = self._size - len(self.rows)
        numbers = self._num_seen + np.arange(len(rows))
        self._num_seen += len(rows)
        # Row n (from 0) replaces a random one of n + 1 slots, if that slot exists.
        slots = (self._rng.random(len(rows)) * (numbers + 1)).astype(np.int64)
        if room:
            self.rows = np.concatenate([self.rows, rows[:room]])
            rows, slots = rows[room:], slots[room:]
        kept = slots < self._size
        self.rows[slots[kept]] = rows[kept]


@functools.partial(jax.jit, static_argnames="count")
def choose_coreset(
    points: Patches, first: int | Int[Array, ""], count: int
) -> Int[Array, " count"]:
    """Chooses `count` <= N of the points [N, D] by greedy k-centre, starting with row `first`.

    Returns their rows in the order of choice, each once.
    """

    def choose(
        state: tuple[Float[Array, " n"], Int[Array, ""]], _: None
    ) -> tuple[tuple[Float[Array, " n"], Int[Array, ""]], Int[Array, ""]]:
        nearest, latest = state
        squared = jnp.sum((points - points[latest][None]) ** 2, axis=1)
        # Below the distance of duplicates, 0: a chosen point is never chosen again.
        nearest = jnp.minimum(nearest, squared).at[latest].set(-1.0)
        return (nearest, jnp.argmax(nearest).astype(jnp.int32)), latest

    start = (jnp.full(len(points), jnp.inf, points.dtype), jnp.asarray(first, jnp.int32))
    return jax.lax.scan(choose, start, length=count)[1]


def _lengths(x: Float[Array, "*rows channels"]) -> Float[Array, "*rows"]:
    return jnp.sqrt(jnp.sum(x**2, axis=-1))


def _squared_distances(
    x: Patches, memory: Memory, count: Int[Array, ""]
) -> Float[Array, "n slots"]:
    """Returns |x - m|^2, never below 0; infinite for unused slots of the memory."""
    products = jnp.matmul(x, memory.T, precision="highest")
    squared = jnp.sum(x**2, axis=1)[:, None] + jnp.sum(memory**2, axis=1)[None] - 2 * products
    is_used = jnp.arange(memory.shape[0]) < count
    return jnp.where(is_used[None], jnp.maximum(squared, 0), jnp.inf)


def _nearest_distances(
    patches: Float[Array, "batch places channels"], memory: Memory, count: Int[Array, ""]
) -> Float[Array, "batch places"]:
    """Returns every patch's distance from the nearest one of the memory's first `count`."""
    # Products of centred vectors lose fewer digits.
    is_used = (jnp.arange(memory.shape[0]) < count)[:, None]
    centre = jnp.sum(jnp.where(is_used, memory, 0), axis=0, keepdims=True) / count
    x = patches.reshape(-1, patches.shape[-1]) - centre
    padded = jnp.pad(memory - centre, ((0, -memory.shape[0] % _CHUNK), (0, 0)))
    chunks = padded.reshape(-1, _CHUNK, memory.shape[1])
    starts = _CHUNK * jnp.arange(chunks.shape[0], dtype=jnp.int32)

    def compare(
        best: Float[Array, " n"], part: tuple[Memory, Int[Array, ""]]
    ) -> tuple[Float[Array, " n"], None]:
        chunk, start = part
        squared = _squared_distances(x, chunk, count - start)
        return jnp.minimum(best, jnp.min(squared, axis=1)), None

    best, _ = jax.lax.scan(compare, jnp.full_like(x[:, 0], jnp.inf), (chunks, starts))
    return jnp.sqrt(best).reshape(patches.shape[:2])
