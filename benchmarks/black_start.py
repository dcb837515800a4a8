"""Trains AE-FLOW's decoder alone with 1 - SSIM and prints how long its images stay black.

    python benchmarks/black_start.py

Uses the demo's images and their frozen features, with dm_pix's SSIM and with the same formula
without its clipping of covariances.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxad.config import get_config
from jaxad.config.model import make_model
from jaxad.data.prepare.preprocess import to_unit_interval
from jaxad.data.sources import DataSet
from jaxad.nn import ops
from jaxad.train.state import initial_variables


def unclipped(x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns SSIM, Wang et al. 2004, Eq. 13, with the window of `ops.structural_similarity`."""
    mean = ops._blurred
    x_mean, y_mean = mean(x), mean(y)
    x_variance, y_variance = mean(x**2) - x_mean**2, mean(y**2) - y_mean**2
    covariance = mean(x * y) - x_mean * y_mean
    c1, c2 = 0.01**2, 0.03**2
    return (2 * x_mean * y_mean + c1) * (2 * covariance + c2) / (
        (x_mean**2 + y_mean**2 + c1) * (x_variance + y_variance + c2)
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--updates", type=int, default=400)
    options = parser.parse_args()
    config = get_config("aeflow:demo")
    model = make_model(config)
    variables = initial_variables(model, 0)
    images = DataSet(config.data).split("train").images
    images = to_unit_interval(images[:: max(1, len(images) // options.images)][: options.images])
    encode = jax.jit(lambda x: model.features(variables, x))
    features = np.concatenate([encode(images[i : i + 32]) for i in range(0, len(images), 32)])
    decoder, optimiser = model._decoder, optax.adam(config.optim.learning_rate)
    print(f"mean square of the images: {np.mean(images**2):.4f}\n")
    print("| SSIM | updates | 1 - SSIM | MSE |\n|---|---|---|---|")
    for name, similarity in (("dm_pix", ops.structural_similarity), ("unclipped", unclipped)):

        @jax.jit
        def update(params, state, z, x, similarity=similarity):
            def loss(params):
                y = decoder.apply({"params": params}, z)
                return 1 - jnp.mean(similarity(x, y)), jnp.mean((x - y) ** 2)

            (value, mse), gradient = jax.value_and_grad(loss, has_aux=True)(params)
            changes, state = optimiser.update(gradient, state, params)
            return optax.apply_updates(params, changes), state, value, mse

        params, rng = variables["params"]["decoder"], np.random.default_rng(0)
        state = optimiser.init(params)
        for number in range(1, options.updates + 1):
            rows = rng.integers(0, len(images), options.batch_size)
            params, state, value, mse = update(params, state, features[rows], images[rows])
            if number % max(1, options.updates // 8) == 0:
                print(f"| {name} | {number} | {float(value):.3f} | {float(mse):.4f} |", flush=True)


if __name__ == "__main__":
    main()
