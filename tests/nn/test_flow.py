import functools
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from freia import from_freia
from scipy import stats

from jaxad.errors import UserError
from jaxad.nn.flow import (
    HALVES,
    PERMUTATIONS,
    SUBNETS,
    Flow,
    FlowSettings,
    standard_normal_log_density,
)
from jaxad.nn.flow.permutations import MOST_CHANNELS_OF_PRODUCT, ChannelPermutation

GOLDEN = Path(__file__).parent.parent / "golden"
SHAPE = (2, 2, 3, 5)  # an odd number of channels: the halves differ


def flow_of(settings: FlowSettings, channels: int = 5, **options) -> Flow:
    return Flow(channels=channels, settings=settings, **options)


def trained_variables(flow: Flow, z: jax.Array) -> dict:
    """Returns fresh variables with every parameter and statistic moved, as by training."""
    variables = flow.init(jax.random.key(0), z)

    def moved(path, leaf):
        name = jax.tree_util.keystr(path)
        if "permutation" in name:
            return leaf
        noise = jax.random.normal(jax.random.key(len(name)), leaf.shape)
        return leaf + 0.05 * (jnp.abs(noise) if "var" in name else noise)

    return jax.tree_util.tree_map_with_path(moved, variables)


def load_golden(subnet: str, permutation: str):
    kind = {"random": "hard", "orthogonal": "soft"}[permutation]
    with np.load(GOLDEN / f"flow_{subnet}_{kind}.npz") as archive:
        arrays = dict(archive)
    weights = {n.removeprefix("flow/"): a for n, a in arrays.items() if n.startswith("flow/")}
    settings = FlowSettings(num_blocks=4, subnet=subnet, permutation=permutation)
    return arrays, weights, settings


@pytest.mark.parametrize("permutation", ["random", "orthogonal"])
@pytest.mark.parametrize("subnet", SUBNETS)
def test_the_flow_is_freias_with_freias_weights(subnet, permutation):
    arrays, weights, settings = load_golden(subnet, permutation)
    flow = flow_of(settings, channels=arrays["z"].shape[1])
    variables = from_freia(weights, settings)

    def last(name):
        return jnp.asarray(arrays[name].transpose(0, 2, 3, 1))

    # 1e-5 of the largest value: float32 sums in another order.
    z_prime, log_det = flow.apply(variables, last("z"))
    scale = np.abs(arrays["z_prime"]).max()
    np.testing.assert_allclose(z_prime, last("z_prime"), rtol=1e-5, atol=1e-5 * scale)
    np.testing.assert_allclose(log_det.sum(axis=(1, 2)), arrays["log_det"], rtol=1e-5)
    x, log_det = flow.apply(variables, last("y"), method="inverse")
    scale = np.abs(arrays["x"]).max()
    np.testing.assert_allclose(x, last("x"), rtol=1e-5, atol=1e-5 * scale)
    np.testing.assert_allclose(log_det.sum(axis=(1, 2)), arrays["inverse_log_det"], rtol=1e-5)
    # The weights are such that the test is not one of the identity.
    assert np.abs(arrays["log_det"]).min() > 1


def test_the_flow_is_imported_where_tensorflow_runs_already():
    # As in a notebook that has read data before.
    program = (
        "import tensorflow; import jaxad.nn.flow, sys; "
        "assert sys.modules['tensorflow'] is tensorflow; tensorflow.constant(1); "
        # Code of the caller that imports it finds the real TensorFlow.
        "assert 'tensorflow_probability' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)


@pytest.mark.parametrize("moves", HALVES)
@pytest.mark.parametrize("permutation", PERMUTATIONS)
@pytest.mark.parametrize("subnet", SUBNETS)
def test_round_trip_and_log_det_of_the_jacobian(subnet, permutation, moves):
    # FrEIA's scales with its half, the paper's with the other.
    scale = 0.1 if moves == "second" else 1.0
    settings = FlowSettings(3, subnet, permutation, moves, output_scale=scale, global_scale=scale)
    flow = flow_of(settings)
    z = jax.random.normal(jax.random.key(1), SHAPE)
    variables = trained_variables(flow, z)
    z_prime, log_det = jax.jit(flow.apply)(variables, z)
    inverse = functools.partial(flow.apply, method="inverse")
    back, inverse_log_det = jax.jit(inverse)(variables, z_prime)
    np.testing.assert_allclose(back, z, atol=1e-4 * float(jnp.abs(z).max()))
    np.testing.assert_allclose(
        inverse_log_det.sum(axis=(1, 2)), -log_det.sum(axis=(1, 2)), atol=1e-3
    )

    def flat(one):
        return flow.apply(variables, one.reshape(1, *SHAPE[1:]))[0].reshape(-1)

    jacobian = jax.jit(jax.jacobian(flat))
    for number in range(len(z)):
        _, expected = jnp.linalg.slogdet(jacobian(z[number].reshape(-1)))
        np.testing.assert_allclose(log_det[number].sum(), expected, rtol=1e-4, atol=1e-4)


def test_a_fresh_flow_with_scaled_down_subnets_is_close_to_a_permutation():
    # The global scale starts at 1, the offset at 0: FrEIA's global_affine_init.
    flow = flow_of(FlowSettings(2, "conv", "reverse", output_scale=1e-6))
    z = jax.random.normal(jax.random.key(1), SHAPE)
    z_prime, log_det = flow.apply(flow.init(jax.random.key(0), z), z)
    np.testing.assert_allclose(z_prime, z, atol=1e-4)  # two reversals
    np.testing.assert_allclose(log_det, 0, atol=1e-4)


@pytest.mark.parametrize("moves", HALVES)
def test_the_named_half_moves(moves):
    flow = flow_of(FlowSettings(1, "conv", "reverse", moves, output_scale=1.0))
    z = jax.random.normal(jax.random.key(1), SHAPE)
    z_prime = flow.apply(flow.init(jax.random.key(0), z), z)[0][..., ::-1]
    same = np.isclose(z_prime, z, atol=1e-6).all(axis=(0, 1, 2))
    # Five channels are three and two.
    assert same.tolist() == ([True] * 3 + [False] * 2 if moves == "second" else
                             [False] * 3 + [True] * 2)  # fmt: skip


def test_the_gradient_through_a_permutation_is_the_inverse_permutation():
    settings = FlowSettings(2, "conv", "random")
    flow, z = flow_of(settings), jax.random.normal(jax.random.key(1), SHAPE)
    variables = trained_variables(flow, z)

    def loss(z):
        z_prime, log_det = flow.apply(variables, z)
        return jnp.sum(jnp.sin(z_prime)) + jnp.sum(log_det)

    direction = jax.random.normal(jax.random.key(2), SHAPE)
    step = 1e-3
    difference = (loss(z + step * direction) - loss(z - step * direction)) / (2 * step)
    np.testing.assert_allclose(jnp.vdot(jax.grad(loss)(z), direction), difference, rtol=1e-2)


# Either side of the number of channels up to which it is a product.
@pytest.mark.parametrize("channels", [MOST_CHANNELS_OF_PRODUCT, MOST_CHANNELS_OF_PRODUCT + 1])
def test_a_permutation_moves_channels_exactly(rng, channels):
    order = rng.permutation(channels)
    x = rng.normal(size=(2, 3, 4, channels)).astype(np.float32)
    direction = rng.normal(size=x.shape).astype(np.float32)
    bijector = ChannelPermutation(jnp.asarray(order))
    y, back = jax.vjp(bijector.forward, jnp.asarray(x))
    np.testing.assert_array_equal(y, x[..., order])
    np.testing.assert_array_equal(bijector.inverse(y), x)
    np.testing.assert_array_equal(back(jnp.asarray(direction))[0][..., order], direction)


def test_density_at_a_place_is_scipys(rng):
    z = rng.normal(size=SHAPE).astype(np.float32)
    expected = stats.norm.logpdf(z).sum(axis=-1)
    np.testing.assert_allclose(standard_normal_log_density(jnp.asarray(z)), expected, rtol=1e-5)


def convolution_precisions(function, *arguments) -> set:
    """Returns the precisions of the convolutions and matrix products of a function."""
    actual = set()

    def visit(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name in ("conv_general_dilated", "dot_general"):
                actual.add(str(equation.params["precision"]))
            for value in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
                if _is_jaxpr(value):
                    visit(getattr(value, "jaxpr", value))

    visit(jax.make_jaxpr(function)(*arguments).jaxpr)
    return actual


def _is_jaxpr(value) -> bool:
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


@pytest.mark.parametrize("permutation", PERMUTATIONS)
@pytest.mark.parametrize("subnet", SUBNETS)
def test_log_det_and_inverse_ask_for_the_highest_precision(subnet, permutation):
    # On a CPU every precision computes the same; what is asked for is in the program.
    flow = flow_of(FlowSettings(2, subnet, permutation))
    z = jnp.zeros(SHAPE)
    variables = flow.init(jax.random.key(0), z)
    for method in ("__call__", "inverse"):
        asked = convolution_precisions(lambda z, m=method: flow.apply(variables, z, method=m), z)
        assert asked and all("HIGHEST" in one for one in asked), asked


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subnet": "mlp"}, "config.model.subnet: unknown 'mlp'; known: conv, resnet, dense."),
        ({"permutation": "soft"}, "config.model.permutation: unknown 'soft'"),
        ({"moves": "both"}, "config.model.moves: unknown 'both'"),
        ({"num_blocks": 0}, "config.model.num_blocks: 0 is not in [1, inf)"),
        ({"global_scale": 0.0}, "config.model.global_scale: 0.0 is not in (0, inf)"),
    ],
)
def test_refused_settings(change, message):
    with pytest.raises(UserError) as error:
        FlowSettings(**change)
    assert message in str(error.value)
