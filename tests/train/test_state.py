from collections.abc import Iterator

import jax
import numpy as np
import pytest

from jaxad.config import get_config
from jaxad.config.model import make_model
from jaxad.train.state import initial_variables


@pytest.fixture
def all_optimisations() -> Iterator[None]:
    """Compiles as a run does; the session sets `JAX_DISABLE_MOST_OPTIMIZATIONS`."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


_QUICK = ("highvae:smoke", "fastflow:smoke")
_OTHERS = (
    "aeflow:smoke", "ae:smoke", "chvae:smoke", "differnet:smoke", "fanogan:smoke", "ganomaly:smoke",
    "lowvae:smoke", "padim:smoke", "patchcore:smoke", "pchvae:smoke", "vqvae2:smoke", "pchvae",
    "aeflow",
)  # fmt: skip


@pytest.mark.parametrize(
    "name", [*_QUICK, *(pytest.param(name, marks=pytest.mark.long) for name in _OTHERS)]
)
def test_quickly_compiled_initial_weights_are_the_same_bits(all_optimisations, name):
    model = make_model(get_config(name))
    seed = 2**32 - 1  # the program takes it as an array, the key here as a Python integer
    quick = initial_variables(model, seed)["params"]
    plain = jax.jit(model.init_variables)(jax.random.key(seed))["params"]
    for ours, expected in zip(jax.tree.leaves(quick), jax.tree.leaves(plain), strict=True):
        assert np.asarray(ours).tobytes() == np.asarray(expected).tobytes()
