"""A study of two experiments that compile quickly."""

import csv

from jaxad import config as config_lib

PATIENTS, SLICES = 6, 4


def make_config(npz_root, seeds=(0, 1)):
    """A study of two experiments that compile quickly."""
    one = config_lib.get_config("lowvae:smoke").unlock()
    one.data.name, one.data.root, one.data.image_size = "npz", str(npz_root), 16
    one.data.batch_size, one.cpu_devices = 8, 8  # the session's CPU devices
    one.model.widths, one.model.depths = (4, 4), (0, 0)
    one.evaluate.num_examples = 1
    two = config_lib.from_json(config_lib.to_json(one)).unlock()
    two.model.latent_channels = (4,)
    config = config_lib.study({"small": one, "large": two}, seeds=seeds)
    config.num_epochs, config.bootstrap_resamples, config.num_slices = 3.0, 100, 2
    return config


def read_table(folder):
    with (folder / "table.csv").open() as file:
        return {(row["experiment"], row["metric"]): row for row in csv.DictReader(file)}
