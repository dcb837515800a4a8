"""A config is checked before anything is generated or trained."""

import pytest
from ml_collections import ConfigDict

from jaxad.config import get_config
from jaxad.config.model import image_shape
from jaxad.errors import UserError
from jaxad.train import experiment


def test_shipped_configs_pass():
    config = get_config("pchvae:smoke")
    experiment.check(config)
    assert image_shape(config) == (64, 64, 1)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("seed", -1, "config.seed: -1 is not between"),
        ("data.image_size", 40, "multiple of 16"),
        ("data.batch_size", 0, "config.data.batch_size: 0"),
        ("data.batch_size", 12, "multiple of 8"),  # the tests have 8 devices
        ("evaluate.bootstrap_resamples", 0, "config.evaluate.bootstrap_resamples"),
        ("train.num_epochs", 0.0, "config.train.num_epochs: 0.0 is not between"),
        ("train.num_epochs", float("nan"), "config.train.num_epochs: nan is not between"),
        ("optim.clip_norm", -1.0, "config.optim.clip_norm: -1.0 is not between"),
        ("optim.name", "adm", "unknown optimiser"),
        ("model.widths", (0, 8, 8, 8), "config.model"),
        ("precision", "float16", "float32, bfloat16"),
        ("parallel", "shard", "jit, pmap"),
        ("model.name", "pchvea", "unknown model 'pchvea'.*did you mean 'pchvae'"),
    ],
)
def test_a_wrong_value_is_named_by_its_path(path, value, words):
    config = get_config("pchvae:smoke")
    with config.unlocked():
        config.update_from_flattened_dict({path: value})
    with pytest.raises(UserError, match=words):
        experiment.check(config)


def test_a_field_that_the_model_lacks_is_named():
    config = get_config("pchvae:smoke")
    with config.unlocked():
        config.model.width = 8
    with pytest.raises(UserError, match=r"config\.model\.width: .* no such field.*widths"):
        experiment.check(config)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optim.networks.encoder.learning_rate": -1.0}, "networks.encoder.learning_rate: -1.0 is"),
        ({"optim.networks.encoder.rate": 1.0}, "networks.encoder.rate: config.optim has no such"),
        ({"optim.networks.encoder.frozen": ("a",)}, "networks.encoder.frozen: config.optim has no"),
        ({"optim.networks.decoder.b1": 0.5}, "networks.decoder: this system has no such network"),
        ({"train.updates.encoder": (0.9, 1.1, 1)}, "config.train.updates.encoder: .0.9, 1.1, 1."),
    ],
)
def test_a_mistake_of_one_network_is_named(change, words):
    config = get_config("fanogan:smoke")
    with config.unlocked():
        for path, value in change.items():
            *groups, field = path.split(".")
            group = config
            for name in groups:
                if name not in group:
                    group[name] = ConfigDict()
                group = group[name]
            group[field] = value
    with pytest.raises(UserError, match=words):
        experiment.check(config)


@pytest.mark.parametrize(
    ("changes", "pixels"),
    [
        ({}, 8 * 64**2),  # 16 images on two devices
        ({"cpu_devices": 1}, 16 * 64**2),
        ({"train.accumulate_steps": 4}, 2 * 64**2),
        ({"data.image_size": 128}, 8 * 128**2),
        ({"cpu_devices": 0}, 16 * 64**2),  # what `check` refuses later
    ],
)
def test_pixels_that_a_device_learns_from_at_once(changes, pixels):
    config = get_config("pchvae")
    config.update_from_flattened_dict(changes)
    assert experiment.pixels_at_once(config) == pixels
