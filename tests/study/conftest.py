"""A finished study, and its data."""

import numpy as np
import pytest
from small_study import PATIENTS, SLICES, make_config

from jaxad.study.runner import run_study


@pytest.fixture(scope="session")
def npz_root(tmp_path_factory):
    """Noise, with bright squares in anomalous slices; every patient has both classes."""
    root = tmp_path_factory.mktemp("npz")
    rng = np.random.default_rng(0)
    for name in ("train", "val", "test_squares"):
        count = PATIENTS * SLICES
        images = rng.uniform(0.3, 0.5, size=(count, 16, 16)).astype("float32")
        labels = np.zeros(count, int)
        if name == "test_squares":
            labels[::2] = 1
            images[::2, 4:9, 4:9] = 1.0
        groups = [f"{name}-{row // SLICES}" for row in range(count)]
        positions = np.tile(np.arange(SLICES), PATIENTS)
        arrays = {"image": images, "group": groups, "position": positions}
        mask = np.zeros(images.shape, np.uint8)
        mask[labels == 1, 4:9, 4:9] = 1
        extra = {} if name != "test_squares" else {"label": labels, "mask": mask}
        np.savez(root / f"{name}.npz", **arrays, **extra)
    return root


@pytest.fixture(scope="session")
def finished(npz_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    config = make_config(npz_root)
    config.seeds_per_program = 2
    config.heat_map.rows, config.heat_map.row_values = ("small", "large"), (0.0, 1.0)
    config.heat_map.row_name, config.heat_map.column_name = "alpha", "beta"
    config.heat_map.parts = ("nll", "kl_low")
    assert run_study(config, folder)
    return folder
