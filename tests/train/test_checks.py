"""Checks of a config before anything is generated or trained."""

import pytest
from ml_collections import ConfigDict

from jaxad.config import base, get_config
from jaxad.config.model import image_shape
from jaxad.errors import UserError
from jaxad.train import checks


def test_shipped_configs_pass():
    config = get_config("pchvae:smoke")
    checks.check(config)
    assert image_shape(config) == (64, 64, 1)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("seed", -1, "config.seed: -1 is not in"),
        ("data.image_size", 40, "multiple of 16"),
        ("data.batch_size", 0, "config.data.batch_size: 0"),
        ("data.batch_size", 12, "multiple of 8"),  # the tests have 8 devices
        ("evaluate.bootstrap_resamples", 0, "config.evaluate.bootstrap_resamples"),
        ("train.num_epochs", 0.0, "config.train.num_epochs: 0.0 is not in"),
        ("train.num_epochs", float("nan"), "config.train.num_epochs: nan is not in"),
        ("optim.clip_norm", -1.0, "config.optim.clip_norm: -1.0 is not in"),
        ("optim.name", "adm", r"unknown 'adm'; did you mean 'adam'\? known: adam"),
        ("model.widths", (0, 8, 8, 8), "config.model"),
        ("precision", "float16", r"unknown 'float16'; did you mean 'bfloat16'\? known: "),
        ("parallel", "shard", "unknown 'shard'; known: jit, pmap"),
        ("model.name", "pchvea", "unknown model 'pchvea'.*did you mean 'pchvae'"),
    ],
)
def test_an_impossible_value_is_named_by_its_path(path, value, words):
    config = get_config("pchvae:smoke")
    with config.unlocked():
        config.update_from_flattened_dict({path: value})
    with pytest.raises(UserError, match=words):
        checks.check(config)


def test_a_field_that_the_model_lacks_is_named():
    config = get_config("pchvae:smoke")
    with config.unlocked():
        config.model.width = 8
    with pytest.raises(UserError, match=r"config\.model\.width: .* no such field.*widths"):
        checks.check(config)


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
def test_mistakes_in_the_fields_of_a_network_are_named(change, words):
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
        checks.check(config)


class Fitted:
    """A model that is fitted in one pass."""

    image_shape, num_latents, score_weights = (64, 64, 1), 1, {}

    def init_variables(self, key):
        return {"params": {}}

    def score(self, variables, images):
        raise NotImplementedError

    def fit(self, variables, batches, key):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("optim.b1", 0.5),
        ("train.num_epochs", 3.0),
        ("train.updates.model", (0.0, 1.0, 2)),
        ("data.augment.rotation", 5.0),
    ],
)
def test_fields_of_training_are_refused_for_a_fitted_model(monkeypatch, path, value):
    monkeypatch.setattr(checks, "make_model", lambda config: Fitted())
    config = base()
    checks.check(config)
    config.train.updates = ConfigDict({"model": (0.0, 1.0, 1)} if "updates" in path else {})
    config.update_from_flattened_dict({path: value})
    field = path.removesuffix(".model").replace(".", r"\.")
    with pytest.raises(UserError, match=rf"config\.{field}: has no effect on .* one pass"):
        checks.check(config)
    if path == "train.num_epochs":  # the experiments of a study share it
        checks.check(config, is_of_study=True)
