"""Heat maps: the AUROC of mixtures of two score components."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from jaxad import config as config_lib
from jaxad.errors import UserError
from jaxad.evaluate.paired import ScoredSplit
from jaxad.study.heat_map import WEIGHTS, check_heat_map, make_heat_map

COUNT = 40


@pytest.fixture
def labels(rng):
    return rng.integers(0, 2, COUNT)


def make_run(labels, rng, components=("flow", "image")):
    columns = {name: rng.normal(size=COUNT) + labels * 0.7 for name in components}
    return ScoredSplit(labels, np.arange(COUNT), columns)


def study_config():
    config = config_lib.study({"a": config_lib.get_config("lowvae:smoke")}, seeds=(0,))
    config.heat_map.rows, config.heat_map.row_values = ("a", "b", "c"), (0.0, 0.5, 1.0)
    config.heat_map.parts = ("flow", "image")
    return config


def test_a_cell_is_the_mean_over_runs_of_the_mixtures_auroc(labels, rng):
    scored = {name: [make_run(labels, rng) for _ in range(2)] for name in "ac"}
    heat_map = make_heat_map(study_config(), scored)
    assert heat_map.rows == (0.0, 1.0)  # no run of `b` is finished
    for row, name in enumerate("ac"):
        for column, w in enumerate(WEIGHTS):
            parts = [run.columns for run in scored[name]]
            mixtures = [w * part["flow"] + (1 - w) * part["image"] for part in parts]
            expected = np.mean([roc_auc_score(labels, mixture) for mixture in mixtures])
            np.testing.assert_allclose(heat_map.values[row, column], expected)


def test_there_is_no_map_where_none_is_configured_or_there_is_one_class(labels, rng):
    config = study_config()
    assert make_heat_map(config, {"a": [make_run(np.zeros(COUNT, int), rng)]}) is None
    assert make_heat_map(config, {}) is None
    config.heat_map.rows, config.heat_map.row_values = (), ()
    assert make_heat_map(config, {"a": [make_run(labels, rng)]}) is None


def test_a_heat_map_is_checked_before_any_run():
    config = config_lib.get_config("studies/aeflow_ablation:smoke")
    runs = {name: config_lib.study_run(config, name, 0) for name in config.experiments}
    check_heat_map(config, runs)
    for field, value, words in (
        (
            "parts",
            ("flow_score", "mse_score"),
            "no component 'mse_score'; choose from score, .*flow",
        ),
        ("parts", ("flow_score",), "name two components"),
        ("row_values", (0.5,), r"1 for \d rows; give one each"),
        ("rows", ("other",) * len(config.heat_map.rows), "unknown experiment 'other'; choose from"),
    ):
        changed = config_lib.from_json(config_lib.to_json(config))
        changed.heat_map[field] = value
        with pytest.raises(UserError, match=rf"config\.heat_map\.{field}: .*{words}"):
            check_heat_map(changed, runs)


def test_a_missing_component_is_named(labels, rng):
    with pytest.raises(UserError, match="scores of 'a' have no component 'image'; choose from flo"):
        make_heat_map(study_config(), {"a": [make_run(labels, rng, ("flow",))]})
