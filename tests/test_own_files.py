"""A fit on a user's own files, and scores of the same files outside of their data set."""

import csv

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

import jaxad
from jaxad import cli
from jaxad.data.prepare.preprocess import to_unit_interval
from jaxad.errors import UserError


def write_files(root, kind):
    """Noise, with a bright square in what is anomalous; patients of two files each."""
    rng = np.random.default_rng(0)
    places = {"train/good": 16, "val/good": 8, "test/good": 4, "test/bright": 4, "site": 8}
    for place, count in places.items():
        for number in range(count):
            # Odd shapes, and intensities that are no type's range.
            voxels = rng.uniform(900, 1100, (24, 40, 6))
            if place == "test/bright":
                voxels[8:14, 10:20, 2:5] *= 3
            folder = root / place if place != "site" else root.parent / "site"
            folder.mkdir(parents=True, exist_ok=True)
            name = f"{place.replace('/', '-')}{number // 2}_{number}"
            if kind == "nifti":
                affine = np.diag([-2.0, 1.0, 4.0, 1.0])
                nib.save(nib.Nifti1Image(voxels.astype(np.int16), affine), folder / f"{name}.nii")
            else:
                Image.fromarray(voxels[..., 3].astype(np.uint16)).save(folder / f"{name}.png")


# Images of any run on files pass the same functions; scans pass more of them.
@pytest.mark.parametrize("kind", [pytest.param("folder", marks=pytest.mark.long), "nifti"])
def test_a_fit_and_what_it_makes_of_other_files(kind, tmp_path, capsys):
    root, workdir = tmp_path / "data", tmp_path / "run"
    write_files(root, kind)
    arguments = [
        "--config=pchvae:smoke", f"--workdir={workdir}", f"--config.data.name={kind}",
        f"--config.data.root={root}", "--config.data.image_size=32",
        "--config.data.group_pattern=([a-z-]+[0-9]+)_", "--config.train.num_epochs=1",
        "--config.cpu_devices=8", "--config.evaluate.num_examples=1",
        *(["--config.data.preprocess.intensity=percentile",
           "--config.data.preprocess.square=crop"] if kind == "folder" else []),
    ]  # fmt: skip
    assert cli.main(arguments) == 0, capsys.readouterr().err
    detector = jaxad.load(workdir)
    with (workdir / "eval/test/scores.csv").open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert len(rows) == 8 * (6 if kind == "nifti" else 1)
    assert len({row["group"] for row in rows.values()}) == 4
    for path in sorted((root / "test").rglob("*.*"))[::3]:
        split = detector.read(path)
        scores = detector.score(split.images).image
        place = path.relative_to(root).as_posix()
        names = [place + name.removeprefix(path.name) for name in split.ids]
        expected = [float(rows[name]["score"]) for name in names]
        np.testing.assert_allclose(scores, expected, rtol=1e-5)
        if kind == "nifti":
            image = nib.load(path)
            images = detector.preprocess(np.asarray(image.dataobj), image.affine)
        else:
            images = detector.preprocess(np.asarray(Image.open(path)))
        np.testing.assert_array_equal(images, to_unit_interval(split.images))
    scored = tmp_path / "scored"
    score = ["--mode=score", f"--input={root / 'test'}", f"--output={scored}", "--rate=0.2"]
    assert cli.main([*score, f"--workdir={workdir}"]) == 0, capsys.readouterr().err
    with (scored / "scores.csv").open() as file:
        found = {f"test/{row['id']}": row for row in csv.DictReader(file)}
    assert found.keys() == rows.keys()
    for name, row in found.items():
        assert float(row["score"]) == pytest.approx(float(rows[name]["score"]), rel=1e-5)
        assert (float(row["p_value"]) <= 0.2) == (row["anomalous"] == "1")
    suffix = "_map.nii.gz" if kind == "nifti" else "_map.png"
    assert len(list((scored / "maps").rglob(f"*{suffix}"))) == 8
    calibrate = ["--mode=calibrate", f"--workdir={workdir}", f"--normals={tmp_path / 'site'}"]
    assert cli.main(calibrate) == 0, capsys.readouterr().err
    assert "calibrated on 4 normal patients (site)" in capsys.readouterr().out
    first = next((root / "train/good").iterdir())
    first.rename(first.with_name(f"new99_{first.name}"))  # another patient
    assert cli.main(["--mode=evaluate", f"--workdir={workdir}"]) == 2
    assert "split 'train' is not what it was when the run began" in capsys.readouterr().err
    with pytest.raises(UserError, match="no such file or folder"):
        detector.read(tmp_path / "nowhere")
