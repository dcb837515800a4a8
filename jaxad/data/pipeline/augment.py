"""Light augmentation inside the input pipeline."""

import dataclasses
from typing import Any

from jaxad.runtime.cpu_tensorflow import tensorflow


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Settings of the augmentation, as in `config.data.augment`; zero turns a part off."""

    mirror: bool = False  # whether to flip half of the images left-right
    rotation: float = 0.0  # standard deviation of the rotation about the centre, degrees
    scale: float = 0.0  # standard deviation of the logarithm of the magnification about the centre
    brightness: float = 0.0  # standard deviation of the logarithm of a factor on intensities
    #: standard deviation of additive Gaussian noise on pixels that are not background
    noise: float = 0.0

    @property
    def is_off(self) -> bool:
        """Whether images stay unchanged."""
        return self == Augmentation()


def augment(images: Any, positions: Any, seed: int, augmentation: Augmentation) -> Any:
    """Augments a batch; the draw of an example depends only on `seed` and its position.

    Args:
        images: TensorFlow tensor float32 [B, H, W, C] in [0, 1], background 0.
        positions: int64 [B], position of each example in the endless training stream.
        seed: seed of the run.
        augmentation: settings.

    Returns:
        A tensor like `images`: the background stays 0, and values stay in [0, 1].
    """
    tf, settings = tensorflow(), augmentation
    seeds = tf.stack([tf.fill(positions.shape, tf.constant(seed, tf.int64)), positions], -1)

    def draw(shape: tuple[int, ...], stream: int) -> Any:
        """Draws standard normal numbers [B, *shape], independent for each `stream`."""
        offset = tf.constant([stream << 32, 0], tf.int64)
        return tf.map_fn(
            lambda key: tf.random.stateless_normal(shape, key + offset),
            seeds,
            fn_output_signature=tf.TensorSpec(shape, tf.float32),
        )

    normal = draw((4,), stream=1)
    if settings.mirror:
        flip = normal[:, 0] > 0
        images = tf.where(flip[:, None, None, None], images[:, :, ::-1], images)
    if settings.rotation or settings.scale:
        angle = normal[:, 1] * (settings.rotation * 3.14159265 / 180)
        images = _similarity(images, angle, _map_each(tf.exp, normal[:, 2] * settings.scale))
    if settings.brightness:
        factor = _map_each(tf.exp, normal[:, 3] * settings.brightness)
        images = images * factor[:, None, None, None]
    if settings.noise:
        noise = settings.noise * draw(tuple(images.shape[1:]), stream=2)
        images = images + tf.where(images > 0, noise, 0.0)
    if settings.brightness or settings.noise:
        images = tf.clip_by_value(images, 0.0, 1.0)
    return images


def _map_each(function: Any, values: Any) -> Any:
    """Applies `function` to each of `values` [B] on its own.

    TensorFlow's vectorised loop rounds the last few numbers of a tensor differently, so that an
    image would depend on its place in the batch and on the number of processes.
    """
    return tensorflow().map_fn(function, values)


def _similarity(images: Any, angle: Any, magnification: Any) -> Any:
    """Rotates (radians, [B]) and magnifies ([B]) about the centre; bilinear, zeros outside."""
    tf = tensorflow()
    height, width = images.shape[1:3]
    cosine = _map_each(tf.cos, angle) / magnification
    sine = _map_each(tf.sin, angle) / magnification
    center_x, center_y = (width - 1) / 2, (height - 1) / 2
    # Rows of the matrix that maps output coordinates (x, y) to input coordinates.
    zeros = tf.zeros_like(angle)
    transforms = tf.stack(
        [
            cosine, -sine, center_x - cosine * center_x + sine * center_y,
            sine, cosine, center_y - sine * center_x - cosine * center_y,
            zeros, zeros,
        ],
        axis=-1,
    )  # fmt: skip
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms,
        output_shape=tf.constant([height, width]),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
