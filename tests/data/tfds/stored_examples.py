"""A small TFDS data set of any depth and number of channels, whose pixels are known."""

import dataclasses

import numpy as np
import tensorflow_datasets as tfds

from jaxad.runtime.cpu_tensorflow import tensorflow

SIZE = 8
COUNTS = {"train": 13, "test_a": 5}


@dataclasses.dataclass(kw_only=True)
class PatternsConfig(tfds.core.BuilderConfig):
    """Depth, channels, side and training images of one version of the data."""

    dtype: str = "uint8"
    channels: int = 1
    size: int = SIZE
    train: int = COUNTS["train"]


def make_config(**fields):
    config = PatternsConfig(name="any", **fields)
    return dataclasses.replace(config, name="-".join(map(str, fields.values())) or "plain")


def pixels(split, config):
    """The images and masks of a split: noise that compresses badly, or a ramp if they are large."""
    count = {**COUNTS, "train": config.train}[split]
    shape, most = (count, config.size, config.size, config.channels), np.iinfo(config.dtype).max
    generator = np.random.default_rng(len(split))
    if config.size > SIZE:
        ramp = np.linspace(0, most, config.size).astype(config.dtype)
        images = np.broadcast_to(ramp[:, None, None], shape)
    else:
        images = generator.integers(0, most, shape, dtype=config.dtype, endpoint=True)
    masks = np.zeros((count, config.size, config.size), np.uint8)
    masks[1::2, 2:4, 3:6] = 1
    return images, masks


class Patterns(tfds.core.GeneratorBasedBuilder):
    """Images of `pixels`; every second one is anomalous in test splits."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        config = self.builder_config
        shape = (config.size, config.size, config.channels)
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=shape, dtype=np.dtype(config.dtype).type, encoding_format="png"
                    ),
                    "mask": tfds.features.Image(
                        shape=(config.size, config.size, 1), encoding_format="png"
                    ),
                    "label": tfds.features.ClassLabel(names=["normal", "anomalous"]),
                    "id": tfds.features.Text(),
                    "group": tfds.features.Text(),
                    "position": np.int32,
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in COUNTS}

    def _generate_examples(self, split):
        encode = tensorflow().io.encode_png
        images, masks = pixels(split, self.builder_config)
        for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
            yield (
                number,
                {
                    "image": encode(image).numpy(),
                    "mask": encode(mask[..., None]).numpy(),
                    "label": number % 2 if split != "train" else 0,
                    "id": f"{split}-{number}",
                    "group": f"patient-{number // 2}",
                    "position": number % 2,
                },
            )
