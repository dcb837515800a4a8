"""The length of the small run of `conftest.py`, and what its tests do with it."""

from pathlib import Path

import jax

from jaxad.data.sources import DataSet
from jaxad.detector.restored import restore
from jaxad.storage.workdir import Workdir
from jaxad.train.loop import train

STEPS, EVERY = 8, 3


def run(config, folder: Path) -> bool:
    return train(config, Workdir(folder), DataSet(config.data))


def variables(folder: Path, checkpoint="last"):
    found = restore(folder, checkpoint)
    return found.step, jax.tree.leaves(found.variables)
