"""Base of the systems that have a normalising flow on each level of a frozen encoder's features.

A level is the feature map z of one stride. With `whitening="place"`, the first step of its flow is
linear and fitted to the training images before the first update, from the mean mu and covariance
Sigma = L L^T of z at each position p (those of PaDiM, Defard et al. 2021, Eq. 1):

    u_p = L_p^-1 (z_p - mu_p),  log |det du_p/dz_p| = log |det L_p^-1|

The convolutions behind it are the same everywhere; this step tells them what is normal where.
Training then starts from PaDiM's density instead of a standard normal one, and the flow as a
permutation of u, whose inverse and z_p = mu_p + L_p u_p give a decoder features again.
"""

import abc
import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxad.models.place_gaussians import PlaceGaussians
from jaxad.models.pretrained import Flat, PyramidSystem
from jaxad.nn import networks, ops
from jaxad.nn.fields import OneOf
from jaxad.nn.flow import Flow, FlowSettings, standard_normal_log_density
from jaxad.types import PerExample, Tree, Variables

Level = Float[Array, "batch _ _ _"]
#: z' and each position's part of the log-det of every level, which differ in size.
Transformed = list[tuple[Level, Float[Array, "batch _ _"]]]

#: Share of a level's places that `top_tenth` averages.
_TOP = 0.1

#: Collection of the fitted step.
_WHITENING = "whitening"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowLevels(PyramidSystem):
    """A flow on the features of each of `strides`.

    Attributes:
        whitening: first step of each flow: `place`, fitted, or `none`. Memory and checkpoints grow
            with the number of places times the square of the channels.
    """

    #: Whether a decoder follows, for which the fitted step keeps its inverse.
    decodes: ClassVar[bool] = False

    whitening: Annotated[str, OneOf(("none", "place"))]

    @property
    def num_latents(self) -> int:
        """The number of dimensions of z', over all levels."""
        return sum(rows * columns * channels for rows, columns, channels in self._shapes)

    @property
    @abc.abstractmethod
    def _settings(self) -> FlowSettings:
        """The conventions of the flows."""

    def flows(self, *, train: bool) -> list[Flow]:
        """Returns the flow of each level in training or evaluation mode."""
        # Behind the whitening, training starts from its density.
        settings = dataclasses.replace(self._settings, zero_start=self.whitening == "place")
        return [
            Flow(channels, settings, train, self.axis_name, self.dtype)
            for _, _, channels in self._shapes
        ]

    def _init_flows(self, key: Key[Array, ""]) -> dict[str, Variables]:
        """Returns fresh variables of each level's flow by the name of its network."""
        keys = jax.random.split(key, len(self.strides))
        networks_of: dict[str, Variables] = {}
        for level, flow in enumerate(self.flows(train=False)):
            shape = self._shapes[level]
            variables = dict(flow.init(keys[level], jnp.zeros((1, *shape))))
            if self.whitening == "place":
                variables[_WHITENING] = _identity(shape, self.decodes)
            networks_of[f"flow_{level}"] = variables
        return networks_of

    def prepare(
        self, variables: Variables, batches: Iterable[Mapping[str, np.ndarray]]
    ) -> Variables:
        """Fits the whitening to the training images; see `jaxad.types.TrainedModel`."""
        if self.whitening == "none":
            return variables
        gaussians = [PlaceGaussians(rows * columns, c) for rows, columns, c in self._shapes]
        split = jax.jit(lambda features: self._levels(features.astype(jnp.float32)))
        for batch in batches:
            for gaussian, level in zip(gaussians, split(batch["features"]), strict=True):
                vectors = np.asarray(level).reshape(len(level), -1, level.shape[-1])
                gaussian.add(vectors[np.asarray(batch["_valid"])])
        fitted = {}
        for number, (gaussian, shape) in enumerate(zip(gaussians, self._shapes, strict=True)):
            mean, matrix = gaussian.whiten()
            fitted[f"flow_{number}"] = {
                "mean": mean.reshape(shape),
                "matrix": matrix.reshape(*shape, shape[-1]),
            }
            if self.decodes:
                inverse = gaussian.factors().reshape(*shape, shape[-1])
                fitted[f"flow_{number}"]["inverse"] = inverse
        return {**variables, _WHITENING: fitted}

    def _decodable(self, variables: Variables, transformed: Transformed) -> list[Level]:
        """Returns z' of every level for a decoder, which sees the same convolutions everywhere.

        Behind a whitening z' has lost what differs between places. This undoes the permutations of
        the flow and the whitening, but not what the flow has learnt.
        """
        if self.whitening == "none":
            return [z_prime for z_prime, _ in transformed]
        levels = []
        for level, (flow, (z_prime, _)) in enumerate(
            zip(self.flows(train=False), transformed, strict=True)
        ):
            name = f"flow_{level}"
            u, _ = networks.apply(variables, name, flow, z_prime, method="undo_permutations")
            levels.append(_unwhiten(variables[_WHITENING][name], u))
        return levels

    def _fitted_log_det(self, variables: Variables, level: int) -> Float[Array, "1 _ _"]:
        """Returns the whitening's part of the log-det, the same for every image."""
        if self.whitening == "none":
            return jnp.zeros((1, *self._shapes[level][:2]))
        return _log_det(variables[_WHITENING][f"flow_{level}"])

    def _transform(
        self, variables: Variables, features: Flat, *, train: bool
    ) -> tuple[Transformed, Variables]:
        """Returns z' and each position's part of the log-det by level, and updated variables."""
        transformed = []
        levels = zip(self.flows(train=train), self._levels(features), strict=True)
        for level, (flow, z) in enumerate(levels):
            name, log_det = f"flow_{level}", self._fitted_log_det(variables, level)
            if self.whitening == "place":
                z = _whiten(variables[_WHITENING][name], z)
            (z_prime, share), variables = networks.apply(variables, name, flow, z, train=train)
            transformed.append((z_prime, share + log_det))
        return transformed, variables


def top_tenth(transformed: Transformed) -> PerExample:
    """Returns how unlikely the least likely places of an image are, [B], in nats per channel.

    With -log p(z_p) of the features at each place p, which counts the log-det: its mean over the
    tenth of a level's places where it is largest, summed over levels and divided by the channels of
    all levels. An anomaly may change only a few places, which a mean over all of them hides. Behind
    a whitening, log-dets differ between places: those whose normal features vary most are among the
    tenth more often.
    """
    sums, channels = [], 0
    for z_prime, log_det in transformed:
        nll = -(standard_normal_log_density(z_prime) + log_det)
        nll = jnp.sort(nll.reshape(nll.shape[0], -1), axis=1)
        sums.append(jnp.mean(nll[:, -math.ceil(_TOP * nll.shape[1]) :], axis=1))
        channels += z_prime.shape[-1]
    return jnp.sum(jnp.stack(sums), axis=0) / channels


def _identity(shape: tuple[int, int, int], has_inverse: bool) -> Tree:
    rows, columns, channels = shape
    matrix = jnp.tile(jnp.eye(channels), (rows, columns, 1, 1))
    step = {"mean": jnp.zeros(shape), "matrix": matrix}
    return {**step, "inverse": matrix} if has_inverse else step


def _whiten(step: Tree, z: Level) -> Level:
    """Returns u."""
    mean, matrix = (jax.lax.stop_gradient(step[name]) for name in ("mean", "matrix"))
    u = jnp.einsum("hwij,bhwj->bhwi", matrix, z - mean[None], precision="highest")
    return ops.full_precision(u)


def _unwhiten(step: Tree, u: Level) -> Level:
    """Returns mu + L u."""
    mean, inverse = (jax.lax.stop_gradient(step[name]) for name in ("mean", "inverse"))
    z = jnp.einsum("hwij,bhwj->bhwi", inverse, u, precision="highest")
    return mean[None] + ops.full_precision(z)


def _log_det(step: Tree) -> Float[Array, "1 _ _"]:
    """Returns the log-det of each position; the matrices are triangular."""
    matrix = jax.lax.stop_gradient(step["matrix"])
    return jnp.sum(jnp.log(jnp.diagonal(matrix, axis1=-2, axis2=-1)), axis=-1)[None]
