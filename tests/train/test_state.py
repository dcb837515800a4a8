import jax
import numpy as np

from jaxad.config import get_config
from jaxad.config.model import make_model
from jaxad.train.state import initial_variables


def test_the_largest_seed_has_the_weights_of_its_key():
    model = make_model(get_config("highvae:smoke"))
    seed = 2**32 - 1  # the program takes it as an array, the key as a Python integer
    expected = jax.jit(model.init_variables)(jax.random.key(seed))
    jax.tree.map(np.testing.assert_array_equal, initial_variables(model, seed), dict(expected))
