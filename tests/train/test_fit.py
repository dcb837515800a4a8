"""Models that are fitted in one pass: a run like others, with one checkpoint."""

import csv
import dataclasses
import json
import os
import signal
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

import jaxad
from jaxad import models, run
from jaxad.config import base
from jaxad.data.sources import DataSet
from jaxad.errors import RunError, UserError
from jaxad.runtime import interrupts
from jaxad.storage.workdir import Workdir
from jaxad.train.loop import train, train_seeds
from jaxad.train.outputs import Outputs
from jaxad.train.program import num_train_steps
from jaxad.train.writer import read_metrics
from jaxad.types import FittedModel, PretrainedModel, Scores, TrainedModel

SIZE, TRAIN, TEST = 16, 21, 10  # 21 images in batches of 8: the last one is padded


@dataclasses.dataclass(frozen=True)
class PixelGaussian:
    """A Gaussian for each pixel; an image's score is its mean squared z-score."""

    image_shape: tuple[int, int, int]
    dtype: object
    axis_name: str | None
    mistake: str = ""

    num_latents = 0

    @property
    def score_weights(self):
        return {"squared_z": 1.0}

    def init_variables(self, key):
        return {"params": {"mean": jnp.zeros(self.image_shape), "var": jnp.ones(self.image_shape)}}

    def fit(self, variables, batches, key):
        images = []
        for batch in batches:
            if self.mistake == "signal" and images:
                os.kill(os.getpid(), signal.SIGTERM)
                while not interrupts.requested():  # this fit would be over before it arrives
                    time.sleep(0.01)
            images.extend(batch["image"][batch["_valid"]])
        mean, var = np.mean(images, axis=0), np.var(images, axis=0)
        if self.mistake == "shape":
            mean = mean[:1]
        if self.mistake in ("nan", "inf"):
            var[0, 0, 0] = float(self.mistake)
        return {"params": {"mean": mean, "var": var}}

    def score(self, variables, images):
        params = variables["params"]
        pixel = ((images - params["mean"][None]) ** 2 / params["var"][None]).mean(axis=-1)
        image = pixel.mean(axis=(1, 2))
        return Scores(image=image, pixel=pixel, components={"squared_z": image}, reconstructions={})


@dataclasses.dataclass(frozen=True)
class FeatureMean(PixelGaussian):
    """The mean of a frozen encoder's features."""

    frozen_collections = ("encoder",)
    encoder_description = "doubles the image"

    def init_variables(self, key):
        shape = (self.image_shape[0],)
        return {"params": {"mean": jnp.zeros(shape)}, "encoder": {"scale": jnp.full((), jnp.nan)}}

    def pretrained_variables(self, key):
        return {"encoder": {"scale": jnp.full((), 2.0)}}

    def features(self, variables, images):
        return images.mean(axis=(2, 3)) * variables["encoder"]["scale"]

    def fit(self, variables, batches, key):
        rows = [batch["features"][batch["_valid"]].astype(np.float32) for batch in batches]
        return {**variables, "params": {"mean": np.concatenate(rows).mean(axis=0)}}


@pytest.fixture(scope="module")
def npz_root(tmp_path_factory) -> Path:
    root, rng = tmp_path_factory.mktemp("npz"), np.random.default_rng(0)
    for name, count in (("train", TRAIN), ("val", 8), ("test_a", TEST)):
        labels = {"label": np.arange(count) % 2} if name == "test_a" else {}
        images = rng.uniform(size=(count, SIZE, SIZE)).astype("float32")
        np.savez(root / f"{name}.npz", image=images, **labels)
    return root


@pytest.fixture
def config(npz_root, monkeypatch):
    classes = {"pixel_gaussian": PixelGaussian, "feature_mean": FeatureMean}
    monkeypatch.setattr(
        models, "build", lambda name, fields, **common: classes[name](**fields, **common)
    )
    config = base()
    config.evaluate.bootstrap_resamples, config.evaluate.num_examples = 50, 2
    config.data.name, config.data.root, config.data.image_size = "npz", str(npz_root), SIZE
    config.data.batch_size = 8
    config.model = ConfigDict({"name": "pixel_gaussian", "mistake": ""})
    return config


def images_of(config, split):
    return DataSet(config.data).split(split).images


def fit(config, folder) -> bool:
    return train(config, Workdir(folder), DataSet(config.data))


def test_the_models_of_this_test_are_fitted_and_not_trained():
    model = PixelGaussian((SIZE, SIZE, 1), jnp.float32, None)
    encoder = FeatureMean((SIZE, SIZE, 1), jnp.float32, None)
    assert isinstance(model, FittedModel) and not isinstance(model, TrainedModel | PretrainedModel)
    assert isinstance(encoder, FittedModel) and isinstance(encoder, PretrainedModel)


def test_a_fitted_run_is_evaluated_and_exported_like_others(config, tmp_path, capsys):
    detector = jaxad.fit(config, tmp_path)
    assert detector.step == 1 == num_train_steps(config, TRAIN)
    assert jaxad.load(tmp_path, "best").step == 1  # the only checkpoint

    learnt, images = images_of(config, "train"), images_of(config, "test_a")
    squared_z = (images - learnt.mean(axis=0)) ** 2 / learnt.var(axis=0)
    scores = detector.score(images)
    np.testing.assert_allclose(scores.image, squared_z.mean(axis=(1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(scores.pixel, squared_z.mean(axis=-1), rtol=1e-4)
    with (tmp_path / "eval/test_a/scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    np.testing.assert_allclose([float(row["score"]) for row in rows], scores.image, rtol=1e-5)
    assert (tmp_path / "report.html").exists()

    exported = jaxad.load(jaxad.export_detector(tmp_path))
    np.testing.assert_allclose(exported.score(images).image, scores.image, rtol=1e-5)

    (row,) = read_metrics(tmp_path / "metrics.jsonl")
    assert (row["step"], row["fit/images"]) == (1, TRAIN) and row["fit/seconds"] > 0
    capsys.readouterr()
    run.train(config, tmp_path)
    assert f"'{tmp_path}' is fitted already." in capsys.readouterr().out
    config.data.batch_size = 4
    with pytest.raises(UserError, match="of another config"):
        run.train(config, tmp_path)
    config.data.batch_size = 8
    config.evaluate.false_positive_rate = 0.3
    run.evaluate(config, tmp_path)
    assert jaxad.load(tmp_path).config.evaluate.false_positive_rate == 0.3
    metrics = json.loads((tmp_path / "eval/test_a/metrics.json").read_text())
    assert metrics["decisions"]["normal_images_only"]["requested_rate"] == 0.3


def test_an_interrupted_fit_begins_again(config, tmp_path, monkeypatch):
    config.model.mistake = "signal"
    with interrupts.handled(), pytest.raises(KeyboardInterrupt):
        fit(config, tmp_path)
    assert not list((tmp_path / "checkpoints").iterdir())
    config.model.mistake = ""
    (tmp_path / "config.json").unlink()  # the mistake is a field of the config
    assert fit(config, tmp_path)
    mean = jaxad.load(tmp_path).variables["params"]["mean"]
    np.testing.assert_allclose(mean, images_of(config, "train").mean(axis=0), rtol=1e-6)


def test_a_signal_during_the_save_waits_for_it(config, tmp_path, monkeypatch, capsys):
    save = Outputs.save

    def save_and_terminate(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        save(*arguments)

    monkeypatch.setattr(Outputs, "save", save_and_terminate)
    assert not fit(config, tmp_path)
    assert "SIGTERM: saved step 1 of 1" in capsys.readouterr().out
    assert fit(config, tmp_path)
    assert "is fitted already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("mistake", "kind", "words"),
    [
        (
            "shape",
            UserError,
            r"\['mean'\] is float32\[1, 16, 1\], the config needs float32\[16,",
        ),
        ("nan", RunError, r"\['var'\] is not finite \(seed 0\)"),
        ("inf", RunError, r"\['var'\] is not finite \(seed 0\)"),
    ],
)
def test_a_result_that_cannot_be_used_is_one_line(config, tmp_path, mistake, kind, words):
    config.model.mistake = mistake
    with pytest.raises(kind, match=f"fit of 'pixel_gaussian'.*{words}"):
        fit(config, tmp_path)
    assert not list((tmp_path / "checkpoints").iterdir())


def test_an_error_of_an_external_fit_is_one_line(config, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "my_models", sys.modules[__name__])
    monkeypatch.setattr(models, "build", lambda name, fields, **common: PixelGaussian(**common))
    monkeypatch.setattr(PixelGaussian, "fit", lambda *arguments: 1 + "1")
    config.model.name = "my_models:PixelGaussian"
    place = r"\(test_fit\.py, line \d+\)\.$"
    line = rf"^config\.model: fit of 'my_models:PixelGaussian': raised TypeError: .* {place}"
    with pytest.raises(UserError, match=line):
        fit(config, tmp_path)


@pytest.mark.parametrize("cache", ["off", "on"])
def test_a_pretrained_model_is_fitted_to_features(config, tmp_path, capsys, cache):
    """Also with augmentation, which does not apply to a fit."""
    config.model.name, config.data.augment.mirror = "feature_mean", True
    config.train.feature_cache = str(tmp_path / "cache") if cache == "on" else "off"
    assert fit(config, tmp_path / "run")
    mean = jaxad.load(tmp_path / "run").variables["params"]["mean"]
    features = 2 * images_of(config, "train").mean(axis=(2, 3))
    # The cache rounds to half precision.
    np.testing.assert_allclose(mean, features.mean(axis=0), rtol=1e-3 if cache == "on" else 1e-6)
    assert ("feature cache: train" in capsys.readouterr().out) == (cache == "on")


def test_several_seeds_are_fitted_one_after_another(config, tmp_path):
    configs = [config, config.copy_and_resolve_references()]
    configs[1].seed = 5
    workdirs = [Workdir(tmp_path / name) for name in "ab"]
    assert train_seeds(configs, workdirs, DataSet(config.data))
    assert [jaxad.load(workdir.path).config.seed for workdir in workdirs] == [0, 5]


def test_a_fitted_model_has_no_updates_to_profile(config, tmp_path):
    with pytest.raises(UserError, match="--mode=profile: 'pixel_gaussian' is fitted in one pass"):
        run.profile(config, tmp_path)
