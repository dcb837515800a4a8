"""A study decides once on what its shared data mean by `foreground=auto`."""

import nibabel as nib
import numpy as np
import pytest
from small_study import make_config

from jaxad.config import run_config
from jaxad.data import openers
from jaxad.study import runner


def write_scan(path, seed, background):
    """Writes a scan of 16 mm a side, 12 mm of it bright, with noise up to `background` outside."""
    random = np.random.default_rng(seed)
    voxels = random.uniform(0, background, (16, 16, 16)).astype(np.float32)
    voxels[2:14, 2:14, 2:14] = random.uniform(1, 2, (12, 12, 12))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)


def write_scans(root, background):
    for seed in range(16):
        name = ("train/good", "val/good", "test/good", "test/bad")[seed % 4]
        write_scan(root / f"{name}/p{seed}.nii.gz", seed, background)


def test_the_decision_of_a_study_is_shared_and_kept(tmp_path, monkeypatch, capsys):
    write_scans(tmp_path / "data", 0.1)
    config = make_config(tmp_path / "data")
    config.data.name = "nifti"
    decided = []

    def begin(configs, workdirs, data_set):
        """Begins runs as `train_seeds` does, and stops."""
        decided.append(data_set.data.preprocess.foreground)
        for one, workdir in zip(configs, workdirs, strict=True):
            run_config.write(workdir, run_config.with_decisions(one, data_set.data))
        return False

    monkeypatch.setattr(runner, "train_seeds", begin)
    assert not runner.run_study(config, tmp_path / "study")
    assert capsys.readouterr().out.count("foreground: otsu, because") == 1
    # The study continues with what its first run stored.
    monkeypatch.setattr(openers, "choose_foreground", pytest.fail)
    assert not runner.run_study(config, tmp_path / "study")
    assert decided == ["otsu", "otsu"]
