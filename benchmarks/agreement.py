"""Checks that a PyTorch twin computes what jaxad computes, with the same weights."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxad_tasks import as_batch
from ml_collections import ConfigDict
from torch_systems.adversarial import AdversarialTwin
from torch_systems.fitted import FittedTwin
from torch_systems.training import Trainer, loaded_twin, placed
from torch_systems.twin import Twin, num_parameters

from jaxad.config.model import make_model
from jaxad.detector.restored import score_batch
from jaxad.train.state import initial_variables
from jaxad.types import Model, Tree

_TOLERANCE = 2e-4


def _close(ours: Any, theirs: Any, name: str, scale: float = 0.0) -> None:
    """Raises an AssertionError unless arrays are equal up to rounding.

    `scale` is the size of the terms that a value is a difference of.
    """
    np.testing.assert_allclose(
        theirs, np.asarray(ours), rtol=_TOLERANCE, atol=_TOLERANCE * scale, err_msg=name
    )


def check(config: dict[str, Any], images: np.ndarray) -> Tree:
    """Compares numbers of parameters, losses in training mode, and scores.

    Of a GAN also the norms of its gradients; of a fitted system features, fits and scores alone.

    Returns:
        jaxad's variables as NumPy arrays, for the twin.

    Raises:
        AssertionError: something of that differs.
    """
    model = make_model(ConfigDict(config))
    variables = jax.device_get(initial_variables(model, config["seed"]))
    twin = loaded_twin(config, variables)
    if isinstance(twin, FittedTwin):
        _check_fit(config, images)
        _check_scores(model, twin, variables, images)
        return variables
    rng = np.random.default_rng(0)

    def shift_zeros(leaf: np.ndarray) -> np.ndarray:
        """Makes biases and the last layers of subnets non-zero, so that they are compared too."""
        if leaf.ndim != 1 and leaf.any():
            return leaf
        return leaf + 0.02 * rng.standard_normal(leaf.shape, np.float32)

    variables["params"] = jax.tree.map(shift_zeros, variables["params"])
    if hasattr(model, "prepare"):
        features = np.asarray(model.features(variables, images))
        batch = {**as_batch(images), "features": features}
        variables = jax.device_get(model.prepare(variables, [batch]))
    for_twin = {**variables, "noise": _score_noise(model)}
    twin = loaded_twin(config, for_twin)
    ours = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert num_parameters(twin) == ours, (num_parameters(twin), ours)
    _check_scores(model, twin, variables, images)
    twin.train()
    if isinstance(twin, AdversarialTwin):
        _check_networks(config, model, twin, variables, images)
    else:
        expected = _losses(model, variables, images)
        with torch.no_grad():
            _close(expected, twin.losses(placed(images), sample=False).numpy(), "losses")
    return for_twin


def _losses(model: Any, variables: Tree, images: np.ndarray) -> jax.Array:
    """Returns jaxad's training loss of each image, with latents at their posterior means.

    A system that draws views in training is evaluated over all of them instead.
    """
    draws_views = hasattr(model, "update_views")
    keys = jax.random.split(jax.random.key(0), len(images)) if draws_views else None
    losses, _ = model.losses(variables, as_batch(images), keys, train=not draws_views)
    return losses["model"]


def _score_noise(model: Any) -> dict[str, np.ndarray]:
    """Returns the noise of the latents in scores of a hierarchical VAE, [draws, rows, columns, C].

    The keys are those of `HierarchicalVAE.score` and `jaxad.models.decomposition.split_levels`.
    """
    if not getattr(model, "score_samples", 0):
        return {}
    keys = jax.random.split(jax.random.key(0), model.score_samples)
    levels = [("z1", 0, 16)] * model.parts.z1 + [("z2", 1, 4)] * model.parts.z2
    noise = {}
    for (name, number, stride), channels in zip(levels, model.latent_channels, strict=True):
        shape = (model.image_shape[0] // stride, model.image_shape[1] // stride, channels)
        draws = [jax.random.normal(jax.random.fold_in(key, number), shape) for key in keys]
        noise[name] = np.stack(draws)
    return noise


def _check_scores(model: Model, twin: Twin, variables: Tree, images: np.ndarray) -> None:
    with torch.no_grad():
        scores = twin.eval().score(placed(images)).numpy()
    # Scores of an untrained AE-FLOW of the paper are zero up to rounding.
    _close(score_batch(model, variables, images).image, scores, "scores", scale=1e-4)


def _check_networks(
    config: dict[str, Any], model: Any, twin: AdversarialTwin, variables: Tree, images: np.ndarray
) -> None:
    """Compares each network's losses, and the norm of its gradient in its own parameters."""
    keys = jax.random.split(jax.random.key(0), len(images))
    noise = _noise(keys, config["model"]["latents"])
    noise = noise[: len(twin.draw_noise(len(images)))]
    names = list(model.networks)
    trainer = Trainer(twin, config)
    _, gradients = trainer._network_gradients(names, placed(images), noise)
    by_name = twin.network_losses(placed(images), names, noise)

    def mean_loss(params: Tree, name: str) -> tuple[jax.Array, jax.Array]:
        losses, _ = model.losses(
            {**variables, "params": params}, as_batch(images), keys, train=True
        )
        return losses[name].mean(), losses[name]

    for name, gradient in zip(names, gradients, strict=True):
        grad = jax.jit(jax.grad(mean_loss, has_aux=True), static_argnums=1)
        tree, losses = grad(variables["params"], name)
        _close(losses, by_name[name].detach().numpy(), f"losses of {name}", scale=1.0)
        owned = {part: tree[part] for part in tree if _owns(model, name, part)}
        norm = sum(
            float(np.sum(np.square(leaf, dtype=np.float64))) for leaf in jax.tree.leaves(owned)
        )
        ours = sum(float(leaf.double().square().sum()) for leaf in gradient)
        np.testing.assert_allclose(ours**0.5, norm**0.5, rtol=2e-3, err_msg=f"gradient of {name}")


def _owns(model: Any, network: str, part: str) -> bool:
    return re.fullmatch(model.networks[network], f"{part}/") is not None


def _noise(keys: jax.Array, latents: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the z and the shares that f-AnoGAN draws with these keys."""
    pairs = jax.vmap(jax.random.split)(keys)
    z = jax.vmap(lambda key: jax.random.normal(key, (latents,), jnp.float32))(pairs[:, 0])
    mix = jax.vmap(lambda key: jax.random.uniform(key, (1, 1, 1), jnp.float32))(pairs[:, 1])
    return torch.from_numpy(np.array(z)), torch.from_numpy(np.array(mix))


def _check_fit(config: dict[str, Any], images: np.ndarray) -> None:
    """Compares fits to most of the images, and the scores of the rest.

    A memory of patches is made smaller, so that it is chosen from a sample of the patches.
    """
    smaller = {**config, "model": dict(config["model"])}
    num_fitted = len(images) - 2
    if "candidates" in smaller["model"]:
        patches = (
            num_fitted * (config["data"]["image_size"] // min(config["model"]["strides"])) ** 2
        )
        smaller["model"] |= {
            "candidates": patches // 2, "memory_size": patches // 4,
            "neighbours": min(config["model"]["neighbours"], patches // 8),
        }  # fmt: skip
    model = make_model(ConfigDict(smaller))
    variables = jax.device_get(initial_variables(model, config["seed"]))
    twin = loaded_twin(smaller, variables).eval()
    parts = np.split(images[:num_fitted], 2)
    features = [np.asarray(model.features(variables, part)) for part in parts]
    with torch.no_grad():
        for part, expected in zip(parts, features, strict=True):
            _close(expected, twin.encode(placed(part)).numpy(), "features", scale=1.0)
    key = jax.random.key(0)
    batches = [{**as_batch(part), "features": z} for part, z in zip(parts, features, strict=True)]
    fitted = jax.device_get(model.fit(variables, batches, key))
    rng = np.random.default_rng(np.asarray(jax.random.bits(key, (4,), jnp.uint32)))
    params = twin.fit((torch.from_numpy(z.copy()) for z in features), rng)
    for name, array in params.items():
        _close(fitted["params"][name], array, f"fitted {name}", scale=1.0)
    _check_scores(model, twin, fitted, images[num_fitted:])
