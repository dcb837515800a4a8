"""Heat maps: AUROC of a mixture of two parts, from the scores that runs wrote."""

import csv

import numpy as np
import pytest
from ml_collections import ConfigDict
from sklearn.metrics import roc_auc_score

from jaxad import config as config_lib
from jaxad.errors import UserError
from jaxad.report import figures
from jaxad.storage.workdir import Workdir
from jaxad.study.heat_map import COLUMNS, make_heat_map
from jaxad.study.plan import PlannedRun
from jaxad.types import Split

COUNT = 40


def split_of(labels):
    names = tuple(map(str, range(len(labels))))
    images = np.zeros((len(labels), 8, 8, 1), np.float32)
    return Split(images, labels.astype(np.int32), names, names)


@pytest.fixture
def labels(rng):
    return rng.integers(0, 2, COUNT)


def write_run(folder, experiment, seed, labels, rng, columns=("flow", "image")):
    run = PlannedRun(experiment, seed, ConfigDict(), Workdir(folder / experiment / str(seed)))
    target = run.workdir.evaluation("test_x")
    target.mkdir(parents=True)
    parts = {name: rng.normal(size=COUNT) + labels * 0.7 for name in columns}
    with (target / "scores.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["label", *parts])
        writer.writerows(zip(labels, *parts.values(), strict=True))
    return run, parts


def study_config():
    config = config_lib.study({"a": config_lib.get_config("lowvae:smoke")}, seeds=(0,))
    config.heat_map.rows, config.heat_map.row_values = ("a", "b", "c"), (0.0, 0.5, 1.0)
    config.heat_map.row_name, config.heat_map.column_name = "alpha", "beta"
    config.heat_map.parts = ("flow", "image")
    return config


def test_a_cell_is_the_mean_over_runs_of_the_mixtures_auroc(tmp_path, labels, rng):
    found = {name: [write_run(tmp_path, name, s, labels, rng) for s in (0, 1)] for name in "ac"}
    finished = {name: [run for run, _ in runs] for name, runs in found.items()}
    heat_map = make_heat_map(study_config(), finished, "test_x", split_of(labels))
    assert heat_map is not None
    assert heat_map.rows == (0.0, 1.0)  # `b` is not finished
    for row, name in enumerate("ac"):
        for column, w in enumerate(COLUMNS):
            expected = np.mean(
                [
                    roc_auc_score(labels, w * parts["flow"] + (1 - w) * parts["image"])
                    for _, parts in found[name]
                ]
            )
            np.testing.assert_allclose(heat_map.values[row, column], expected)
    lines = heat_map.comma_separated().splitlines()
    assert lines[0] == "alpha \\ beta,0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1"
    assert [line.split(",")[0] for line in lines[1:]] == ["0", "1"]
    assert figures.to_png(heat_map.figure("test_x"))[:4] == b"\x89PNG"


def test_there_is_no_map_where_none_is_asked_for_or_there_is_one_class(tmp_path, labels, rng):
    finished = {"a": [write_run(tmp_path, "a", 0, labels, rng)[0]]}
    config = study_config()
    assert make_heat_map(config, finished, "test_x", split_of(np.zeros(COUNT))) is None
    assert make_heat_map(config, {}, "test_x", split_of(labels)) is None
    config.heat_map.rows, config.heat_map.row_values = (), ()
    assert make_heat_map(config, finished, "test_x", split_of(labels)) is None


def test_a_part_that_is_not_there_is_told(tmp_path, labels, rng):
    finished = {"a": [write_run(tmp_path, "a", 0, labels, rng, columns=("flow",))[0]]}
    with pytest.raises(UserError, match="no heat map of it .KeyError..image"):
        make_heat_map(study_config(), finished, "test_x", split_of(labels))
