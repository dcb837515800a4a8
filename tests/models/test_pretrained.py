"""Features of the systems that share a frozen encoder."""

import jax
import numpy as np

from jaxad.config import get_config
from jaxad.config.model import make_model
from jaxad.train.state import initial_variables

SYSTEMS = (
    ("aeflow", {"whitening": "none", "decoder_widths": ()}),
    ("aeflow", {"whitening": "place", "decoder_widths": ()}),
    ("fastflow", {"whitening": "none"}),
    ("fastflow", {"whitening": "place"}),
    ("padim", {}),
    ("patchcore", {}),
)


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
