"""The data for the page's scripts equal the scores, p-values and thresholds of Python."""

import numpy as np
import pytest
from fake_runs import add_calibration, add_scores, make_metrics, make_workdir

from jaxad.evaluate import thresholds
from jaxad.report.interactive import interactive_view
from jaxad.report.run_files import read_run
from jaxad.storage.workdir import write_json

LABELS = np.array([0, 0, 0, 0, 1, 0, 1, 1])
SCORES = np.array([1.0, 2.0, 0.5, 0.25, 3.0, 0.125, 1.5, 4.0])
GROUPS = ["b", "b", "a", "a", "c", "c", "d", "d"]


def view_of(workdir, rate=0.05):
    return interactive_view(read_run(workdir).splits["test_a"], rate)


@pytest.fixture
def workdir(tmp_path):
    workdir = make_workdir(tmp_path)
    add_scores(workdir, "test_a", LABELS, SCORES, groups=GROUPS, positions=range(8))
    write_json(workdir.evaluation("test_a") / "metrics.json", make_metrics())
    return workdir


def test_patients_are_their_highest_slices(workdir):
    calibration = add_calibration(workdir, np.arange(19) / 10, [f"n{i}" for i in range(19)])
    view = view_of(workdir, rate=0.1)
    rows = [
        tuple(row[name] for name in ("name", "label", "slices", "anomalous", "score", "position"))
        for row in view["patients"]
    ]
    assert rows == [("d", 1, 2, 2, 4.0, 7), ("c", 1, 2, 1, 3.0, 4), ("b", 0, 2, 0, 2.0, 1),
                    ("a", 0, 2, 0, 0.5, 2)]  # fmt: skip
    p_values = [row["p_value"] for row in view["patients"]]
    assert p_values == calibration.patient_p_values(np.array([4.0, 3.0, 2.0, 0.5])).tolist()
    assert [row["flagged"] for row in view["patients"]] == [True, True, True, False]


def test_thresholds_to_begin_with(workdir):
    view = view_of(workdir)
    best = thresholds.best_f1(LABELS, SCORES).threshold
    # Without a calibration, the threshold is the best one for these labels.
    assert view["stored"] is None and view["data"]["units"]["image"]["steps"] is None
    assert view["units"]["image"] == view["units"]["image"] | {"threshold": best, "best": best}
    calibration = add_calibration(workdir, np.arange(9) / 10, [f"n{i}" for i in range(9)])
    view = view_of(workdir)
    assert view["units"]["image"]["threshold"] == calibration.image_threshold(0.1)
    assert view["stored"].calibration.smallest_rate == 0.1


def test_one_class_has_no_best_threshold(tmp_path):
    workdir = make_workdir(tmp_path)
    add_scores(workdir, "test_a", np.zeros(3, int), [1.0, 1.0, 1.0])
    view = view_of(workdir)
    assert view["units"]["image"]["best"] is None and view["units"]["image"]["threshold"] == 1.0
    assert [shown["name"] for shown in view["units"]["image"]["histogram"]["classes"]] == ["normal"]


def test_scores_that_are_not_finite_are_left_out(tmp_path):
    workdir = make_workdir(tmp_path)
    add_scores(workdir, "test_a", [0, 1, 1], [1.0, np.nan, 2.0], groups=["a", "b", "c"])
    assert view_of(workdir)["data"]["patients"] == ["a", "c"]


def test_the_histogram_holds_every_score(workdir):
    plot = view_of(workdir)["units"]["image"]["histogram"]
    assert (plot["low"], plot["high"]) == (0.125, 4.0)
    assert {shown["name"]: shown["count"] for shown in plot["classes"]} == {
        "normal": 5,
        "anomalous": 3,
    }
    assert all(0 <= tick["x"] <= plot["width"] for tick in plot["ticks"])
