"""A small run on random images, for the tests of the training loop."""

from pathlib import Path

import numpy as np
import pytest
from small_run import EVERY, STEPS

from jaxad.config import get_config


@pytest.fixture(scope="module")
def npz_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("npz")
    rng = np.random.default_rng(0)
    for name in ("train", "val"):
        np.savez(root / f"{name}.npz", image=rng.uniform(size=(32, 16, 16)).astype("float32"))
    return root


@pytest.fixture
def config(npz_root: Path):
    config = get_config("pchvae:smoke")
    config.data.name, config.data.root, config.data.image_size = "npz", str(npz_root), 16
    config.data.augment.rotation = config.data.augment.noise = 0.05
    config.model.depths = (0, 0, 0, 0)
    config.train.num_epochs = STEPS * config.data.batch_size / 32
    config.train.checkpoint_every_steps = EVERY
    return config


@pytest.fixture(scope="module")
def wholes(tmp_path_factory):
    """A folder of uninterrupted runs, for the tests that interrupt the same run."""
    return tmp_path_factory.mktemp("wholes")
