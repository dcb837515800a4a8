"""`--mode=score`: tables, bad files, and continuing after an interruption."""

import csv
import dataclasses
import json
import os

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from jaxad import config as config_lib
from jaxad.calibration.calibration_set import CalibrationSet
from jaxad.detector import calibrated
from jaxad.detector.calibrated import CalibratedDetector, load_calibrated
from jaxad.detector.detector import Detector
from jaxad.errors import UserError
from jaxad.score import files
from jaxad.score.files import score_files
from jaxad.types import Scores

SIZE = 32


class Brightness(Detector):
    """Scores an image by its mean and its largest value; the map is the image."""

    step, num_parameters, num_latents = 7, 0, 0
    image_shape = (SIZE, SIZE, 1)
    score_weights = {"mean": 1.0, "largest": 2.0}  # noqa: RUF012

    def __init__(self, kind, **fields):
        self._config = config_lib.get_config("pchvae:smoke")
        data = self._config.data
        data.name, data.image_size = kind, SIZE
        for name, value in fields.items():
            group, _, last = name.rpartition("__")
            (data[group] if group else data)[last] = value

    @property
    def config(self):
        return self._config

    def score_batches(self, images):
        for start in range(0, len(images), 4):
            pixel = np.asarray(images[start : start + 4], np.float32)[..., 0]
            parts = {"mean": pixel.mean(axis=(1, 2)), "largest": pixel.max(axis=(1, 2))}
            yield Scores(parts["mean"] + 2 * parts["largest"], pixel, parts, {})


def normals(count=39, largest=0.1):
    """Returns normal images with means 0 to .38 and largest values .1: scores .2 to .58."""
    means, largest = np.arange(count) / 100, np.full(count, largest)
    names = tuple(f"n{number}" for number in range(count))
    components = {"mean": means, "largest": largest}
    return CalibrationSet(
        "val", True, 7, names, names, False, means + 2 * largest, components, largest
    )


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def write_images(folder, count=6):
    """Writes grey images: image n has the value 20 n, and a corner of 255."""
    for number in range(count):
        pixels = np.full((40, 40), 20 * number, np.uint8)
        pixels[:4, :4] = 255
        path = folder / f"patient{number // 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.3, -0.2, 0.15) @ np.diag([-1.2, 1.0, 2.5]), [30.0, -12.0, 7.0]
)


def write_oblique(path, turn=lambda voxels, affine: (voxels, affine)):
    """Writes a head with a bright lesion; returns the centre of the lesion in mm."""
    shape = (36, 44, 20)
    index = np.indices(shape)
    voxels = (index.sum(axis=0) % 7 + 20).astype(np.int16)
    voxels[:3], voxels[-3:], voxels[:, :3], voxels[:, -3:] = 0, 0, 0, 0
    lesion = (slice(20, 27), slice(10, 17), slice(8, 12))
    voxels[lesion] = 200
    centre = OBLIQUE @ [23.0, 13.0, 9.5, 1.0]
    voxels, affine = turn(voxels, OBLIQUE)
    image = nib.Nifti1Image(voxels, affine)
    image.set_qform(affine, code=1)
    nib.save(image, path)
    return centre[:3]


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "in")


def detector(kind="folder", stored=True, rate=0.05, **fields):
    return CalibratedDetector(Brightness(kind, **fields), normals() if stored else None, rate)


# --- Tables.


def test_every_image_gets_a_row_and_every_patient_one(images, tmp_path, capsys):
    score_files(detector(group_pattern="patient[0-9]"), images, tmp_path / "out")
    found = rows(tmp_path / "out/scores.csv")
    assert [row["id"] for row in found] == [f"patient{n // 2}/{n}.png" for n in range(6)]
    assert list(found[0]) == [
        "id", "group", "position", "score", "p_value", "anomalous", "driver", "from_mean",
        "from_largest", "mean", "largest",
    ]  # fmt: skip
    for row in found:
        parts = {name: float(row[name]) for name in ("mean", "largest")}
        assert float(row["score"]) == pytest.approx(parts["mean"] + 2 * parts["largest"])
        # Normal images have mean .19 and largest value .1 on average.
        assert float(row["from_mean"]) == pytest.approx(parts["mean"] - 0.19, abs=1e-5)
        assert float(row["from_largest"]) == pytest.approx(2 * (parts["largest"] - 0.1), abs=1e-5)
        assert row["driver"] == "largest"
        assert float(row["p_value"]) == 1 / 40 and row["anomalous"] == "1"
    patients = rows(tmp_path / "out/patients.csv")
    assert [row["group"] for row in patients] == ["patient0", "patient1", "patient2"]
    best = max(found[:2], key=lambda row: float(row["score"]))
    assert (patients[0]["score"], patients[0]["highest"]) == (best["score"], best["id"])
    assert (patients[0]["num_images"], patients[0]["num_anomalous"]) == ("2", "2")
    assert (
        "scored 6 images of 3 patients; anomalous at a false-positive rate of 0.05: 6 images"
        in (capsys.readouterr().out)
    )


def test_without_a_calibration_there_are_only_scores(images, tmp_path):
    score_files(detector(stored=False), images, tmp_path / "out", which_maps="none")
    found = rows(tmp_path / "out/scores.csv")
    assert {row["p_value"] for row in found} == {""} and "from_mean" not in found[0]
    assert rows(tmp_path / "out/patients.csv")[0]["anomalous"] == ""
    assert not (tmp_path / "out/maps").exists()


def test_an_unsupported_rate_is_rejected():
    with pytest.raises(UserError, match=r"rate of 0.01 is not supported by 39 normal patients"):
        detector(rate=0.01)


def test_bad_files_are_left_out_and_listed(images, tmp_path, capsys):
    (images / "patient0/1.png").write_bytes(b"")
    (images / "patient1/2.png").write_bytes(b"\x89PNG garbage")
    score_files(detector(), images, tmp_path / "out")
    assert len(rows(tmp_path / "out/scores.csv")) == 4
    errors = rows(tmp_path / "out/errors.csv")
    assert [row["id"] for row in errors] == ["patient0/1.png", "patient1/2.png"]
    assert "is empty (0 bytes)" in errors[0]["error"]
    assert "2 files were left out" in capsys.readouterr().err


def test_only_bad_files_are_an_error(images, tmp_path):
    for path in images.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(
        UserError, match=r"none of 6 files .*errors.csv'. The first: .*0.png: is empty"
    ):
        score_files(detector(), images, tmp_path / "out")
    assert not (tmp_path / "out/scores.csv").exists()
    assert len(rows(tmp_path / "out/errors.csv")) == 6
    # The same call begins again, because there are no scores that it could continue.
    with pytest.raises(UserError, match=r"none of 6 files"):
        score_files(detector(), images, tmp_path / "out")
    assert len(rows(tmp_path / "out/errors.csv")) == 6


def test_an_npz_file_is_scored(tmp_path):
    pixels = np.random.default_rng(0).uniform(size=(5, SIZE, SIZE)).astype(np.float32)
    groups, positions = np.array(["a", "a", "b", "b", "b"]), np.arange(5)
    np.savez(tmp_path / "a.npz", image=pixels, group=groups, position=positions)
    score_files(detector("npz"), tmp_path / "a.npz", tmp_path / "out")
    found = rows(tmp_path / "out/scores.csv")
    assert [row["id"] for row in found] == [f"a-{position}" for position in positions]
    assert [row["position"] for row in found] == list(map(str, positions))
    assert [float(row["mean"]) for row in found] == pytest.approx(pixels.mean(axis=(1, 2)).tolist())
    assert len(rows(tmp_path / "out/patients.csv")) == 2


def test_an_npz_file_needs_images_only_and_constant_ones_are_listed(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65535, (5, SIZE, SIZE)).astype(">u2")
    pixels[3] = 0
    masks = np.full(pixels.shape, -1)  # invalid in a split
    np.savez(tmp_path / "a.npz", image=pixels, mask=masks, label=np.full(5, 7))
    score_files(detector("npz"), tmp_path / "a.npz", tmp_path / "out")
    expected = np.delete(pixels, 3, axis=0).mean(axis=(1, 2)) / 65535
    found = [float(row["mean"]) for row in rows(tmp_path / "out/scores.csv")]
    assert found == pytest.approx(expected.tolist(), rel=1e-5)
    assert [row["id"] for row in rows(tmp_path / "out/errors.csv")] == ["a-3"]


@pytest.mark.parametrize(
    ("stored", "line"),
    [
        (None, "there is no calibration: scores have no p-values or decisions"),
        (
            dataclasses.replace(normals(), checkpoint_step=3),
            "was made with checkpoint 3, not 7: scores",
        ),
        (normals(9), "9 normal patients: too few for a false-positive rate of 0.05; using 0.1"),
        (normals(), ""),
    ],
)
def test_limits_of_a_calibration_are_reported(stored, line, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(calibrated, "load", lambda path, checkpoint: Brightness("folder"))
    monkeypatch.setattr(calibrated, "read_calibration_set", lambda path: stored)
    found = load_calibrated(tmp_path, None)
    told = capsys.readouterr().err
    assert line in told and (line or not told)
    assert found.rate == (pytest.approx(0.1) if "using 0.1" in line else 0.05)
    if stored is not None and stored.checkpoint_step == 7 and len(stored.ids) == 9:
        with pytest.raises(UserError, match="is not supported by 9 normal patients"):
            load_calibrated(tmp_path, 0.05)


@pytest.mark.parametrize("rate", [0.0, 1.0, 7.0, float("nan")])
def test_a_rate_is_between_0_and_1(rate):
    with pytest.raises(UserError, match="choose one between 0 and 1"):
        detector(stored=False, rate=rate)


def test_a_patient_of_one_image_has_its_p_value(tmp_path):
    """Includes ties with normal images: scores are float32, texts have fewer digits."""
    stored = normals()
    pixels = np.random.default_rng(3).uniform(0.1, 0.3, (20, SIZE, SIZE)).astype(np.float32)
    scores = np.concatenate(
        [found.image for found in Brightness("npz").score_batches(pixels[..., None])]
    )
    tied = dataclasses.replace(stored, scores=np.resize(scores, 39).astype(np.float64))
    np.savez(tmp_path / "a.npz", image=pixels)
    score_files(
        CalibratedDetector(Brightness("npz"), tied, 0.05), tmp_path / "a.npz", tmp_path / "out"
    )
    by_image = {row["group"]: row["p_value"] for row in rows(tmp_path / "out/scores.csv")}
    by_patient = {row["group"]: row["p_value"] for row in rows(tmp_path / "out/patients.csv")}
    assert by_image == by_patient


def test_other_formats_are_listed_and_masks_are_not_scored(images, tmp_path):
    (images / "ground_truth").mkdir()
    Image.new("L", (9, 9)).save(images / "patient0/thumb.gif")
    score_files(detector(), images, tmp_path / "out")
    assert [row["id"] for row in rows(tmp_path / "out/errors.csv")] == ["patient0/thumb.gif"]
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in ("a.nii.gz", "a_mask.nii.gz", "b_label.nii.gz"):
        write_oblique(scans / name)
    score_files(detector("nifti"), scans, tmp_path / "out2", which_maps="none")
    assert {row["group"] for row in rows(tmp_path / "out2/scores.csv")} == {
        "a.nii.gz", "b_label.nii.gz",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["._x.npz", "._x.png", "Thumbs.db", ".x.nii.gz"])
def test_a_hidden_file_is_not_scored(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match="is a hidden file, probably made by the operating system"):
        score_files(detector(), tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_masks_are_left_out_and_not_scored(images, tmp_path, capsys):
    for place in ("Ground_Truth/a.png", "patient0/0_mask.png", "patient1/masks/2.png"):
        (images / place).parent.mkdir(exist_ok=True)
        Image.fromarray(np.eye(40, dtype=np.uint8) * 255).save(images / place)
    score_files(detector(), images, tmp_path / "out", which_maps="none")
    assert len(rows(tmp_path / "out/scores.csv")) == 6
    assert "left out 3 of 9 files, which are masks" in capsys.readouterr().err


def test_names_that_are_not_utf_8_are_accepted(images, tmp_path):
    name = os.fsdecode(b"M\xfcller.png")
    (images / "patient0/0.png").rename(images / "patient0" / name)
    for _ in range(2):
        score_files(detector(), images, tmp_path / "out")
    table = (tmp_path / "out/scores.csv").read_text(encoding="utf-8")
    assert r"M\xfcller.png" in table  # valid UTF-8


def test_a_table_needs_paths_only_and_its_other_columns_are_kept(images, tmp_path, capsys):
    table = tmp_path / "elsewhere/list.csv"
    table.parent.mkdir()
    lines = [f'{images}/patient0/{n}.png,{n},?, x,"y\r{n}",z' for n in range(2)]
    head = "path,position,label,p_value,Extra_P_Value,score"
    table.write_text("\n".join([head, *lines]))
    with pytest.raises(UserError, match="0.png' is outside .*; set --allow_outside_root=True, or"):
        score_files(detector(), table, tmp_path / "out")
    with pytest.raises(UserError, match="0.png' is outside"):  # the run's own table may
        score_files(detector(allow_outside_root=True), table, tmp_path / "out")
    score_files(detector(), table, tmp_path / "out", which_maps="none", allow_outside_root=True)
    assert "extra column 'p_value' is written as 'extra_extra_p_value'" in capsys.readouterr().out
    found = rows(tmp_path / "out/scores.csv")
    assert list(found[0])[:8] == [
        "id", "group", "position", "label", "extra_extra_p_value", "Extra_P_Value", "extra_score",
        "score",
    ]  # fmt: skip
    row = found[1]
    assert row["id"] == f"{images}/patient0/1.png" and row["position"] == "1"
    assert (row["label"], row["extra_extra_p_value"], row["Extra_P_Value"]) == ("?", " x", "y\r1")
    assert float(row["score"]) > 0 and 0 < float(row["p_value"]) <= 1
    table.write_text("\n".join([head, *lines]).replace("?", "0"))
    with pytest.raises(UserError, match="holds scores of another input"):
        score_files(detector(), table, tmp_path / "out", which_maps="none", allow_outside_root=True)


def test_reading_a_table_takes_the_same_permission(images, tmp_path):
    table = tmp_path / "elsewhere/list.csv"
    table.parent.mkdir()
    table.write_text(f"path\n{images}/patient0/0.png\n")
    own = detector(allow_outside_root=True).detector
    with pytest.raises(UserError, match="0.png' is outside .*; set allow_outside_root=True, or"):
        own.read(table)
    assert len(own.read(table, allow_outside_root=True)) == 1


# --- Continuing.


def test_an_interrupted_run_continues_with_identical_results(images, tmp_path, monkeypatch):
    monkeypatch.setitem(files._BLOCK, "image", 2)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    score_files(detector(), images, whole)
    original, calls = files._score_block, []

    def stops(*arguments):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return original(*arguments)

    monkeypatch.setattr(files, "_score_block", stops)
    with pytest.raises(KeyboardInterrupt):
        score_files(detector(), images, broken)
    assert not (broken / "patients.csv").exists()
    # Killed in the middle of a line.
    with (broken / "scores.csv").open("a") as file:
        file.write("patient2/4.png,pat")
    monkeypatch.setattr(files, "_score_block", original)
    score_files(detector(), images, broken)
    for name in ("scores.csv", "patients.csv", "errors.csv"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()
    score_files(detector(), images, broken)  # a third time changes nothing
    assert (broken / "scores.csv").read_bytes() == (whole / "scores.csv").read_bytes()


# --- Scans.


def test_all_slices_of_a_scan_are_scored_with_their_positions(tmp_path):
    write_oblique(tmp_path / "scan.nii.gz")
    score_files(detector("nifti"), tmp_path / "scan.nii.gz", tmp_path / "out", which_maps="none")
    found = rows(tmp_path / "out/scores.csv")
    assert [row["position"] for row in found] == [str(number) for number in range(20)]
    assert {row["group"] for row in found} == {"scan.nii.gz"}
    highest = rows(tmp_path / "out/patients.csv")[0]["highest"]
    assert 8 <= int(highest.rpartition("-")[2]) <= 11


def test_the_task_is_stored(images, tmp_path):
    score_files(detector(), images, tmp_path / "out", name="run at step 7")
    task = json.loads((tmp_path / "out/progress.json").read_text())["task"]
    assert task["detector"] == "run at step 7" and task["rate"] == 0.05


def test_a_background_of_noise_that_is_normalised_over_is_reported(tmp_path, capsys):
    write_oblique(tmp_path / "clean.nii.gz")
    scan = nib.load(tmp_path / "clean.nii.gz")
    noise = np.random.default_rng(0).integers(1, 5, scan.shape)
    noisy = (np.asarray(scan.dataobj) + noise).astype(np.int16)
    nib.save(nib.Nifti1Image(noisy, scan.affine), tmp_path / "noisy.nii.gz")
    nib.save(nib.Nifti1Image(noisy, scan.affine), tmp_path / "too.nii.gz")
    for foreground, reported in (("nonzero", True), ("otsu", False)):
        scorer = detector("nifti", preprocess__foreground=foreground)
        score_files(scorer, tmp_path, tmp_path / foreground, which_maps="none")
        lines = capsys.readouterr().err.splitlines()
        # One line for the command, not one for each file.
        found = [line for line in lines if "the background is noise instead of 0" in line]
        assert len(found) == reported
        if reported:
            assert f"{tmp_path}: in 2 of 3 files" in found[0]
            assert "the first: 'noisy.nii.gz'. Set the background of these files to 0" in found[0]
