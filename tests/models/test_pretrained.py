"""Every system of a frozen encoder takes features of one or several strides."""

import jax
import pytest

from jaxad.config import get_config
from jaxad.config.model import make_model
from jaxad.nn.backbones import ARCHITECTURES

SIZE = 64


@pytest.mark.parametrize("name", ["aeflow", "fastflow", "differnet", "patchcore", "padim"])
def test_features_of_one_or_several_strides(name):
    backbone = "efficientnet_lite2"
    channels = ARCHITECTURES[backbone].channels
    config = get_config(f"{name}:smoke").unlock()
    config.data.image_size = SIZE
    config.model.backbone, config.model.weights = backbone, "random"
    for strides in ((8,), (4, 16)):
        config.model.strides = strides
        model = make_model(config)
        variables = jax.eval_shape(model.init_variables, jax.random.key(0))
        images = jax.ShapeDtypeStruct((2, SIZE, SIZE, 1), "float32")
        features = jax.eval_shape(model.features, variables, images)
        if name == "differnet":
            means = len(config.model.scales) * sum(channels[stride] for stride in strides)
            assert features.shape == (2, config.model.views, means)
        else:
            numbers = sum((SIZE // stride) ** 2 * channels[stride] for stride in strides)
            assert features.shape == (2, numbers)
