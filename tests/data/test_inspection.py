"""`--mode=inspect`: facts about splits, bad files and leaks."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from user_files import data_config, write_image, write_scan

from jaxad.data.replay import find_items


def test_inspect_prints_counts_sizes_and_ranges_and_draws_a_sheet(mvtec, look):
    code, out, err, workdir = look(mvtec)
    assert (code, err) == (0, "")
    head, train, val, test, patients, sheet = out.splitlines()
    assert head.split()[:5] == ["split", "images", "normal", "anomalous", "patients"]
    assert " ".join(train.split()) == "train 9 9 0 9 0 9 0 0 20x20 (9) 100 to 110"
    assert val.split()[:3] == ["val", "1", "1"]
    assert " ".join(test.split()) == "test 4 2 2 4 2 4 0 0 20x20 (4) 130 to 142"
    assert patients == (
        "note: folder: no patient is known: every file counts as one; if patients have several, "
        "set config.data.group_pattern or a column group of a table."
    )
    assert sheet == f"contact sheet: {workdir / 'inspect.png'}"
    found = json.loads((workdir / "inspect.json").read_text())
    assert found["leaks"] == [] and found["splits"]["test"]["anomalous"] == 2
    # All but one of 20 x 20 pixels are 130, 131, 140 or 141 of 255.
    assert found["splits"]["test"]["mean"] == pytest.approx(135.5 / 255, abs=1e-3)
    with Image.open(workdir / "inspect.png") as image:
        assert image.width > image.height > 200


def test_the_same_picture_in_two_splits_is_a_leak_in_any_format(mvtec, look):
    write_image(mvtec / "val/good/0.png", 160)
    with Image.open(mvtec / "train/good/03.png") as image:
        image.save(mvtec / "test/good/another name.tiff")
    shutil.copy(mvtec / "train/good/04.png", mvtec / "train/good/04 again.png")
    code, out, err, workdir = look(mvtec)
    assert code == 2
    assert "leak: 1 image both in train and in test: train/good/03.png = test/good/another" in out
    assert "note: train: 1 image repeats another one." in out
    assert err.startswith("error: folder: splits leak, as listed above. Keep each patient in one")
    assert "leave copies out of train and val with --config.data.duplicates=leave_out." in err
    assert json.loads((workdir / "inspect.json").read_text())["leaks"][0]["kind"] == "image"
    code, _, err, _ = look(mvtec, "--config.data.duplicates=leave_out")
    assert code == 0 and "note: folder train: 2 images left out as a copy of another one" in err


def test_an_inspection_is_not_written_among_images(mvtec, look):
    before = sorted(mvtec.rglob("*"))
    code, _, err, _ = look(mvtec, f"--workdir={mvtec / 'train/good'}")
    assert code == 2 and err.startswith(
        f"error: workdir '{mvtec / 'train/good'}': holds data, such"
    )
    assert sorted(mvtec.rglob("*")) == before


def test_the_files_of_an_inspection_are_no_data(mvtec, look):
    code, out, _, _ = look(mvtec, f"--workdir={mvtec}")
    assert code == 0 and (mvtec / "inspect.png").exists()
    assert look(mvtec, f"--workdir={mvtec}")[:3] == (0, out, "")
    assert len(find_items(mvtec, data_config("elsewhere"))) == 14  # and two masks


def test_duplicates_are_listed_completely(mvtec, look):
    write_image(mvtec / "val/good/0.png", 160)
    for copy in ("train/good/05.png", "train/good/06.png", "test/good/x.png"):
        shutil.copy(mvtec / "train/good/04.png", mvtec / copy)  # neighbours, but not the last
    shutil.copy(mvtec / "train/good/08.png", mvtec / "train/good/09.png")
    code, out, _, workdir = look(mvtec)
    assert code == 2
    assert "note: 6 images have a copy (2 different images); duplicates.csv lists all" in out
    assert "1 of the 2 are repeated only in consecutive images, as neighbouring slices" in out
    head, *rows = csv.reader((workdir / "duplicates.csv").read_text().splitlines())
    assert head == ["hash", "split", "id"]
    names = [("train", f"train/good/0{number}.png") for number in (4, 5, 6, 8, 9)]
    assert sorted(tuple(row[1:]) for row in rows) == [("test", "test/good/x.png"), *names]
    assert len({row[0] for row in rows}) == 2 and rows[0][0] == rows[3][0]
    # Without the copy in another split it is no leak, and nothing else changes.
    (mvtec / "test/good/x.png").unlink()
    code, out, _, _ = look(mvtec)
    assert code == 0 and "2 of the 2 are repeated only in consecutive images" in out


def test_a_patient_in_two_splits_is_a_leak(mvtec, look):
    for number in range(2):
        write_image(mvtec / f"val/good/{number}.png", 160 + number)
    code, out, _, _ = look(mvtec, r"--config.data.group_pattern=(\d)\.png|crack")
    assert code == 2
    assert "leak: 2 patients both in train and in val: 0, 1" in out
    assert "leak: 1 patient both in train and in test" not in out  # it is two
    assert "leak: 2 patients both in train and in test: 0, 1" in out


def test_files_in_other_formats_are_counted(mvtec, look):
    others = [mvtec / "train/good/a.gif", mvtec / "train/good/b.webp", mvtec / "test/good/c.dcm"]
    for path in (*others, mvtec / "notes.txt", mvtec / "README", mvtec / "test/list.xml"):
        path.write_text("something")
    counted = f"{mvtec}: 5 files are not read: 1 .dcm, 1 .gif, 1 .webp, 1 .txt, 1 .xml;"
    code, out, err, workdir = look(mvtec)
    note, error = err.splitlines()
    assert code == 2 and "contact sheet" in out
    assert note == f"note: {counted} the first: 'test/good/c.dcm'."
    assert error.startswith(f"error: {counted}")
    assert counted in json.loads((workdir / "inspect.json").read_text())["unread"][0]
    # Both suggested remedies work.
    code, _, err, _ = look(mvtec, "--config.data.on_error=skip")
    assert (code, err.count("\n")) == (0, 1)
    for number, path in enumerate(others):
        write_image(path.with_suffix(".png"), 170 + number)
        path.unlink()
    code, out, err, _ = look(mvtec)
    assert (code, err.count("\n")) == (0, 1)
    assert "2 files are not read: 1 .txt, 1 .xml" in err


def test_all_bad_files_are_named(mvtec, look):
    (mvtec / "train/good/02.png").write_bytes(b"")
    (mvtec / "train/good/07.png").write_text("no image")
    write_image(mvtec / "val/good/0.png", 160)
    code, out, err, _ = look(mvtec)
    assert code == 2
    assert "bad file: train: " in out and (out + err).count("02.png: is empty") == 1
    assert "07.png: not a readable image" in out
    assert "error: folder: 2 bad files, listed above; repair or remove what is listed" in err
    code, out, err, _ = look(mvtec, "--config.data.on_error=skip")
    assert code == 0 and out.count("bad file: train: ") == 2


def test_blank_images_are_no_bad_files(mvtec, look):
    Image.new("L", (20, 20), 0).save(mvtec / "train/good/edge.png")
    write_image(mvtec / "val/good/0.png", 160)
    code, out, _, workdir = look(mvtec)
    assert code == 0
    assert "note: train: 1 of 11 images are blank (every pixel has the same value)" in out
    facts = json.loads((workdir / "inspect.json").read_text())["splits"]["train"]
    assert facts["files"]["blank"] == ["train/good/edge.png"] and facts["files"]["skipped"] == []


def test_a_background_of_noise_is_reported(tmp_path, look):
    for number in range(4):
        path = write_scan(tmp_path / f"train/good/{number}.nii.gz", number)
        scan = nib.load(path)
        noise = np.random.default_rng(number).uniform(0.01, 0.1, scan.shape).astype(np.float32)
        nib.save(nib.Nifti1Image(np.asarray(scan.dataobj) + noise, scan.affine), path)
    code, out, _, _ = look(tmp_path, "--config.data.preprocess.foreground=nonzero", name="nifti")
    assert code == 0
    assert "warning: train: in 3 of 3 files the background is noise instead of 0" in out


def test_left_out_slices_of_scans_are_counted(tmp_path, look):
    for number in range(4):
        write_scan(tmp_path / f"train/good/{number}.nii.gz", number)
    code, out, _, _ = look(tmp_path, name="nifti")
    assert code == 0
    # The first and the last two of 16 slices of a scan hold nothing.
    assert "note: train: 12 slices are constant or have too little foreground" in out
    assert "16x16x16 (3)" in out


def test_embedded_data_and_npz_have_no_files(tmp_path, look):
    for number, name in enumerate(("train", "val", "test_x")):
        images = np.random.default_rng(number).integers(1, 255, (3, 32, 32), np.uint8)
        np.savez(tmp_path / f"{name}.npz", image=images, label=np.zeros(3))
    code, out, _, _ = look(tmp_path, name="npz")
    assert code == 0
    assert "train 3 3 0 3 0 - - - - -" in [" ".join(line.split()) for line in out.splitlines()]
