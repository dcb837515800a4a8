"""What a model fits before the first update is checked like the result of a fit."""

import jax
import numpy as np
import pytest
from small_run import run

from jaxad.errors import RunError, UserError
from jaxad.models.hierarchical_vae import HierarchicalVAE


@pytest.mark.parametrize(
    ("prepare", "kind", "words"),
    [
        (lambda *_: None, UserError, "returned a NoneType; return variables"),
        (lambda _, variables, batches: {"params": {}}, UserError, "must return variables like"),
        (
            lambda _, variables, batches: jax.tree.map(lambda leaf: leaf * np.nan, variables),
            RunError,
            r"is not finite \(seed 0\); the run stops",
        ),
    ],
)
def test_a_preparation_that_cannot_be_used_is_one_line(
    config, tmp_path, monkeypatch, prepare, kind, words
):
    monkeypatch.setattr(HierarchicalVAE, "prepare", prepare, raising=False)
    with pytest.raises(kind, match=f"prepare of 'pchvae'.* {words}"):
        run(config, tmp_path)
    assert not list((tmp_path / "checkpoints").iterdir())
