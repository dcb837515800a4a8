"""Checks that a PyTorch twin computes what jaxad computes, with the same weights."""

from typing import Any

import jax
import numpy as np
import torch
from ml_collections import ConfigDict
from torch_systems.training import loaded_twin, placed
from torch_systems.twin import num_parameters

from jaxad.config.model import make_model
from jaxad.detector.restored import score_batch
from jaxad.train.state import initial_variables
from jaxad.types import Model, Tree


def _losses(model: Model, variables: Tree, images: np.ndarray) -> np.ndarray:
    """Returns jaxad's training loss of each image, with latents at their posterior means."""
    batch = {
        "image": images,
        "_valid": np.ones(len(images), bool),
        "_index": np.arange(len(images)),
    }
    losses, _ = model.losses(variables, batch, None, train=True)
    return np.asarray(losses["model"])


def check(config: dict[str, Any], images: np.ndarray) -> Tree:
    """Compares numbers of parameters, losses in training mode, and scores.

    Returns:
        jaxad's variables as NumPy arrays, for the twin.

    Raises:
        AssertionError: numbers of parameters, losses or scores differ.
    """
    model = make_model(ConfigDict(config))
    variables = jax.device_get(initial_variables(model, 0))
    rng = np.random.default_rng(0)
    variables["params"] = jax.tree.map(
        # Non-zero biases, so that their order is compared too.
        lambda leaf: leaf + 0.02 * rng.standard_normal(leaf.shape, np.float32) * (leaf.ndim == 1),
        variables["params"],
    )
    twin = loaded_twin(config, variables)
    ours = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert num_parameters(twin) == ours, (num_parameters(twin), ours)
    with torch.no_grad():
        score = twin.eval().score(placed(images)).numpy()
        twin.train()
        losses = twin.losses(placed(images), sample=False).numpy()
    expected = np.asarray(score_batch(model, variables, images).image)
    np.testing.assert_allclose(score, expected, rtol=2e-4)
    np.testing.assert_allclose(losses, _losses(model, variables, images), rtol=2e-4)
    return variables
