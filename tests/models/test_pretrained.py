"""Features of the systems that share a frozen encoder."""

import jax
import numpy as np
import pytest

from jaxad.config import get_config
from jaxad.config.model import make_model
from jaxad.nn.backbones import ARCHITECTURES
from jaxad.train.state import initial_variables

SIZE = 64
SYSTEMS = (
    ("aeflow", {"whitening": "none", "decoder_widths": ()}),
    ("aeflow", {"whitening": "place", "decoder_widths": ()}),
    ("fastflow", {"whitening": "none"}),
    ("fastflow", {"whitening": "place"}),
    ("padim", {}),
    ("patchcore", {}),
)


@pytest.mark.long
def test_systems_whose_features_have_one_description_have_the_same_features():
    """The description is the key of the feature cache, so that systems share features by it."""
    features, descriptions = [], []
    images = np.random.default_rng(0).uniform(size=(2, 32, 32, 1)).astype(np.float32)
    for system, fields in SYSTEMS:
        config = get_config(f"{system}:smoke")
        config.model.update({"strides": (8, 16), "weights": "random", **fields})
        model = make_model(config)
        variables = initial_variables(model, 0)
        features.append(np.asarray(jax.jit(model.features)(variables, images)))
        descriptions.append(model.encoder_description)
    for first in range(len(SYSTEMS)):
        for second in range(first):
            is_equal = np.array_equal(features[first], features[second])
            assert is_equal == (descriptions[first] == descriptions[second])
    assert len(set(descriptions)) == 2  # FastFlow without whitening has a layer norm


@pytest.mark.parametrize("name", ["aeflow", "fastflow", "differnet", "patchcore", "padim"])
def test_features_of_one_or_several_strides(name):
    backbone = "efficientnet_lite2"
    channels = ARCHITECTURES[backbone].channels
    config = get_config(f"{name}:smoke").unlock()
    config.data.image_size = SIZE
    config.model.backbone, config.model.weights = backbone, "random"
    if name == "aeflow":
        config.model.decoder_widths = ()  # they follow the strides
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
