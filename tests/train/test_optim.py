"""Optimisers from settings, against a numpy loop."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.errors import UserError
from jaxad.train.optim import (
    OptimSettings,
    learning_rate_schedule,
    make_optimiser,
    matches,
    parameter_paths,
)

SETTINGS = OptimSettings(
    name="adam",
    learning_rate=0.1,
    b1=0.9,
    b2=0.999,
    epsilon=1e-8,
    schedule="constant",
    warmup_steps=0,
    clip_norm=0.0,
    weight_decay=0.0,
    frozen=(),
)
PARAMS = {"stem": {"kernel": jnp.array([1.0, -2.0])}, "tail": {"bias": jnp.array([3.0])}}


def updates(settings, gradients, steps=1, params=PARAMS, **arguments):
    optimiser = make_optimiser(settings, params, num_steps=10, **arguments)
    state = optimiser.init(params)
    for _ in range(steps):
        changes, state = optimiser.update(gradients, state, params)
        params = jax.tree.map(lambda p, c: p + c, params, changes)
    return params


def adam(gradient, parameter, steps, rate, l2=0.0, decoupled=0.0):
    """Kingma and Ba 2015, Algorithm 1; `l2` as in PyTorch's Adam, `decoupled` as in AdamW."""
    m = v = 0.0
    for t in range(1, steps + 1):
        g = gradient + l2 * parameter
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        parameter = parameter - rate * (step + decoupled * parameter)
    return parameter


GRADIENTS = {"stem": {"kernel": jnp.array([0.5, 1.0])}, "tail": {"bias": jnp.array([-0.2])}}


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, {}),
        ({"weight_decay": 0.3}, {"l2": 0.3}),
        ({"name": "adamw", "weight_decay": 0.3}, {"decoupled": 0.3}),
    ],
)
def test_adam_and_its_two_weight_decays(changes, kind):
    found = updates(dataclasses.replace(SETTINGS, **changes), GRADIENTS, steps=4)
    for name in ("stem", "tail"):
        for key, parameter in PARAMS[name].items():
            expected = adam(
                np.asarray(GRADIENTS[name][key], float),
                np.asarray(parameter, float),
                4,
                0.1,
                **kind,
            )
            np.testing.assert_allclose(found[name][key], expected, rtol=1e-4)


def test_a_decay_factor_undoes_the_division_of_a_loss_by_its_dimensions():
    """Adam moves alike for a sum over D dimensions with decay d, and a mean with decay d / D."""
    settings = dataclasses.replace(SETTINGS, weight_decay=0.3, epsilon=1e-30)
    gradients = {**GRADIENTS, "stem": {"kernel": GRADIENTS["stem"]["kernel"] * 50}}
    expected = updates(settings, gradients, steps=4)
    found = updates(settings, GRADIENTS, steps=4, decay_factors={"stem/.*": 1 / 50})
    for name in ("stem", "tail"):
        for key in PARAMS[name]:
            np.testing.assert_allclose(found[name][key], expected[name][key], rtol=1e-5)
    assert not np.allclose(updates(settings, GRADIENTS, steps=4)["stem"]["kernel"],
                           expected["stem"]["kernel"], rtol=1e-3)  # fmt: skip


def test_clipping_scales_the_whole_gradient_to_the_norm():
    settings = dataclasses.replace(SETTINGS, name="sgd", b1=0.0, learning_rate=1.0, clip_norm=1.0)
    gradients = {"stem": {"kernel": jnp.array([3.0, 0.0])}, "tail": {"bias": jnp.array([4.0])}}
    found = updates(settings, gradients)
    # The norm is 5: every part is divided by it.
    np.testing.assert_allclose(found["stem"]["kernel"], [1 - 0.6, -2.0], rtol=1e-6)
    np.testing.assert_allclose(found["tail"]["bias"], [3 - 0.8], rtol=1e-6)


def test_warm_up_then_cosine():
    settings = dataclasses.replace(SETTINGS, schedule="cosine", warmup_steps=10)
    rate = learning_rate_schedule(settings, num_steps=110)
    values = [float(rate(step)) for step in (0, 5, 10, 60, 110)]
    np.testing.assert_allclose(values, [0.0, 0.05, 0.1, 0.05, 0.0], atol=1e-8)


def test_frozen_parameters_stay_even_under_weight_decay():
    settings = dataclasses.replace(SETTINGS, frozen=("stem/.*",), weight_decay=0.5, name="adamw")
    found = updates(settings, GRADIENTS, steps=3)
    np.testing.assert_array_equal(found["stem"]["kernel"], PARAMS["stem"]["kernel"])
    assert not np.allclose(found["tail"]["bias"], PARAMS["tail"]["bias"])


def test_paths_and_whole_path_matching():
    assert parameter_paths(PARAMS) == {
        "stem": {"kernel": "stem/kernel"},
        "tail": {"bias": "tail/bias"},
    }
    assert matches(PARAMS, ["stem"]) == {"stem": {"kernel": False}, "tail": {"bias": False}}
    assert matches(PARAMS, [".*kernel"]) == {"stem": {"kernel": True}, "tail": {"bias": False}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"frozen": ("head/.*",)}, "'head/.*' matches no parameter.*stem/kernel"),
        ({"frozen": ("(",)}, "not a regular expression"),
        ({"frozen": (".*",)}, "every parameter is frozen"),
    ],
)
def test_mistakes_are_named(changes, words):
    with pytest.raises(UserError, match=words):
        make_optimiser(dataclasses.replace(SETTINGS, **changes), PARAMS, 10)


def test_a_decay_factor_holds_beside_frozen_parameters():
    settings = dataclasses.replace(SETTINGS, frozen=("stem/.*",), weight_decay=0.5)
    found = updates(settings, GRADIENTS, decay_factors={"tail/.*": 0.0})
    plain = updates(dataclasses.replace(SETTINGS, frozen=("stem/.*",)), GRADIENTS)
    np.testing.assert_array_equal(found["stem"]["kernel"], PARAMS["stem"]["kernel"])
    np.testing.assert_allclose(found["tail"]["bias"], plain["tail"]["bias"], rtol=1e-6)


def test_an_optimiser_moves_only_the_parameters_of_its_network():
    """Weight decay does not reach the others either."""
    settings = dataclasses.replace(SETTINGS, weight_decay=0.3)
    optimiser = make_optimiser(settings, PARAMS, num_steps=10, owned="stem/.*")
    gradients = {**GRADIENTS, "tail": {"bias": jnp.zeros(1)}}
    changes, _ = optimiser.update(gradients, optimiser.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(changes["tail"]["bias"], 0)
    assert (changes["stem"]["kernel"] != 0).all()
