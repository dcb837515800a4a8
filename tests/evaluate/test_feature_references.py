"""Reference scores on features, against SciPy and plain linear algebra."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist, mahalanobis

from jaxad.config import get_config
from jaxad.data.sources import DataSet
from jaxad.evaluate.references import TITLES, ReferenceScores, encoder_title
from jaxad.evaluate.references import features as module
from jaxad.evaluate.references.features import (
    FEATURE_SCORES,
    Undefined,
    fit_feature_scores,
    reference_encoder,
)

NAMES = ("feature_pca_64", "feature_gaussian", "feature_neighbours")


@pytest.fixture
def maps(rng):
    """Features of 30 training and 4 other images, 2 x 3 places of 5 channels."""
    mixing = rng.normal(size=(6, 5, 5))
    draw = rng.normal(size=(34, 6, 5))
    features = np.einsum("npc,pcd->npd", draw, mixing).reshape(34, 2, 3, 5) + rng.normal(size=5)
    return features[:30].astype(np.float32), features[30:].astype(np.float32)


def test_names():
    assert tuple(FEATURE_SCORES) == NAMES
    assert set(NAMES) < set(TITLES)


def test_the_gaussian_is_the_mean_squared_mahalanobis_distance_of_the_places(maps):
    train, others = maps
    scores, _ = fit_feature_scores(train)
    expected = np.zeros(4)
    for row in range(2):
        for column in range(3):
            place = train[:, row, column].astype(np.float64)
            covariance = np.cov(place.T, bias=True)
            ridge = 0.01 * train.var(axis=0).mean()  # a hundredth of the mean variance
            inverse = np.linalg.inv(covariance + ridge * np.eye(5))
            for number in range(4):
                distance = mahalanobis(others[number, row, column], place.mean(axis=0), inverse)
                expected[number] += distance**2 / 6
    np.testing.assert_allclose(scores["feature_gaussian"](others), expected, rtol=1e-3)


def test_neighbours_are_those_of_the_mean_over_places(maps):
    train, others = maps
    scores, _ = fit_feature_scores(train)
    distances = cdist(others.mean(axis=(1, 2)), train.mean(axis=(1, 2)))
    expected = np.sort(distances, axis=1)[:, :5].mean(axis=1)
    np.testing.assert_allclose(scores["feature_neighbours"](others), expected, rtol=1e-4)


def test_pca_leaves_what_the_leading_directions_do_not_explain(maps, monkeypatch):
    monkeypatch.setattr(module, "PCA_COMPONENTS", 3)
    train, others = maps
    scores, _ = fit_feature_scores(train)
    rows, centre = train.reshape(30, -1).astype(np.float64), train.reshape(30, -1).mean(axis=0)
    directions = np.linalg.svd(rows - centre)[2][:3]
    left = others.reshape(4, -1) - centre
    left = left - left @ directions.T @ directions
    np.testing.assert_allclose(scores["feature_pca_64"](others), (left**2).mean(axis=1), rtol=1e-2)


@pytest.mark.parametrize(
    ("train", "reason"),
    [
        (np.ones((1, 2, 2, 3), np.float32), "at least 2 training images"),
        (np.ones((4, 2, 2, 3), np.float32), "features of all training images are equal"),
    ],
)
def test_what_cannot_be_fitted_is_undefined_with_its_reason(train, reason):
    scores, reasons = fit_feature_scores(train)
    assert not scores and set(reasons) == set(NAMES)
    assert all(reason in text for text in reasons.values())


def test_two_training_images_are_enough(maps):
    scores, reasons = fit_feature_scores(maps[0][:2])
    assert not reasons
    assert all(np.isfinite(score(maps[1])).all() for score in scores.values())


def test_the_encoder_is_the_system_s_own_or_the_default_one():
    config = get_config("pchvae")
    assert reference_encoder(config).backbone == "efficientnet_lite0"
    assert encoder_title(config) == "efficientnet_lite0, stride 32"
    with config.model.unlocked():  # a model of another package
        config.model.backbone = "vit"
    assert reference_encoder(config).backbone == "efficientnet_lite0"
    config = get_config("aeflow:paper")
    assert reference_encoder(config).backbone == "wide_resnet50_2"
    assert encoder_title(config) == "wide_resnet50_2, stride 16"
    config.model.weights = "random"
    assert encoder_title(config) == "wide_resnet50_2, weights random, stride 16"
    config.model.weights = "/home/ann/weights/wide.pth"  # folders may name people
    assert encoder_title(config) == "wide_resnet50_2, weights wide.pth, stride 16"
    config.model.weights = "hub:timm/wide_resnet50_2.tv_in1k"
    assert encoder_title(config) == (
        "wide_resnet50_2, weights hub:timm/wide_resnet50_2.tv_in1k, stride 16"
    )
    config.evaluate.feature_references = False
    assert encoder_title(config) == ""
    config.data.channels = 2
    with pytest.raises(Undefined, match="images have 2 channels; the encoder takes 1 or 3"):
        reference_encoder(config)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = get_config("ae:smoke")
    config.evaluate.feature_references = True
    config.data.root = str(tmp_path_factory.mktemp("data"))
    config.train.feature_cache = str(tmp_path_factory.mktemp("cache"))
    return config


def test_scores_of_a_data_set_are_the_same_with_and_without_the_cache(config):
    data_set = DataSet(config.data)
    with_cache = ReferenceScores(data_set).of("val", config)
    assert set(NAMES) < set(with_cache)
    config = config.copy_and_resolve_references()
    config.train.feature_cache = "off"
    without = ReferenceScores(data_set).of("val", config)
    for name in NAMES:
        assert with_cache[name].shape == (len(data_set.split("val")),)
        # The cache rounds features to 11 bits.
        np.testing.assert_allclose(with_cache[name], without[name], rtol=0.02)


def test_an_encoder_without_weights_leaves_its_scores_undefined(config):
    config = config.copy_and_resolve_references().unlock()
    config.model.backbone, config.model.weights = "wide_resnet50_2", "gone.pth"
    references = ReferenceScores(DataSet(config.data))
    assert not set(NAMES) & set(references.of("val", config))
    assert "no file 'gone.pth'" in references.undefined(config)["feature_gaussian"]


def test_references_of_features_can_be_switched_off(config):
    config = config.copy_and_resolve_references()
    config.evaluate.feature_references = False
    references = ReferenceScores(DataSet(config.data))
    assert not set(NAMES) & set(references.of("val", config))
    assert not references.undefined(config)
