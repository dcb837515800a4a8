"""Vector quantiser whose codebook follows moving averages of its inputs.

van den Oord et al. 2017, "Neural Discrete Representation Learning", Section 3 and Appendix A.1;
Razavi et al. 2019, "Generating Diverse High-Fidelity Images with VQ-VAE-2", Eqs. 1 and 2. The
codebook is mutable state, not a parameter: no gradient reaches it.

Differences from the appendix: the averages start at one visit per code instead of zero, where an
unused code would be the quotient of two vanishing numbers. Codes that are hardly used move to
vectors of the batch, as all codes do in the first update, because a part of the codebook would
otherwise never be used (the "random restarts" of Jukebox, Dhariwal et al. 2020).
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxad.types import PerExample

Vectors = Float[Array, "batch *places dimension"]
Codebook = Float[Array, "codes dimension"]
Counts = Float[Array, " codes"]

#: A code is dead if its moving count of visits is below this share of the mean count.
DEAD_SHARE = 0.03


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Quantised:
    """Vectors that were replaced with codes.

    Attributes:
        vectors: the codes; their gradient passes to the vectors unchanged (straight-through).
        codes: number of each vector's code, int32 [B, ...].
        commitment: mean squared distance of an example's vectors from their codes, whose gradient
            moves the vectors alone; [B].
        perplexity: exp(entropy) of the moving averages of visits: the number of codes in use, from
            1 to K; [].
    """

    vectors: Vectors
    codes: Int[Array, "batch *places"]
    commitment: PerExample
    perplexity: Float[Array, ""]


def nearest(vectors: Float[Array, "n dimension"], codebook: Codebook) -> Int[Array, " n"]:
    """Returns the code nearest to each vector, the first one of equals."""
    # |v - e|^2 without |v|^2, which does not depend on the code.
    products = jnp.matmul(vectors, codebook.T, precision=jax.lax.Precision.HIGHEST)
    distances = jnp.sum(codebook**2, axis=1)[None] - 2 * products
    # The first place of the least distance, which is faster than argmin: XLA does not vectorise
    # argmin. NaN is the least, as for argmin.
    least = jnp.min(distances, axis=1, keepdims=True)
    places = jnp.arange(len(codebook), dtype=jnp.int32)
    is_least = (distances == least) | jnp.isnan(distances)
    return jnp.min(jnp.where(is_least, places, len(codebook) - 1), axis=1)


def perplexity(counts: Counts) -> Float[Array, ""]:
    """Returns exp(entropy) of the distribution of counts."""
    shares = counts / jnp.sum(counts)
    return jnp.exp(-jnp.sum(jax.scipy.special.xlogy(shares, shares)))


def moving_average(old: Array, new: Array, decay: float) -> Array:
    """Returns decay * old + (1 - decay) * new: Eq. 2 of VQ-VAE-2."""
    return decay * old + (1 - decay) * new


class Quantiser(nn.Module):
    """Replaces vectors with the nearest of K codes.

    The collection `codebook` holds `count` [K] and `total` [K, D], moving averages of each code's
    visits and of the sum of its vectors (the code is their quotient); `visits` [K], the moving
    average of visits that restarts do not change; and `updates` [], the number of updates.

    Attributes:
        num_codes: K.
        dimension: D.
        decay: decay of the moving averages, gamma.
        train: whether a call updates the codebook.
        axis_name: axis that visits and sums are added up over; see `jaxad.types.Model`.
    """

    num_codes: int
    dimension: int
    decay: float
    train: bool
    axis_name: str | None

    @nn.compact
    def __call__(
        self, vectors: Vectors, valid: Bool[Array, " batch"], index: Int[Array, " batch"]
    ) -> Quantised:
        """Quantises vectors and, in training, updates the codebook.

        Args:
            vectors: float32 [B, ..., D].
            valid: False for padding, which does not move the codebook.
            index: position of each example in the global batch.
        """
        count = self.variable("codebook", "count", jnp.ones, (self.num_codes,))
        total = self.variable("codebook", "total", self._initial_codebook)
        visits = self.variable("codebook", "visits", jnp.ones, (self.num_codes,))
        updates = self.variable("codebook", "updates", lambda: jnp.zeros((), jnp.int32))
        codebook = total.value / count.value[:, None]

        flat = jax.lax.stop_gradient(vectors).reshape(vectors.shape[0], -1, self.dimension)
        codes = nearest(flat.reshape(-1, self.dimension), codebook).reshape(flat.shape[:2])
        chosen = jax.lax.stop_gradient(codebook[codes].reshape(vectors.shape))
        commitment = (vectors - chosen) ** 2
        quantised = Quantised(
            vectors=vectors + jax.lax.stop_gradient(chosen - vectors),
            codes=codes.reshape(vectors.shape[:-1]),
            commitment=jnp.mean(commitment.reshape(vectors.shape[0], -1), axis=1),
            perplexity=perplexity(visits.value),
        )
        if self.train and not self.is_initializing():
            new_visits, sums = self._count(flat, codes, valid)
            new_count = moving_average(count.value, new_visits, self.decay)
            new_total = moving_average(total.value, sums, self.decay)
            visits.value = moving_average(visits.value, new_visits, self.decay)
            dead = new_count < DEAD_SHARE * jnp.mean(new_count)
            dead |= updates.value == 0
            candidates, is_valid = self._draw(flat, valid, index, updates.value)
            replaced = dead & is_valid
            # A replaced code starts with the mean count, or it would be dead again at once.
            fresh_count = jnp.full_like(new_count, jnp.mean(new_count))
            count.value = jnp.where(replaced, fresh_count, new_count)
            total.value = jnp.where(replaced[:, None], fresh_count[:, None] * candidates, new_total)
            updates.value = updates.value + 1
        return quantised

    def _initial_codebook(self) -> Codebook:
        return jax.random.normal(self.make_rng("params"), (self.num_codes, self.dimension))

    def _sum(self, x: Array) -> Array:
        return x if self.axis_name is None else jax.lax.psum(x, self.axis_name)

    def _count(
        self,
        flat: Float[Array, "batch places dimension"],
        codes: Int[Array, "batch places"],
        valid: Bool[Array, " batch"],
    ) -> tuple[Counts, Codebook]:
        """Returns each code's visits and sum of vectors in the global batch."""
        # Segment sums, because the rows of a one-hot product would be mostly zeros.
        segments = jnp.where(valid[:, None], codes, self.num_codes).ravel()
        rows = flat.reshape(-1, self.dimension)
        visits = jax.ops.segment_sum(jnp.ones(len(rows)), segments, self.num_codes + 1)
        sums = jax.ops.segment_sum(rows, segments, self.num_codes + 1)
        return self._sum(visits[:-1]), self._sum(sums[:-1])

    def _draw(
        self,
        flat: Float[Array, "batch places dimension"],
        valid: Bool[Array, " batch"],
        index: Int[Array, " batch"],
        updates: Int[Array, ""],
    ) -> tuple[Codebook, Bool[Array, " codes"]]:
        """Draws a vector of the global batch for each code; also returns whether it is valid.

        The draw depends on the number of updates and the position in the global batch, so that it
        is the same for every layout of the batch over devices.
        """
        num_devices = 1 if self.axis_name is None else jax.lax.axis_size(self.axis_name)
        key_example, key_place = jax.random.split(jax.random.key(updates))
        shape = (self.num_codes,)
        examples = jax.random.randint(key_example, shape, 0, len(flat) * num_devices)
        places = jax.random.randint(key_place, shape, 0, flat.shape[1])
        here = ((examples[:, None] == index[None]) & valid[None]).astype(flat.dtype)
        # Exact: each row of `here` has at most a single 1.
        drawn = jnp.einsum("kb,bkd->kd", here, flat[:, places], precision=jax.lax.Precision.HIGHEST)
        return self._sum(drawn), self._sum(jnp.sum(here, axis=1)) > 0
