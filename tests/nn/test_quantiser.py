"""Vector quantiser against a NumPy loop; its gradient, codebook and layouts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.nn.quantiser import DEAD_SHARE, Quantiser, moving_average, nearest, perplexity
from jaxad.runtime.parallel import make_parallel

CODES, DIMENSION = 7, 3


def make(train=True, axis_name=None, decay=0.9):
    return Quantiser(CODES, DIMENSION, decay, train, axis_name)


def inputs(batch=8, seed=0, dtype="float32"):
    vectors = np.random.default_rng(seed).normal(size=(batch, 2, 2, DIMENSION)).astype(dtype)
    return vectors, np.ones(batch, bool), np.arange(batch, dtype=np.int32)


def state(updates=1, seed=1, dtype="float32"):
    """Returns a codebook in the middle of training, with all codes in use."""
    rng = np.random.default_rng(seed)
    count = rng.uniform(1, 2, CODES).astype(dtype)
    codes = rng.normal(size=(CODES, DIMENSION)).astype(dtype)
    visits = np.ones_like(count)
    return {
        "count": count,
        "total": codes * count[:, None],
        "visits": visits,
        "updates": np.int32(updates),
    }


@functools.partial(jax.jit, static_argnames=("train", "axis_name"))
def call(book, vectors, valid, index, **settings):
    actual, variables = make(**settings).apply(
        {"codebook": book}, vectors, valid, index, mutable=["codebook"]
    )
    return actual, variables["codebook"]


def loop(book, vectors, valid, decay):
    """Computes codes and moving averages by the appendix, one vector at a time."""
    codebook = book["total"] / book["count"][:, None]
    visits, sums = np.zeros(CODES), np.zeros((CODES, DIMENSION))
    codes = np.zeros(vectors.shape[:-1], int)
    for place in np.ndindex(codes.shape):
        distances = [np.sum((vectors[place] - code) ** 2) for code in codebook]
        codes[place] = int(np.argmin(distances))
        if valid[place[0]]:
            visits[codes[place]] += 1
            sums[codes[place]] += vectors[place]
    count = decay * book["count"] + (1 - decay) * visits
    total = decay * book["total"] + (1 - decay) * sums
    return codes, codebook, count, total


def test_codes_and_moving_averages_are_those_of_a_numpy_loop():
    vectors, valid, index = inputs()
    valid[-2:] = False  # padding is quantised but does not move the codebook
    codes, codebook, count, total = loop(state(), vectors, valid, 0.9)
    actual, after = call(state(), vectors, valid, index)
    np.testing.assert_array_equal(actual.codes, codes)
    np.testing.assert_allclose(actual.vectors, codebook[codes], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        actual.commitment, ((vectors - codebook[codes]) ** 2).mean(axis=(1, 2, 3)), rtol=1e-5
    )
    np.testing.assert_allclose(after["count"], count, rtol=1e-6)
    np.testing.assert_allclose(after["total"], total, rtol=1e-5, atol=1e-6)
    assert int(after["updates"]) == 2


def test_scoring_does_not_move_the_codebook():
    book = state()
    _, after = call(book, *inputs(), train=False)
    for name, value in book.items():
        np.testing.assert_array_equal(after[name], value)


def test_the_gradient_goes_straight_through():
    """d f(codes) / d vectors is f's gradient at the codes; commitment pulls vectors to codes."""
    vectors, valid, index = inputs()
    weights = np.random.default_rng(5).normal(size=vectors.shape).astype("float32")

    def decoded(x):
        return jnp.sum(weights * call(state(), x, valid, index)[0].vectors ** 2)

    actual, _ = call(state(), vectors, valid, index)
    expected = 2 * weights * actual.vectors
    np.testing.assert_allclose(jax.grad(decoded)(vectors), expected, rtol=1e-5)

    def commitment(x):
        return jnp.sum(call(state(), x, valid, index)[0].commitment)

    # The mean over 2 * 2 * 3 numbers of (x - code)^2, the code constant.
    expected = 2 * (vectors - np.asarray(actual.vectors)) / 12
    np.testing.assert_allclose(jax.grad(commitment)(vectors), expected, rtol=1e-4, atol=1e-7)


def test_no_gradient_reaches_the_codebook():
    vectors, valid, index = inputs()

    def both(total):
        actual, _ = call({**state(), "total": total}, vectors, valid, index)
        return jnp.sum(actual.commitment)

    # Commitment is a distance from the codes; their side of it is the moving average's work.
    quantiser = make()
    arguments = jax.tree.map(jnp.asarray, (vectors, valid, index))
    assert set(quantiser.init(jax.random.key(0), *arguments)) == {"codebook"}
    gradient = jax.grad(both)(jnp.asarray(state()["total"]))
    np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


def test_the_first_update_moves_every_code_to_a_vector_of_the_batch():
    vectors, valid, index = inputs()
    _, after = call(state(updates=0), vectors, valid, index)
    codes = after["total"] / after["count"][:, None]
    rows = vectors.reshape(-1, DIMENSION)
    for code in np.asarray(codes):
        assert np.abs(rows - code).max(axis=1).min() < 1e-6


def test_a_code_without_visits_dies_is_replaced_and_comes_to_use():
    book = state()
    book["total"][2] = 100 * book["count"][2]  # far from every vector
    vectors, valid, index = inputs(batch=64)
    replaced_after = None
    for update in range(200):
        _, book = call(book, vectors, valid, index)
        code = np.asarray(book["total"][2] / book["count"][2])
        if replaced_after is None and np.abs(code).max() < 50:
            replaced_after = update
    # Visits decay as .9^n from between 1 and 2; the mean code has 64 * 4 / 7, so it is dead below
    # .03 * 36.6 = 1.1 once that mean is reached.
    assert replaced_after is not None and replaced_after < 60
    assert float(book["count"][2]) > DEAD_SHARE * float(jnp.mean(book["count"]))
    assert float(perplexity(book["count"])) > 3


def test_logged_perplexity_counts_the_codes_that_are_chosen():
    """If all vectors are equal a single code is in use, however often the others are restarted."""
    book = state()
    vectors, valid, index = inputs(batch=16)
    for _ in range(100):
        actual, book = call(book, np.ones_like(vectors), valid, index)
    assert float(actual.perplexity) < 1.5
    for _ in range(100):
        actual, book = call(book, np.sign(vectors), valid, index)  # eight corners, seven codes
    assert float(actual.perplexity) > 5


def test_perplexity_is_the_number_of_codes_evenly_in_use():
    assert float(perplexity(jnp.array([2.0, 2.0, 2.0, 0.0]))) == pytest.approx(3)
    assert float(perplexity(jnp.array([5.0, 0.0, 0.0, 0.0]))) == pytest.approx(1)
    # exp(entropy) of (1/4, 3/4)
    expected = np.exp(-(0.25 * np.log(0.25) + 0.75 * np.log(0.75)))
    assert float(perplexity(jnp.array([1.0, 3.0]))) == pytest.approx(expected)


def test_ties_go_to_the_first_code():
    codebook = jnp.array([[1.0], [-1.0], [1.0]])
    np.testing.assert_array_equal(nearest(jnp.array([[0.0], [2.0]]), codebook), [0, 0])
    assert float(moving_average(jnp.array(4.0), jnp.array(0.0), 0.75)) == 3.0


def test_the_nearest_code_is_argmin_s(rng):
    vectors = rng.normal(size=(50, 3)).astype(np.float32)
    codebook = rng.normal(size=(7, 3)).astype(np.float32)
    vectors[3], codebook[5] = np.nan, codebook[2]  # no number; a tie
    distances = np.sum((vectors[:, None] - codebook[None]) ** 2, axis=-1)
    expected = distances.argmin(axis=1)
    np.testing.assert_array_equal(nearest(jnp.asarray(vectors), jnp.asarray(codebook)), expected)


@pytest.mark.parametrize("updates", [0, 1], ids=["first update", "later"])
def test_jit_over_a_mesh_and_pmap_update_the_codebook_alike(updates):
    """The result is that of one device with the whole batch, with replaced codes."""
    with jax.enable_x64(True):
        vectors, valid, index = inputs(batch=16, dtype="float64")
        book = state(updates=updates, dtype="float64")
        book["count"][4] = 1e-6  # dead
        batch = {"image": vectors, "_valid": valid, "_index": index}

        def step(axis_name, book, batch):
            return call(
                book, batch["image"], batch["_valid"], batch["_index"], axis_name=axis_name
            )[1]

        actual = []
        for mode, devices in (("jit", 1), ("jit", 8), ("pmap", 8)):
            parallel = make_parallel(mode, jax.devices()[:devices])
            compiled = parallel.compile_reduce(functools.partial(step, parallel.axis_name))
            after = compiled(parallel.put_replicated(book), parallel.put_batch(batch))
            actual.append(parallel.get_replicated(after))
        for other in actual[1:]:
            for name in book:
                np.testing.assert_allclose(other[name], actual[0][name], rtol=1e-12, err_msg=name)
        assert actual[0]["count"][4] > 1e-3
