"""A run starts from the weights of another run or of an exported file."""

import numpy as np
import pytest
from small_run import STEPS, run, variables

from jaxad import run as launched
from jaxad.config import get_config, run_config, without_paths
from jaxad.detector import exported
from jaxad.detector.export import export
from jaxad.errors import UserError
from jaxad.storage.workdir import Workdir


@pytest.mark.long
def test_a_run_starts_from_the_weights_of_another(config, wholes, tmp_path, capsys):
    whole = wholes / "pchvae"
    assert run(config, whole)
    _, expected = variables(whole)
    config.optim.learning_rate, config.seed = 0.0, 1  # no update moves the parameters
    for source in (whole, export(Workdir(whole))):
        config.init_from, folder = str(source), tmp_path / source.name
        capsys.readouterr()
        launched.train(config, folder)
        out = capsys.readouterr().out
        assert f"initial weights: step {STEPS} of '{source}'." in out
        assert "note: npz: no patient is known: every image counts as one; if patients" in out
        step, found = variables(folder)
        assert step == STEPS
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert without_paths(config).init_from == ""
    larger, images = config.copy_and_resolve_references(), np.random.default_rng(0)
    larger.data.root, larger.data.image_size = str(tmp_path / "larger"), 32
    (tmp_path / "larger").mkdir()
    for name in ("train", "val"):
        pixels = images.uniform(size=(32, 32, 32)).astype("float32")
        np.savez(tmp_path / "larger" / f"{name}.npz", image=pixels)
    capsys.readouterr()
    launched.train(larger, tmp_path / "of larger images")
    note = "was trained on images of 16 x 16 pixels, and this run trains on 32 x 32."
    assert f"note: config.init_from: '{source}' {note}" in capsys.readouterr().out
    # Not needed any more once there are checkpoints.
    source.unlink()
    launched.train(config, folder)


def test_weights_of_another_system_are_refused(config, tmp_path):
    run_config.write(Workdir(tmp_path / "source"), get_config("fanogan:smoke"))
    (tmp_path / "study").mkdir()
    (tmp_path / "study/study.json").write_text("{}")
    for source, problem in (
        ("source", r"config.init_from: '.*source' holds 'fanogan', another system than 'pchvae'"),
        ("nowhere", r"config.init_from: workdir '.*nowhere': no such folder or file"),
        ("study", r"config.init_from: workdir '.*study' holds a study; .*/seed_<seed>\.$"),
    ):
        config.init_from = str(tmp_path / source)
        with pytest.raises(UserError, match=problem):
            launched.train(config, tmp_path / "run")
    run_config.write(Workdir(tmp_path / "sizes"), get_config("pchvae:smoke"))
    config.init_from = str(tmp_path / "sizes")
    with pytest.raises(UserError, match=r"do not fit this config \(.*; set config.model"):
        launched.train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_initial_weights_that_cannot_be_read_are_refused(config, wholes, tmp_path, monkeypatch):
    whole = wholes / "pchvae"
    assert run(config, whole)
    source = export(Workdir(whole))
    text, step, leaves = exported.read_weights(source)
    source.unlink()
    begun = Workdir(tmp_path / "begun")  # a run that was killed before its first checkpoint
    run_config.write(begun, config)
    begun.checkpoints.mkdir()
    (tmp_path / "file").touch()
    other_code = (text, step, [leaf[None] for leaf in leaves])
    monkeypatch.setattr(exported, "read_weights", lambda _: other_code)
    for name, problem in (("begun", "no checkpoint yet"), ("file", "holds other arrays than")):
        config.init_from = str(tmp_path / name)
        with pytest.raises(UserError, match=rf"config\.init_from: .*{name}'.* {problem}"):
            launched.train(config, tmp_path / "run")
