"""A config is checked before anything is generated or trained."""

import pytest

from jaxad import experiment
from jaxad.config import get_config
from jaxad.errors import UserError


def test_shipped_configs_pass():
    config = get_config("pchvae:smoke")
    experiment.check(config)
    assert experiment.image_shape(config) == (64, 64, 1)


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
def test_what_cannot_be_is_named_by_its_path(path, value, words):
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
