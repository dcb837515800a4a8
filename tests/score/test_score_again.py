"""Scoring into a folder of scores again, and of images that the run learnt from."""

import numpy as np
import pytest
from test_score import Brightness, detector, normals, rows, write_images

from jaxad.detector.calibrated import CalibratedDetector
from jaxad.errors import UserError
from jaxad.score.files import score_files
from jaxad.score.tables import Tables
from jaxad.storage.workdir import Workdir, write_json


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "in")


def counted(monkeypatch):
    """Counts the batches of images that a detector scores, apart from the one for its columns."""
    calls, real = [], Brightness.score_batches

    def score_batches(self, images):
        calls.extend([len(images)] if np.any(images) else [])
        return real(self, images)

    monkeypatch.setattr(Brightness, "score_batches", score_batches)
    return calls


def calibrated(rate=0.05, count=39):
    """Returns a detector with normal images of scores 2 to 2 + count / 100, like the images'."""
    return CalibratedDetector(Brightness("folder"), normals(count, largest=1.0), rate)


#: The detectors of two calls, and their maps.
CHANGES = {
    "another rate": (calibrated(), calibrated(rate=0.5), "all"),
    "another calibration": (calibrated(), calibrated(count=24), "none"),
    "a calibration": (detector(stored=False), calibrated(), "none"),
    "no calibration": (calibrated(), detector(stored=False), "none"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_stored_scores_are_decided_on_again(images, tmp_path, monkeypatch, capsys, change):
    first, second, maps = CHANGES[change]
    (images / "bad.png").write_bytes(b"")
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    score_files(first, images, out, which_maps=maps, name="a")
    score_files(second, images, fresh, which_maps=maps, name="a")
    assert (out / "scores.csv").read_bytes() != (fresh / "scores.csv").read_bytes()
    calls = counted(monkeypatch)
    capsys.readouterr()
    score_files(second, images, out, which_maps=maps, name="a")
    assert calls == [] and "decided again on 6 stored scores" in capsys.readouterr().out
    for name in ("scores.csv", "patients.csv", "errors.csv", "progress.json"):
        assert (out / name).read_bytes() == (fresh / name).read_bytes()


def test_a_kill_while_decisions_are_made_again_loses_nothing(images, tmp_path, monkeypatch):
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    score_files(calibrated(), images, out)
    score_files(calibrated(rate=0.5), images, fresh)
    real = Tables._decide_again

    def killed(self, decide):
        real(self, decide)
        raise KeyboardInterrupt  # the table is new, and the record of it is not written

    monkeypatch.setattr(Tables, "_decide_again", killed)
    with pytest.raises(KeyboardInterrupt):
        score_files(calibrated(rate=0.5), images, out)
    monkeypatch.undo()
    score_files(calibrated(rate=0.5), images, out)
    assert (out / "scores.csv").read_bytes() == (fresh / "scores.csv").read_bytes()


def test_maps_of_anomalous_images_depend_on_the_rate(images, tmp_path):
    out = tmp_path / "out"
    score_files(calibrated(), images, out, which_maps="anomalous")
    with pytest.raises(UserError, match="holds scores of another rate; choose another folder"):
        score_files(calibrated(rate=0.5), images, out, which_maps="anomalous")


def test_a_column_that_another_calibration_adds_is_refused_in_the_same_folder(images, tmp_path):
    # Without a calibration `from_mean` keeps its name; with one, it gets a prefix.
    table = images / "list.csv"
    table.write_text("path,from_mean\npatient0/0.png,a\n")
    out = tmp_path / "out"
    score_files(detector(stored=False), table, out, which_maps="none")
    assert rows(out / "scores.csv")[0]["from_mean"] == "a"
    with pytest.raises(UserError, match="holds scores of another set of columns"):
        score_files(calibrated(), table, out, which_maps="none")


def test_an_output_folder_inside_the_input_is_not_scored(images, capsys):
    for out in (images / "scored", images):
        for _ in range(2):
            score_files(detector(), images, out)
        assert len(rows(out / "scores.csv")) == 6
        assert capsys.readouterr().out.count("scored 6 images") == 2
        assert (out / "maps").is_dir()


def test_images_that_were_learnt_from_are_reported(images, tmp_path, capsys):
    run = Workdir(tmp_path / "run")
    members = {"images": 2, "order_of_images": ""}
    train = {**members, "patients": ["patient0/0.png", "patient0/1.png"]}
    write_json(run.splits, {"train": train, "val": {**members, "patients": ["patient1/2.png"]}})
    own = detector(root=str(images))
    score_files(own, images / "patient0", tmp_path / "a", run=run)
    assert (
        "2 of 2 images are of patients that the run was trained or calibrated on, such as '0.png'"
        in (capsys.readouterr().err)
    )
    score_files(own, images, tmp_path / "b", run=run)
    assert "3 of 6 images are of patients" in capsys.readouterr().err
    score_files(own, images / "patient2", tmp_path / "c", run=run)
    others = write_images(tmp_path / "others")  # the same names at another site
    score_files(own, others, tmp_path / "d", run=run)
    assert capsys.readouterr().err == ""
    named = detector(root=str(images), group_pattern="patient[0-9]")
    write_json(run.splits, {"train": {**train, "patients": ["patient2"]}, "val": train})
    score_files(named, others, tmp_path / "e", run=run)
    assert "2 of 6 images are of patients" in capsys.readouterr().err
    # Own files are found by their path if another pattern gives other names.
    score_files(named, images, tmp_path / "f", run=run, group_pattern="t([0-9])")
    assert "2 of 6 images are of patients" in capsys.readouterr().err
    assert {row["group"] for row in rows(tmp_path / "f/scores.csv")} == {"0", "1", "2"}


def test_archives_without_patients_are_told_apart_by_their_place(tmp_path, capsys):
    run, own = Workdir(tmp_path / "run"), tmp_path / "own"
    members = {"images": 2, "order_of_images": "", "patients": ["val-0", "val-1"]}
    write_json(run.splits, {"train": {**members, "patients": ["train-0"]}, "val": members})
    for folder in (own, tmp_path / "other"):
        folder.mkdir()
        np.savez(folder / "val.npz", image=np.random.default_rng(0).random((2, 32, 32), np.float32))
    prepared = detector("npz", root=str(own))
    score_files(prepared, tmp_path / "other/val.npz", tmp_path / "a", run=run)
    assert capsys.readouterr().err == ""
    score_files(prepared, own / "val.npz", tmp_path / "b", run=run)
    assert "2 of 2 images are of patients that the run was trained" in capsys.readouterr().err


def test_an_attempt_that_scored_nothing_does_not_block_the_folder(images, tmp_path):
    bad, out = tmp_path / "bad", tmp_path / "out"
    bad.mkdir()
    (bad / "x.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="none of 1 file has a score"):
        score_files(detector(), bad, out, name="a")
    assert (out / "errors.csv").exists()
    score_files(detector(), images, out, name="b")
    assert len(rows(out / "scores.csv")) == 6 and not rows(out / "errors.csv")


def test_scores_of_another_task_are_not_mixed(images, tmp_path):
    out = tmp_path / "out"
    score_files(detector(), images, out, name="a")
    with pytest.raises(UserError, match="holds scores of another detector; choose another"):
        score_files(detector(), images, out, name="b")
    with pytest.raises(UserError, match="holds scores of another calibration"):
        score_files(
            CalibratedDetector(Brightness("folder"), normals(49), 0.05), images, out, name="a"
        )
    words = r"another assignment of files to patients \(--group_pattern"
    with pytest.raises(UserError, match=words):
        score_files(detector(), images, out, name="a", group_pattern=r"patient\d")
    write_images(tmp_path / "others")
    with pytest.raises(UserError, match="holds scores of another input"):
        score_files(detector(), tmp_path / "others", out, name="a")
    (images / "patient0/1.png").unlink()
    with pytest.raises(UserError, match="holds scores of another input"):
        score_files(detector(), images, out, name="a")
    (out / "progress.json").write_text("{")
    with pytest.raises(UserError, match=r"progress.json' cannot be read"):
        score_files(detector(), images, out, name="a")
    (out / "progress.json").unlink()
    with pytest.raises(UserError, match="already holds a scores.csv; choose another folder"):
        score_files(detector(), images, out, name="a")
