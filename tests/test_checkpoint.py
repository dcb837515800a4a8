"""Checkpoints: the last few and the best are kept, damage is named, nothing half-written counts."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.checkpoint import VALIDATION_LOSS, Checkpoints
from jaxad.errors import UserError

LOSSES = {1: 5.0, 2: 1.0, 3: 4.0, 4: 3.0, 5: 2.0}


def trees(step):
    return {"params": {"w": jnp.full((3,), float(step))}}, {"step": jnp.asarray(step)}


@pytest.fixture
def folder(tmp_path):
    """Five saves; the best is the second, the last three are kept beside it."""
    with Checkpoints(tmp_path / "checkpoints", keep_last=3) as checkpoints:
        for step, loss in LOSSES.items():
            checkpoints.save(step, *trees(step), {VALIDATION_LOSS: loss})
            checkpoints.wait()
    return tmp_path / "checkpoints"


def test_the_last_few_and_the_best_are_kept(folder):
    with Checkpoints(folder, read_only=True) as checkpoints:
        assert checkpoints.steps == [2, 3, 4, 5]
        assert checkpoints.last_step == 5
        assert checkpoints.best_step == 2
        variables = checkpoints.restore_variables(2, trees(0)[0])
        np.testing.assert_array_equal(variables["params"]["w"], [2.0, 2.0, 2.0])


def test_a_save_without_metrics_is_the_last_and_not_the_best(folder):
    with Checkpoints(folder, keep_last=3) as checkpoints:
        checkpoints.save(6, *trees(6), {})
        checkpoints.wait()
    with Checkpoints(folder, read_only=True) as checkpoints:
        assert checkpoints.last_step == 6
        assert checkpoints.best_step == 2


def test_a_save_that_was_killed_does_not_count(folder):
    (folder / "7.orbax-checkpoint-tmp").mkdir()
    with Checkpoints(folder, keep_last=3) as checkpoints:
        assert checkpoints.last_step == 5
        # Orbax cleans up in a thread; the next save is the first to wait for it.
        checkpoints.save(8, *trees(8), {VALIDATION_LOSS: 9.0})
    assert not list(folder.glob("*tmp*"))


def test_variables_of_another_shape_are_named_with_their_folder(folder):
    with (
        Checkpoints(folder, read_only=True) as checkpoints,
        pytest.raises(UserError, match="checkpoints/5' does not fit its config .*other'"),
    ):
        checkpoints.restore_variables(5, {"params": {"other": jnp.zeros(2)}})
