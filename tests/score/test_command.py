"""The command line of `--mode=score`, and of the flags that it shares."""

import pytest

import jaxad
from jaxad import cli, run
from jaxad import config as config_lib
from jaxad.config import run_config
from jaxad.errors import UserError
from jaxad.storage.workdir import Workdir


def test_flags_of_score(tmp_path, monkeypatch, capsys):
    def fail(*arguments):
        assert cli.main(arguments) == 2
        return capsys.readouterr().err.strip()

    run_config.write(Workdir(tmp_path), config_lib.get_config("pchvae:smoke"))
    workdir, score = f"--workdir={tmp_path}", "--mode=score"
    assert fail(workdir, score).startswith("error: --input: missing; --mode=score needs it")
    assert fail(workdir, score, "--input=x").startswith("error: --output: missing")
    line = fail(workdir, score, "--input=x", "--output=y", "--rate=much")
    assert line == "error: --rate=much: not a number; write a share, such as 0.05 for 5 %."
    line = fail(workdir, score, "--input=x", "--output=y", "--allow_outside_root=yes")
    assert line == "error: --allow_outside_root=yes: write True or False."
    # Before the detector is loaded, which this run lacks, and which may warn.
    line = fail(workdir, score, "--input=neww", "--output=y")
    assert line.startswith("error: --input=neww: no such file or folder; set --input to")
    line = fail(workdir, score, f"--input={tmp_path}", "--output=y", "--maps=anomal")
    assert line == (
        "error: --maps=anomal: unknown; did you mean 'anomalous'? known: all, anomalous, none."
    )
    file = tmp_path / "detector.jaxad"
    file.write_bytes(b"x")
    line = fail(f"--workdir={file}", score, "--config=pchvae:smoke", "--input=x", "--output=y")
    assert line == "error: --config: an exported file has its own; leave it out."
    for mode in ("calibrate", "export", "report", "fit"):
        more = ("--normals=x",) if mode == "calibrate" else ()
        line = fail(f"--workdir={file}", f"--mode={mode}", "--config=pchvae:smoke", *more)
        remedy = f"is an exported file; --mode={mode} needs the folder of the run."
        assert line == f"error: --workdir={file}: {remedy}"
    with pytest.raises(UserError, match="jaxad' is a file; name a folder"):
        jaxad.export_detector(file)
    seen = []
    monkeypatch.setattr(
        run, "score", lambda config, path, **options: seen.append((config, options))
    )
    assert cli.main([f"--workdir={file}", score, "--input=x", "--output=y"]) == 0
    assert seen == [(None, {
        "input": "x", "output": "y", "rate": "", "maps": "", "group_pattern": "",
        "allow_outside_root": "",
    })]  # fmt: skip
    monkeypatch.setattr(run, "calibrate", lambda *_, **options: seen.append(options))
    calibrate = (
        "--mode=calibrate", "--normals=site.csv", "--group_pattern=P", "--allow_outside_root=True",
    )  # fmt: skip
    assert cli.main([workdir, *calibrate]) == 0
    assert seen[1] == {
        "normals": "site.csv", "group_pattern": "P", "allow_outside_root": "True",
    }  # fmt: skip
