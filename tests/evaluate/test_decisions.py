"""Calibration sets on disk, and the reported figures of decisions."""

import dataclasses
import json

import numpy as np
import pytest

from jaxad.calibration.calibration_set import (
    make_calibration_set,
    read_calibration_set,
    write_calibration_set,
)
from jaxad.detector import restored
from jaxad.detector.load import load_calibration
from jaxad.errors import UserError
from jaxad.evaluate import decisions
from jaxad.report.sections import decision_rows
from jaxad.storage.workdir import Workdir
from jaxad.types import Split


def normals(patients, slices=2, scale=1.0):
    count = patients * slices
    split = Split(
        images=np.zeros((count, 4, 4, 1), np.uint8),
        labels=np.zeros(count, np.int32),
        ids=tuple(f"{number}, 'x'" for number in range(count)),
        groups=tuple(f"p{number // slices}" for number in range(count)),
    )
    return split, (scale * np.arange(count)).astype(np.float32)


@pytest.fixture
def workdir(tmp_path):
    return Workdir(tmp_path)


def write(workdir, split, scores, source=None, step=7):
    maxima = np.zeros_like(scores)
    made = make_calibration_set(source, step, split, scores, {"nll": scores}, maxima)
    write_calibration_set(workdir.calibration, made)
    return made


def store(workdir, patients, *, source=None, step=7, **changes):
    return write(workdir, *normals(patients, **changes), source, step)


def test_a_calibration_is_read_as_it_was_written(workdir):
    assert read_calibration_set(workdir.calibration) is None
    written = store(workdir, 30, scale=0.1, source="b/site.npz")
    found = read_calibration_set(workdir.calibration)
    assert (found.source, found.name, found.is_own) == ("b/site.npz", "site.npz", False)
    assert found.checkpoint_step == 7
    assert (found.ids, found.groups) == (written.ids, written.groups)
    np.testing.assert_array_equal(found.scores, written.scores)
    ours, theirs = found.calibration, written.calibration
    assert ours.num_patients == 30
    assert ours.patient_threshold(0.1) == theirs.patient_threshold(0.1)


def test_a_new_calibration_replaces_the_old_one(workdir):
    store(workdir, 30)
    before = read_calibration_set(workdir.calibration).calibration.image_threshold(0.1)
    store(workdir, 30, scale=2.0)
    assert read_calibration_set(workdir.calibration).calibration.image_threshold(0.1) == 2 * before


def test_a_calibration_is_of_the_checkpoint_that_scored_it(workdir, monkeypatch):
    step = 7
    monkeypatch.setattr(restored, "checkpoint_step", lambda *_: step)
    with pytest.raises(UserError, match="has no calibration; write it with --mode=evaluate"):
        load_calibration(workdir.path)
    stored = store(workdir, 30)
    found = load_calibration(workdir.path)
    assert found.image_threshold(0.1) == stored.calibration.image_threshold(0.1)
    step = 8
    with pytest.raises(UserError, match="was made with checkpoint 7, not 8; --mode=evaluate"):
        load_calibration(workdir.path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"scores"', '"score"'),
        lambda text: text.replace("0.0", '"high"'),
        lambda text: text.replace("0.0,", "", 1),
        lambda text: "[1, 2]",
    ],
)
def test_a_damaged_calibration_is_reported_with_its_path(workdir, damage):
    store(workdir, 3)
    text = workdir.calibration.read_text()
    assert damage(text) != text
    workdir.calibration.write_text(damage(text))
    with pytest.raises(UserError, match=r"calibration\.json' cannot be read .*--mode=evaluate"):
        read_calibration_set(workdir.calibration)


def test_scores_that_are_not_finite_replace_nothing(workdir):
    store(workdir, 3)
    before = workdir.calibration.read_bytes()
    split, scores = normals(3)
    with pytest.raises(UserError, match="not finite"):
        write(workdir, split, np.full_like(scores, np.nan))
    assert workdir.calibration.read_bytes() == before


def test_an_unsupported_rate_is_replaced_by_the_smallest_with_a_message(workdir):
    stored = store(workdir, 9)
    assert "9 normal patients (val)" in decisions.summary(stored, 0.05)
    assert "a false-positive rate of 0.05 needs 19 patients" in decisions.summary(stored, 0.05)
    assert "at a false-positive rate of 0.1 an image" in decisions.summary(stored, 0.1)
    labels, groups = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1])
    scores = np.array([0.0, 1.0, 99.0, 2.0])
    found = decisions.of_normals(stored.calibration, 0.05, labels, scores, groups, 50)
    assert (found["requested_rate"], found["rate"]) == (0.05, pytest.approx(0.1))
    # Nine patients: p is 1/10 only above all 18 scores, 0 to 17.
    assert found["image"]["threshold"] == found["patient"]["threshold"] == 17.0
    for unit, sensitivity in (("image", 0.5), ("patient", 1.0)):
        assert found[unit]["sensitivity"]["value"] == sensitivity
        assert found[unit]["specificity"]["value"] == 1.0
        assert found[unit]["realised_rate"] == 0.0


def test_the_realised_rate_is_over_normal_patients_of_equal_weight(workdir):
    calibration = store(workdir, 9).calibration  # calls above 17
    # p0: 1 of 2 slices called; p1: 1 of 4; p2 has an anomalous slice: not covered.
    groups = np.array([0, 0, 1, 1, 1, 1, 2, 2])
    scores = np.array([18.0, 0.0, 18.0, 0.0, 0.0, 0.0, 18.0, 18.0])
    labels = np.array([0, 0, 0, 0, 0, 0, 0, 1])
    found = decisions.of_normals(calibration, 0.1, labels, scores, groups, 50)
    assert found["normal_patients"] == 2
    assert found["image"]["realised_rate"] == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert found["patient"]["realised_rate"] == 1.0
    # Of all normal slices, 3 of 7 are called.
    assert found["image"]["specificity"]["value"] == pytest.approx(1 - 3 / 7)
    anomalous = decisions.of_normals(calibration, 0.1, np.ones(8, np.int64), scores, groups, 50)
    assert anomalous["image"]["realised_rate"] is anomalous["patient"]["realised_rate"] is None


def test_decisions_are_json_and_rows_of_the_report(workdir):
    calibration = store(workdir, 40).calibration
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 5)
    labels = np.tile([0, 0, 1, 0, 1], 20)
    scores = 80 * rng.uniform(size=100) + 20 * labels
    found = {
        "calibration": "val",
        "images_are_patients": False,
        "normal_images_only": decisions.of_normals(calibration, 0.05, labels, scores, groups, 50),
        **decisions.of_labels(labels, scores, groups, 50),
        "pixel_statistics": decisions.of_labels(labels, -scores, groups, 50)["best_on_test"],
    }
    again = json.loads(json.dumps(found, allow_nan=False))
    rows = decision_rows({"decisions": again})
    assert [row["f1"]["value"] for row in rows] == [
        found["best_on_test"]["f1"]["value"],
        found["five_fold"]["mean"]["f1"],
        found["normal_images_only"]["image"]["f1"]["value"],
        found["normal_images_only"]["patient"]["f1"]["value"],
        found["pixel_statistics"]["f1"]["value"],
        pytest.approx(2 * 40 / 140),
    ]
    assert rows[0]["f1"]["low"] < rows[0]["f1"]["value"] < rows[0]["f1"]["high"]
    # Every patient is anomalous: specificity by patient is undefined.
    assert rows[3]["specificity"]["value"] is None
    assert decision_rows({}) == []


def test_with_one_class_there_are_only_thresholds_from_normal_images(workdir):
    calibration = store(workdir, 40).calibration
    labels, scores = np.zeros(4, np.int64), np.arange(4.0)
    own = decisions.of_normals(calibration, 0.05, labels, scores, np.arange(4), 50)
    found = {"calibration": "val", "images_are_patients": True, "normal_images_only": own}
    rows = decision_rows({"decisions": found})
    assert len(rows) == 2
    assert "each image counted as a patient" in rows[0]["note"]
    assert "observed 0 % in 4 normal patients" in rows[0]["note"]


def test_images_without_patients_are_reported(workdir):
    split, scores = normals(30, slices=1)
    given = write(workdir, split, scores)
    assert "Every image" not in decisions.summary(given, 0.1)  # one image each of known patients
    stored = write(workdir, dataclasses.replace(split, unnamed=frozenset(split.groups)), scores)
    assert stored.is_own and "Every image counts as a separate patient" in decisions.summary(
        stored, 0.1
    )
    assert "Every image" not in decisions.summary(store(workdir, 30), 0.1)
