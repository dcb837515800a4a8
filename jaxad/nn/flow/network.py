"""Normalising flow over the channels of a feature map, built from distrax bijectors.

One block is FrEIA's `AllInOneBlock` with affine_clamping=2 and a SOFTPLUS global affine (AE-FLOW,
Section 2):

    a, b = split(x)                                    along the channels
    s, t = output_scale * subnet(a)
    u    = a, b * exp(2 tanh(s)) + t                   coupling
    y    = R(global_scale * u + global_offset)         actnorm, then a fixed permutation

A coupling's Jacobian is triangular: its log determinant is a sum over channels and positions. All
bijectors here have only the channels as their event, so that log-dets are given by position,
[B, H, W]; the log-det of a feature map is their sum. The subnets see neighbouring positions as
well: the sum is exact, while the part of a single position is only a map to look at.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Annotated

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxad.nn.convolution import conv_general_dilated, dot_general
from jaxad.nn.fields import Interval, OneOf, check_fields
from jaxad.nn.flow.permutations import ChannelPermutation, ChannelReversal, ChannelRotation
from jaxad.types import PerExample

SUBNETS = ("conv", "resnet", "dense")
PERMUTATIONS = ("random", "reverse", "orthogonal")
HALVES = ("second", "first")

FeatureMap = Float[Array, "batch rows columns features"]
AnyMap = Float[Array, "batch rows columns _"]
LogDet = Float[Array, "batch rows columns"]

#: Bound of the coupling's log scale: FrEIA's affine_clamping, the 2 of AE-FLOW's exp(2 tanh).
_CLAMP = 2.0
#: beta of softplus(x) = log(1 + exp(beta x)) / beta (AE-FLOW, Section 2).
_BETA = 0.5
#: torch's default for kernels, which FrEIA's subnets keep: U(-1, 1) / sqrt(fan in). Biases are 0.
_TORCH_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


@dataclasses.dataclass(frozen=True)
class FlowSettings:
    """Conventions of a flow; the defaults are FrEIA's, which AE-FLOW was built with.

    Attributes:
        num_blocks: blocks of the flow.
        subnet: `conv` (3x3, ReLU, 1x1; as wide inside as its input), `resnet` (3x3, batch norm,
            ReLU, plus a 1x1 shortcut) or `dense` (1x1 with ReLU between).
        permutation: `random` (a fixed random order), `reverse` (AE-FLOW's text) or `orthogonal`
            (FrEIA's permute_soft: a fixed random rotation).
        moves: the half that a coupling changes given the other: `second` (FrEIA) or `first`
            (AE-FLOW's formula).
        output_scale: factor of a subnet's output: 0.1 in FrEIA, 1 in AE-FLOW's text.
        global_scale: factor of the actnorm's softplus: 0.1 in FrEIA, 1 in AE-FLOW's text.
        zero_start: whether the output of every subnet starts at zero, so that a flow starts as a
            permutation (Kingma and Dhariwal 2018, Glow).
        hidden_widths: hidden channels of each layer of a `dense` subnet; () for two layers of four
            times its input's.
    """

    num_blocks: Annotated[int, Interval("[1, inf)")] = 8
    subnet: Annotated[str, OneOf(SUBNETS)] = "conv"
    permutation: Annotated[str, OneOf(PERMUTATIONS)] = "random"
    moves: Annotated[str, OneOf(HALVES)] = "second"
    output_scale: Annotated[float, Interval("(0, inf)")] = 0.1
    global_scale: Annotated[float, Interval("(0, inf)")] = 0.1
    hidden_widths: tuple[int, ...] = ()
    zero_start: bool = False

    def __post_init__(self) -> None:
        check_fields(self)


class _Subnet(nn.Module):
    """Base of the networks that compute a coupling's scale and shift: `features` channels."""

    features: int
    train: bool
    axis_name: str | None
    dtype: DTypeLike
    precision: str | None
    zero_start: bool

    def _conv(self, name: str, features: int, x: AnyMap) -> AnyMap:
        return nn.Conv(
            features, (3, 3), dtype=self.dtype, precision=self.precision, kernel_init=_TORCH_INIT,
            conv_general_dilated=conv_general_dilated, name=name,
        )(x)  # fmt: skip

    def _dense(self, name: str, x: AnyMap, features: int | None = None) -> AnyMap:
        """Applies a 1x1 convolution, by default the last one, to the output's channels."""
        is_last = features is None
        return nn.Dense(
            features or self.features, dtype=self.dtype, precision=self.precision,
            kernel_init=nn.initializers.zeros if is_last and self.zero_start else _TORCH_INIT,
            dot_general=dot_general, name=name,
        )(x)  # fmt: skip


class ConvSubnet(_Subnet):
    """A 3x3 convolution, ReLU and a 1x1 convolution: FastFlow's subnet, and AE-FLOW's first."""

    @nn.compact
    def __call__(self, x: AnyMap) -> AnyMap:
        return self._dense("conv_1", nn.relu(self._conv("conv_0", x.shape[-1], x)))


class ResNetSubnet(_Subnet):
    """A 3x3 convolution, batch norm and ReLU, plus a 1x1 shortcut: AE-FLOW's second subnet."""

    @nn.compact
    def __call__(self, x: AnyMap) -> AnyMap:
        y = nn.BatchNorm(
            use_running_average=not self.train,
            momentum=0.9,
            axis_name=self.axis_name if self.train else None,
            dtype=self.dtype,
            name="norm",
        )(self._conv("conv", self.features, x))
        y = nn.relu(y)
        if self.zero_start:
            gain = self.param("gain", nn.initializers.zeros, (1, 1, 1, self.features))
            y = y * gain.astype(y.dtype)
        return y + self._dense("shortcut", x)


class DenseSubnet(_Subnet):
    """1x1 convolutions with ReLU between them: DifferNet's fully connected subnet.

    Attributes:
        hidden_widths: see `FlowSettings`.
    """

    hidden_widths: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, x: AnyMap) -> AnyMap:
        widths = self.hidden_widths or (4 * x.shape[-1],) * 2
        y = x
        for layer, width in enumerate(widths):
            y = nn.relu(self._dense(f"dense_{layer}", y, width))
        return self._dense(f"dense_{len(widths)}", y)


def _softplus(x: Array) -> Array:
    return jax.nn.softplus(_BETA * x) / _BETA


class Flow(nn.Module):
    """Maps feature maps z [B, H, W, C] to z' of the same shape, for a standard normal density.

    Attributes:
        channels: C, at least 2.
        settings: conventions of the flow.
        train: whether batch norm (of the `resnet` subnet) uses the batch's statistics. Subnets run
            at the highest precision unless they train: likelihoods and inverses need it.
        axis_name: axis that batch norm averages over in training.
        dtype: dtype of the subnets' convolutions; z and z' stay float32.
    """

    channels: int
    settings: FlowSettings
    train: bool = False
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        channels, settings = self.channels, self.settings
        # FrEIA's split: the first half has the odd channel.
        self._split = channels - channels // 2
        moved = channels // 2 if settings.moves == "second" else self._split
        dense = functools.partial(DenseSubnet, hidden_widths=settings.hidden_widths)
        kinds: dict[str, Callable[..., _Subnet]] = {
            "conv": ConvSubnet,
            "resnet": ResNetSubnet,
            "dense": dense,
        }
        subnet = kinds[settings.subnet]
        precision = None if self.train else "highest"
        self._subnets = [
            subnet(
                2 * moved, self.train, self.axis_name, self.dtype, precision, settings.zero_start,
                name=f"subnet_{block}",
            )
            for block in range(settings.num_blocks)
        ]  # fmt: skip
        start = math.log(math.expm1(_BETA / settings.global_scale)) / _BETA  # softplus's inverse
        numbers = range(settings.num_blocks)
        initial = nn.initializers.constant(start)
        self._scales = [self.param(f"global_scale_{n}", initial, (channels,)) for n in numbers]
        zeros = nn.initializers.zeros
        self._offsets = [self.param(f"global_offset_{n}", zeros, (channels,)) for n in numbers]
        if settings.permutation != "reverse":
            self._permutations = [
                self.variable("permutation", f"block_{n}", self._draw) for n in numbers
            ]

    def _draw(self) -> Array:
        key = self.make_rng("params")
        if self.settings.permutation == "random":
            return jax.random.permutation(key, self.channels).astype(jnp.int32)
        matrix = jax.random.orthogonal(key, self.channels)
        # FrEIA draws rotations, of determinant 1.
        return matrix.at[0].multiply(jnp.sign(jnp.linalg.det(matrix)))

    def _coupling(self, block: int) -> distrax.Bijector:
        def conditioner(passive: AnyMap) -> tuple[AnyMap, AnyMap]:
            a = self._subnets[block](passive).astype(passive.dtype) * self.settings.output_scale
            s, t = jnp.split(a, 2, axis=-1)
            return _CLAMP * jnp.tanh(s), t

        return distrax.SplitCoupling(
            split_index=self._split,
            event_ndims=1,
            conditioner=conditioner,
            bijector=lambda parts: distrax.ScalarAffine(log_scale=parts[0], shift=parts[1]),
            swap=self.settings.moves == "first",
        )

    def _actnorm(self, block: int) -> distrax.Bijector:
        scale = self.settings.global_scale * _softplus(self._scales[block])
        return distrax.Block(distrax.ScalarAffine(shift=self._offsets[block], scale=scale), 1)

    def _permutation(self, block: int) -> distrax.Bijector:
        if self.settings.permutation == "reverse":
            return ChannelReversal()
        kind = {"random": ChannelPermutation, "orthogonal": ChannelRotation}
        return kind[self.settings.permutation](self._permutations[block].value)

    def bijector(self) -> distrax.Bijector:
        """Returns the whole flow; its events are channels, its log-dets [B, H, W]."""
        steps = [
            step
            for block in range(self.settings.num_blocks)
            for step in (self._coupling(block), self._actnorm(block), self._permutation(block))
        ]
        return distrax.Chain(steps[::-1])  # the last one is applied first

    def __call__(self, z: FeatureMap) -> tuple[FeatureMap, LogDet]:
        """Returns z' and the contribution of every position to log |det dz'/dz|."""
        return self.bijector().forward_and_log_det(z)

    def undo_permutations(self, z_prime: FeatureMap) -> FeatureMap:
        """Returns z' in the order of z's channels: the inverse of a flow that is a permutation."""
        for block in reversed(range(self.settings.num_blocks)):
            z_prime = self._permutation(block).inverse(z_prime)
        return z_prime

    def inverse(self, z_prime: FeatureMap) -> tuple[FeatureMap, LogDet]:
        """Returns z and the contribution of every position to log |det dz/dz'|."""
        return self.bijector().inverse_and_log_det(z_prime)


def standard_normal_log_density(z: FeatureMap) -> LogDet:
    """Returns log N(z; 0, I) at every position, summed over its channels; [B, H, W], in nats."""
    return -0.5 * (jnp.sum(z**2, axis=-1) + z.shape[-1] * math.log(2 * math.pi))


def likelihood_terms(
    transformed: Sequence[tuple[Float[Array, "batch _ _ _"], Float[Array, "batch _ _"]]],
) -> dict[str, PerExample]:
    """Returns the terms of the likelihood of one or several flows, in nats per dimension.

    Args:
        transformed: what each flow returned: z' and each position's log |det dz'/dz|.

    Returns:
        `feature_nll` (-log p(z)), `latent_nll` (-log p(z')) and `log_det`, each [B].
    """
    densities = [jnp.sum(standard_normal_log_density(z), axis=(1, 2)) for z, _ in transformed]
    shares = [jnp.sum(share, axis=(1, 2)) for _, share in transformed]
    latent_nll = -jnp.sum(jnp.stack(densities), axis=0)
    log_det = jnp.sum(jnp.stack(shares), axis=0)
    dimensions = sum(math.prod(z.shape[1:]) for z, _ in transformed)
    return {
        "feature_nll": (latent_nll - log_det) / dimensions,
        "latent_nll": latent_nll / dimensions,
        "log_det": log_det / dimensions,
    }
