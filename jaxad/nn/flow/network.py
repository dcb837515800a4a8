"""A normalizing flow over the channels of a feature map, built from distrax bijectors.

One block is what FrEIA's `AllInOneBlock` computes with affine_clamping=2 and a SOFTPLUS global
affine (AE-FLOW, Section 2):

    a, b = split(x)                                    along the channels
    s, t = output_scale * subnet(a)
    u    = a, b * exp(2 tanh(s)) + t                   coupling
    y    = R(global_scale * u + global_offset)         actnorm, then a fixed permutation

A coupling's Jacobian is triangular: its log determinant is a sum over channels and places. All
bijectors here therefore have the channels alone as their event, so that log-dets keep their place,
[B, H, W]; the log-det of a feature map is their sum. The subnets look at neighbouring places all
the same; the sum is exact, a single place's share is a map to look at.
"""

import dataclasses
import math

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxad.errors import UserError
from jaxad.nn.convolution import conv_general_dilated
from jaxad.nn.flow.permutations import ChannelPermutation, ChannelReversal, ChannelRotation

SUBNETS = ("conv", "resnet", "dense")
PERMUTATIONS = ("random", "reverse", "orthogonal")
HALVES = ("second", "first")

FeatureMap = Float[Array, "batch rows columns features"]
AnyMap = Float[Array, "batch rows columns _"]
LogDet = Float[Array, "batch rows columns"]

#: Bound of the coupling's log scale: FrEIA's affine_clamping, the 2 of AE-FLOW's exp(2 tanh).
_CLAMP = 2.0
#: Softplus is log(1 + exp(beta x)) / beta with this beta (AE-FLOW, Section 2).
_BETA = 0.5
#: Of kernels torch's default, which FrEIA's subnets keep: U(-1, 1) / sqrt(fan in). Biases are 0.
_TORCH_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


@dataclasses.dataclass(frozen=True)
class FlowSettings:
    """The conventions of a flow; the defaults are FrEIA's, which AE-FLOW was built with.

    Attributes:
        num_blocks: in the flow.
        subnet: `conv` (3x3, ReLU, 1x1; as wide inside as its input), `resnet` (3x3, batch norm,
            ReLU, plus a 1x1 shortcut) or `dense` (three 1x1 with ReLU between; four times as wide
            inside as its input).
        permutation: `random` (a fixed random order), `reverse` (AE-FLOW's text) or `orthogonal`
            (FrEIA's permute_soft: a fixed random rotation).
        moves: the half that a coupling changes given the other: `second` (FrEIA) or `first`
            (AE-FLOW's formula).
        output_scale: what a subnet's output is multiplied by: 0.1 in FrEIA, 1 in AE-FLOW's text.
        global_scale: what the actnorm's softplus is multiplied by: 0.1 in FrEIA, 1 in the text.
    """

    num_blocks: int = 8
    subnet: str = "conv"
    permutation: str = "random"
    moves: str = "second"
    output_scale: float = 0.1
    global_scale: float = 0.1

    def __post_init__(self) -> None:
        known = {"subnet": SUBNETS, "permutation": PERMUTATIONS, "moves": HALVES}
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise UserError(
                    f"config.model.{name}: unknown '{getattr(self, name)}'; "
                    f"known: {', '.join(values)}."
                )
        if self.num_blocks < 1:
            raise UserError(f"config.model.num_blocks: {self.num_blocks} is less than 1.")
        for name in ("output_scale", "global_scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"config.model.{name}: {getattr(self, name)} is not positive.")


class _Subnet(nn.Module):
    """What a coupling's scale and shift come from.

    Attributes:
        features: of the output.
        train: whether batch norm uses the batch's statistics.
        axis_name: of batch norm's means in training.
        dtype: of the convolutions.
        precision: of the convolutions.
    """

    features: int
    train: bool
    axis_name: str | None
    dtype: DTypeLike
    precision: str | None

    def _conv(self, name: str, features: int, x: AnyMap) -> AnyMap:
        return nn.Conv(
            features, (3, 3), dtype=self.dtype, precision=self.precision, kernel_init=_TORCH_INIT,
            conv_general_dilated=conv_general_dilated, name=name,
        )(x)  # fmt: skip

    def _dense(self, name: str, x: AnyMap, features: int | None = None) -> AnyMap:
        """A 1x1 convolution; by default to the output's features."""
        return nn.Dense(
            features or self.features, dtype=self.dtype, precision=self.precision,
            kernel_init=_TORCH_INIT, name=name,
        )(x)  # fmt: skip


class ConvSubnet(_Subnet):
    """3x3 - ReLU - 1x1, as wide inside as its input: FastFlow's, AE-FLOW's first kind."""

    @nn.compact
    def __call__(self, x: AnyMap) -> AnyMap:
        return self._dense("conv_1", nn.relu(self._conv("conv_0", x.shape[-1], x)))


class ResNetSubnet(_Subnet):
    """3x3 - batch norm - ReLU plus a 1x1 shortcut: AE-FLOW's second kind."""

    @nn.compact
    def __call__(self, x: AnyMap) -> AnyMap:
        y = nn.BatchNorm(
            use_running_average=not self.train,
            momentum=0.9,
            axis_name=self.axis_name if self.train else None,
            dtype=self.dtype,
            name="norm",
        )(self._conv("conv", self.features, x))
        return nn.relu(y) + self._dense("shortcut", x)


class DenseSubnet(_Subnet):
    """1x1 - ReLU - 1x1 - ReLU - 1x1, of each place alone: DifferNet's fully connected one."""

    @nn.compact
    def __call__(self, x: AnyMap) -> AnyMap:
        y = x
        for layer in range(2):
            y = nn.relu(self._dense(f"dense_{layer}", y, 4 * x.shape[-1]))
        return self._dense("dense_2", y)


def _softplus(x: Array) -> Array:
    return jax.nn.softplus(_BETA * x) / _BETA


def _inverse_softplus(y: float) -> float:
    """The x with softplus(x) = y."""
    return math.log(math.expm1(_BETA * y)) / _BETA


class Flow(nn.Module):
    """Feature maps z [B, H, W, C] to z' whose density is to be a standard normal's.

    Attributes:
        channels: C, at least 2.
        settings: its conventions.
        train: whether batch norm (of the `resnet` subnet) uses the batch's statistics.
        axis_name: see `jaxad.types.Model`.
        dtype: of the subnets' convolutions; what is transformed stays float32.
        precision: of the subnets' convolutions. Likelihoods and inverses need the highest, which
            accelerators leave only when asked to (None: training may take what is fast).
    """

    channels: int
    settings: FlowSettings
    train: bool = False
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32
    precision: str | None = "highest"

    def setup(self) -> None:
        channels, settings = self.channels, self.settings
        # FrEIA's split: the first half has the odd channel.
        self._split = channels - channels // 2
        moved = channels // 2 if settings.moves == "second" else self._split
        kinds = {"conv": ConvSubnet, "resnet": ResNetSubnet, "dense": DenseSubnet}
        subnet = kinds[settings.subnet]
        self._subnets = [
            subnet(
                2 * moved, self.train, self.axis_name, self.dtype, self.precision,
                name=f"subnet_{block}",
            )
            for block in range(settings.num_blocks)
        ]  # fmt: skip
        start = _inverse_softplus(1 / settings.global_scale)
        names = [str(block) for block in range(settings.num_blocks)]
        self._scales = [
            self.param(f"global_scale_{name}", nn.initializers.constant(start), (channels,))
            for name in names
        ]
        self._offsets = [
            self.param(f"global_offset_{name}", nn.initializers.zeros, (channels,))
            for name in names
        ]
        if settings.permutation != "reverse":
            self._permutations = [
                self.variable("permutation", f"block_{name}", self._draw) for name in names
            ]

    def _draw(self) -> Array:
        key = self.make_rng("params")
        if self.settings.permutation == "random":
            return jax.random.permutation(key, self.channels).astype(jnp.int32)
        matrix = jax.random.orthogonal(key, self.channels)
        # A rotation: FrEIA draws from SO(C).
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
        """The whole flow; its events are channels, its log-dets [B, H, W]."""
        steps = [
            step
            for block in range(self.settings.num_blocks)
            for step in (self._coupling(block), self._actnorm(block), self._permutation(block))
        ]
        return distrax.Chain(steps[::-1])  # the last one is applied first

    def __call__(self, z: FeatureMap) -> tuple[FeatureMap, LogDet]:
        """z' and the share of every place in log |det dz'/dz|."""
        return self.bijector().forward_and_log_det(z)

    def inverse(self, z_prime: FeatureMap) -> tuple[FeatureMap, LogDet]:
        """z and the share of every place in log |det dz/dz'|."""
        return self.bijector().inverse_and_log_det(z_prime)


def standard_normal_log_density(z: FeatureMap) -> LogDet:
    """log N(z; 0, I) at every place, summed over its channels; [B, H, W], in nats."""
    return -0.5 * (jnp.sum(z**2, axis=-1) + z.shape[-1] * math.log(2 * math.pi))
