"""`config.data.preprocess.foreground=auto`: decided once for the files of a data set."""

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from user_files import data_config, write_image, write_scan

from jaxad import cli, load
from jaxad import config as config_lib
from jaxad.config import run_config
from jaxad.data import foreground, membership
from jaxad.data.other_site import Site, read_site
from jaxad.data.replay import read_files, read_normals
from jaxad.data.sources import DataSet
from jaxad.errors import DataError, UserError
from jaxad.runtime import processes
from jaxad.storage.workdir import Workdir


def write_scans(folder, num_noisy, count=5, extra=0.0):
    """Writes training scans, the first of which have a background of noise, and one of val."""
    for number in range(count):
        path = write_scan(folder / f"train/good/{number}.nii.gz", number)
        scan = nib.load(path)
        noise = np.random.default_rng(number).uniform(0.01, 0.1, scan.shape) * (number < num_noisy)
        voxels = np.asarray(scan.dataobj) + noise + extra
        nib.save(nib.Nifti1Image(voxels.astype(np.float32), scan.affine), path)
    write_scan(folder / "val/good/x.nii.gz", 99)
    return folder


@pytest.mark.parametrize(
    ("num_noisy", "choice"), [(0, "nonzero"), (2, "nonzero"), (3, "otsu"), (5, "otsu")]
)
def test_noise_in_most_scans_means_otsu(tmp_path, capsys, num_noisy, choice):
    data = data_config(write_scans(tmp_path, num_noisy), "nifti")
    data_set = DataSet(data)
    assert data_set.data.preprocess.foreground == choice
    assert data.preprocess.foreground == "auto"  # the caller's config stays as it is
    expected = f"foreground: {choice}, because the background of {num_noisy} of 5 sampled scans is"
    assert capsys.readouterr().out.count(expected) == 1
    explicit = DataSet(data_config(tmp_path, "nifti", preprocess__foreground=choice))
    for name in ("train", "val"):
        np.testing.assert_array_equal(data_set.split(name).images, explicit.split(name).images)
    assert "foreground: " not in capsys.readouterr().out  # nothing was decided


def test_five_files_spread_evenly_decide(tmp_path, monkeypatch):
    read, paths = foreground.read_volume, []
    monkeypatch.setattr(
        foreground, "read_volume", lambda path: paths.append(path.name) or read(path)
    )
    DataSet(data_config(write_scans(tmp_path, 0, count=9), "nifti"))
    assert paths == [f"{number}.nii.gz" for number in (0, 2, 4, 6, 8)]


def test_ct_stays_an_error(tmp_path):
    # Air at -1000 with noise: dark, not 0, and not what `otsu` may be chosen for silently.
    data_set = DataSet(data_config(write_scans(tmp_path, 5, extra=-1000.0), "nifti"))
    assert data_set.data.preprocess.foreground == "nonzero"
    with pytest.raises(DataError, match="has negative values and hardly any zeros"):
        data_set.split("train")


def test_unreadable_files_do_not_decide(tmp_path, capsys):
    write_scans(tmp_path, 5)
    for number in (0, 1, 2):
        (tmp_path / f"train/good/{number}.nii.gz").write_bytes(b"x")
    data = data_config(tmp_path, "nifti", on_error="skip")
    assert DataSet(data).data.preprocess.foreground == "otsu"
    assert "the background of 2 of 2 sampled scans is noise" in capsys.readouterr().out


def test_images_that_keep_their_range_are_not_looked_at(mvtec, monkeypatch):
    monkeypatch.setattr(foreground, "read_image", pytest.fail)
    assert DataSet(data_config(mvtec)).data.preprocess.foreground == "auto"


def test_images_with_noise(tmp_path, capsys):
    for number in range(4):
        pixels = np.random.default_rng(number).integers(1, 20, (20, 20), np.uint8)
        pixels[5:15, 5:15] += 150
        Image.fromarray(pixels).save(write_image(tmp_path / f"train/good/{number}.png"))
    data_set = DataSet(data_config(tmp_path, preprocess__intensity="zscore"))
    assert data_set.data.preprocess.foreground == "otsu"
    assert "of 3 of 3 sampled images is noise" in capsys.readouterr().out  # one is drawn for val
    corner = data_set.split("train").images[:, 0, 0]
    assert not corner.any()  # the background is 0


def test_another_test_set_has_the_same_foreground(tmp_path, capsys):
    """The training data decide, whatever the background of the test data is."""
    write_scans(tmp_path / "own", 5)
    for number in range(5):
        write_scan(tmp_path / f"other/train/good/{number}.nii.gz", number)
        write_scan(tmp_path / f"other/test/good/{number}.nii.gz", 10 + number)
    data = data_config(tmp_path / "own", "nifti")
    data.test.name, data.test.root = "nifti", str(tmp_path / "other")
    found = DataSet(data).split("test_nifti")
    assert capsys.readouterr().out.count("foreground: ") == 1
    data.preprocess.foreground = "otsu"
    np.testing.assert_array_equal(found.images, DataSet(data).split("test_nifti").images)


def test_a_run_on_clean_scans_gets_a_remedy_that_it_can_follow(tmp_path, capsys):
    """Its foreground is fixed, so that `otsu` would need another run."""
    write_scans(tmp_path / "noisy", 5)
    write_scan(tmp_path / "noisy/test/good/x.nii.gz", 98)
    data = data_config(write_scans(tmp_path / "own", 0), "nifti", preprocess__foreground="nonzero")
    read_site(Site(str(tmp_path / "noisy"), calibrates=True), data)
    read_normals(tmp_path / "noisy/train", data)
    lines = capsys.readouterr().err.splitlines()
    err = [line for line in lines if line.startswith("warning: ")]
    assert len(err) == 2 and "noisy train: in 5 of 5 files the background is noise" in err[0]
    for line in err:
        assert "Set the background of these files to 0, or train a run with foreground=otsu" in line
        assert "set --config" not in line


def test_processes_that_decide_differently_are_found(tmp_path, monkeypatch):
    write_scans(tmp_path, 5)
    digests = []
    monkeypatch.setattr(processes, "are_several", lambda: True)
    monkeypatch.setattr(processes, "of_all", lambda value: digests.append(value) or digests)
    for choice in ("auto", "otsu"):  # the same files, the same decision
        data = data_config(tmp_path, "nifti", preprocess__foreground=choice)
        membership.check_processes(DataSet(data))
    data.preprocess.foreground = "nonzero"
    with pytest.raises(UserError, match="the processes read different images"):
        membership.check_processes(DataSet(data))


def small(root):
    config = config_lib.get_config("lowvae:smoke")
    config.data.name, config.data.root, config.data.image_size = "nifti", str(root), 16
    return config


def test_a_run_stores_and_keeps_the_decision(tmp_path, capsys):
    config = small(write_scans(tmp_path / "data", 5))
    run = Workdir(tmp_path / "run")
    run_config.write(run, run_config.with_decisions(config, DataSet(config.data).data))
    stored = run_config.read(run)
    assert stored.data.preprocess.foreground == "otsu"
    # The same config, in which it is `auto`, is one of this run: nothing is decided again.
    resumed = run_config.check(run, config, trains=True)
    assert resumed.data.preprocess.foreground == "otsu"
    assert config.data.preprocess.foreground == "auto"
    capsys.readouterr()
    # A clean scan, half of which is so dark that `otsu` and `nonzero` differ.
    scan = write_scan(tmp_path / "clean.nii.gz", 50)
    voxels = np.asarray(nib.load(scan).dataobj).copy()
    voxels[:8] *= 0.1
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), scan)
    found = read_files(scan, stored.data).images
    assert "foreground: " not in capsys.readouterr().out
    otsu, nonzero = (
        read_files(scan, data_config("", "nifti", preprocess__foreground=name)).images
        for name in ("otsu", "nonzero")
    )
    np.testing.assert_array_equal(found, otsu)
    assert (otsu != nonzero).any()
    config.data.preprocess.foreground = "nonzero"
    with pytest.raises(UserError, match=r"data.preprocess.foreground: 'otsu' -> 'nonzero'"):
        run_config.check(run, config)


def test_a_data_set_without_a_foreground_stores_none(tmp_path):
    """The stored config must be one that can be given again."""
    config = small(tmp_path)
    config.data.name, config.data.root = "icbm_synth", ""
    run_config.write(Workdir(tmp_path), config)
    stored = run_config.read(Workdir(tmp_path))
    assert stored.data.preprocess.foreground == "auto"
    assert not config_lib.difference(config, stored)


def test_the_command_line_decides_once(tmp_path, capsys):
    root = write_scans(tmp_path / "data", 5)
    for number in range(3):
        write_scan(root / f"test/good/{number}.nii.gz", 20 + number)
        write_scan(root / f"test/bad/{number}.nii.gz", 30 + number)
    config = (
        "--config=lowvae:smoke", "--config.data.name=nifti", f"--config.data.root={root}",
        "--config.data.image_size=16", "--config.evaluate.num_examples=1",
    )  # fmt: skip
    workdir = f"--workdir={tmp_path / 'run'}"
    assert cli.main([*config, workdir, "--mode=train"]) == 0
    assert capsys.readouterr().out.count("foreground: otsu, because") == 1
    # Other scans in the place of those that were looked at would be decided upon otherwise.
    write_scans(root, 0)
    for mode in ("train", "evaluate"):
        assert cli.main([*config, workdir, f"--mode={mode}"]) == 0
    export = tmp_path / "run/detector.jaxad"
    assert cli.main([workdir, "--mode=export"]) == 0
    assert "foreground: " not in capsys.readouterr().out
    for config in (run_config.read(Workdir(tmp_path / "run")), load(export).config):
        assert config.data.preprocess.foreground == "otsu"
