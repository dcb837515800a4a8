"""When training reads the features of a frozen encoder from the cache."""

import os
import signal

import numpy as np
import pytest

from jaxad.config import get_config
from jaxad.data.pipeline.augment import Augmentation
from jaxad.runtime import interrupts
from jaxad.train.feature_cache import cached_features
from jaxad.train.program import make_program, train_batches
from jaxad.types import Split

SIZE, COUNT = 32, 6


@pytest.fixture
def config(tmp_path):
    config = get_config("aeflow:smoke")
    config.data.batch_size = 8
    config.model.num_blocks, config.model.decoder_widths = 1, (4, 4, 4)
    config.train.feature_cache = str(tmp_path)
    return config


@pytest.fixture
def split():
    names = tuple(map(str, range(COUNT)))
    images = np.random.default_rng(0).integers(0, 256, (COUNT, SIZE, SIZE, 1), np.uint8)
    return Split(images, np.zeros(COUNT, np.int32), names, names)


def cached(config, seeds, split, program=None):
    program = program or make_program(config, seeds, COUNT)
    return cached_features(
        config, program.model, program.parallel,
        [state.variables for state in program.initial_states], {"train": split},
        images_change=not Augmentation(**config.data.augment).is_off,
    )  # fmt: skip


def test_batches_have_the_features_of_their_images(config, split):
    features = cached(config, [0], split)["train"]
    batch = next(train_batches(config, [0], split, 0, [1], features))
    assert batch["features"].dtype == np.float16
    for image, own in zip(batch["image"], batch["features"], strict=True):
        (row,) = np.flatnonzero((split.images == np.round(255 * image)).all(axis=(1, 2, 3)))
        np.testing.assert_array_equal(own, features[row])


def test_seeds_share_the_features_of_a_pretrained_encoder(config, split):
    features = cached(config, [0, 1], split)["train"]
    batch = next(train_batches(config, [0, 1], split, 0, [1], features))
    assert batch["features"].shape == (8, 2, 2 * 2 * 112 + 320)  # B, S, of both strides


@pytest.mark.long
def test_seeds_with_different_encoders_share_no_features(config, split, capsys):
    config.model.weights = "random"
    assert cached(config, [0], split)
    capsys.readouterr()
    assert cached(config, [0, 1], split) == {}
    assert "every seed has an encoder of its own" in capsys.readouterr().out


def test_augmented_images_have_no_cached_features(config, split, capsys):
    config.data.augment.mirror = True
    assert cached(config, [0], split) == {}
    assert "config.data.augment changes the images" in capsys.readouterr().out


def test_the_cache_can_be_disabled_and_other_models_have_none(config, split, capsys):
    config.train.feature_cache = "off"
    assert cached(config, [0], split) == {}
    other = get_config("lowvae:smoke")
    other.data.batch_size = 8
    assert cached(other, [0], split) == {}
    assert capsys.readouterr().out == ""


def test_a_stop_while_features_are_computed_keeps_what_is_there(config, split, monkeypatch, capsys):
    monkeypatch.setattr("jaxad.train.feature_cache._PART", 2)
    program = make_program(config, [0], COUNT)
    with interrupts.handled(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
        cached(config, [0], split, program)
    assert set(cached(config, [0], split, program)) == {"train"}
    assert "parts are already there" in capsys.readouterr().out
