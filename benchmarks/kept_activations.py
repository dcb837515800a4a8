"""Prints what a gradient keeps of the forward pass, without and with rematerialisation.

    python benchmarks/kept_activations.py pchvae=64 aeflow=32 aeflow:paper=8

MiB of arrays that a device holds between both passes, as JAX's autodiff counts them before
compilation. Temporaries of the compiler are not included. On a CPU XLA undoes the
rematerialisation: it merges equal computations again.
"""

import argparse
import contextlib
import functools
import io
import re
from typing import Any

import jax
import jax.ad_checkpoint
import jax.numpy as jnp
import numpy as np

from jaxad.config import get_config
from jaxad.config.model import make_model
from jaxad.train.optim import make_optimisers
from jaxad.train.phases import make_phases
from jaxad.train.state import create_state
from jaxad.train.step import train_step
from jaxad.types import LossAux


def kept(function: Any, *arguments: Any) -> float:
    """Returns the MiB that the gradient of a function keeps, without its arguments."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        jax.ad_checkpoint.print_saved_residuals(function, *arguments)
    total = 0
    for kind, shape, origin in re.findall(r"^(\w+)\[([\d,]*)\](.*)$", text.getvalue(), re.M):
        if "from the argument" not in origin:
            width = {"bool": 1}.get(kind) or int(re.sub(r"\D", "", kind)) // 8
            total += width * int(np.prod([int(n) for n in shape.split(",") if n] or [1]))
    return total / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("systems", nargs="+", help="config=batch size, such as pchvae=64")
    parser.add_argument(
        "--parts", type=int, help="also print XLA's temporaries for a batch in this many parts"
    )
    options = parser.parse_args()
    print("| config | batch | kept, MiB | rematerialised, MiB |\n|---|---|---|---|")
    for name, size in (system.rsplit("=", 1) for system in options.systems):
        config = get_config(name).unlock()
        if isinstance(config.model.get("weights"), str):
            config.model.weights = "random"
        model, count = make_model(config), int(size)
        variables = dict(jax.eval_shape(model.init_variables, jax.random.key(0)))
        params = variables.pop("params")
        batch = {
            "image": jax.ShapeDtypeStruct((count, *model.image_shape), jnp.float32),
            "label": jax.ShapeDtypeStruct((count,), jnp.int32),
            "_valid": jax.ShapeDtypeStruct((count,), jnp.bool_),
            "_index": jax.ShapeDtypeStruct((count,), jnp.int32),
        }

        def losses(
            params: Any, others: Any, batch: Any, model: Any = model, count: int = count
        ) -> tuple[jax.Array, LossAux]:
            keys = jax.random.split(jax.random.key(0), count)
            values, aux = model.losses({"params": params, **others}, batch, keys, train=True)
            return sum(value.sum() for value in values.values()), aux

        policy = jax.checkpoint_policies.dots_saveable
        plain, rematerialised = (
            kept(lambda *a, function=function: function(*a)[0], params, variables, batch)
            for function in (losses, jax.checkpoint(losses, policy=policy))
        )
        print(f"| {name} | {size} | {plain:.0f} | {rematerialised:.0f} |", flush=True)
        if options.parts:
            phases = make_phases(config.train.updates, model.networks, num_steps=1)
            optimisers = make_optimisers(config.optim, model, params, phases)
            state = jax.eval_shape(
                lambda params, rest, optimisers=optimisers: create_state(
                    {"params": params, **rest}, optimisers, 0
                ),
                params,
                variables,
            )
            for parts in (1, options.parts):
                step = functools.partial(
                    train_step, model=model, optimisers=optimisers, accumulate=parts
                )
                compiled = jax.jit(step).lower(state, batch).compile()
                size_in_mib = compiled.memory_analysis().temp_size_in_bytes / 2**20
                print(f"{name}, batch {size} in {parts}: XLA's temporaries {size_in_mib:.0f} MiB")


if __name__ == "__main__":
    main()
