"""Trains the flow of `aeflow:paper` on independent Gaussians, whose best likelihood is known.

    python benchmarks/flow_on_gaussians.py

Features have 1,024 channels and a standard deviation of .5: no model can have a lower mean negative
log-likelihood per dimension than log(.5) + log(2 pi e) / 2 = .726. `--decay=unscaled` applies the
paper's weight decay, which is meant for a sum over dimensions, to the mean over dimensions.
"""

import argparse
import math

import jax
import jax.numpy as jnp
import optax

from jaxad.config import get_config
from jaxad.config.model import make_model
from jaxad.train.optim import make_optimiser, network_settings

STD = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decay", choices=["scaled", "unscaled"], default="scaled")
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--subnet", choices=["conv", "resnet"], default="conv")
    options = parser.parse_args()
    config = get_config("aeflow:paper")
    config.data.image_size = 32  # 2 x 2 places at stride 16
    config.model.alpha = 1.0  # the flow's loss alone
    config.model.subnet = options.subnet
    model = make_model(config)
    variables = dict(model.init_variables(jax.random.key(0)))
    params = variables.pop("params")
    factors = model.decay_factors if options.decay == "scaled" else {}
    settings = network_settings(config.optim, "model")
    optimiser = make_optimiser(settings, params, options.updates, decay_factors=factors)

    @jax.jit
    def update(params, mutable, state, key):
        features = STD * jax.random.normal(key, (options.batch_size, model.num_latents))
        batch = {"image": jnp.zeros((options.batch_size, *model.image_shape)), "features": features}

        def loss(params):
            losses, aux = model.losses({"params": params, **mutable}, batch, None, train=True)
            return losses["model"].mean(), aux

        (nll, aux), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), {**mutable, **aux.mutable}, state, nll

    state = optimiser.init(params)
    print(f"lowest possible: {math.log(STD) + math.log(2 * math.pi * math.e) / 2:.3f}")
    for step in range(1, options.updates + 1):
        params, variables, state, nll = update(params, variables, state, jax.random.key(step))
        if step % 20 == 0 or step == options.updates:
            print(f"{step} updates: {nll:.3f} nats per dimension", flush=True)


if __name__ == "__main__":
    main()
