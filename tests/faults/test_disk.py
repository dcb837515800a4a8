"""Full and read-only disks: one error line, and nothing that was saved is lost.

The system lets no file grow beyond a size (RLIMIT_FSIZE), which ends in the same way as a full disk
and needs no rights.
"""

import shutil
from pathlib import Path

import pytest

REMEDY = "once the disk accepts more data, run the same command to resume"


def digests(workdir: Path, step: int) -> bytes:
    """Returns the digests of all arrays of a checkpoint."""
    return (workdir / f"checkpoints/{step}/digests/metadata").read_bytes()


def test_a_disk_that_is_full_at_a_checkpoint(forker, tiny, trained, tmp_path):
    workdir = shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints/12")
    arguments = [f"--config={tiny / 'tiny.py'}", f"--workdir={workdir}", "--mode=train"]
    # The log and the config fit, the checkpoint's 13 kB of metadata do not.
    line = forker.run(*arguments, largest_file=10_000).only_line(1)
    assert line.startswith(
        f"failed: a checkpoint could not be saved in '{workdir / 'checkpoints'}' (File too large)"
    )
    assert REMEDY in line.lower()
    kept = [path.name for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()]
    assert "9" in kept and "12" not in kept
    assert digests(workdir, 9) == digests(trained, 9)
    ended = forker.run(*arguments)
    assert ended.code == 0, ended.printed
    assert digests(workdir, 12) == digests(trained, 12)
    assert not list((workdir / "checkpoints").glob("*tmp*"))


def test_a_disk_that_is_full_at_other_files(forker, tiny, trained, tmp_path):
    def arguments(name):
        source = tiny / "test_squares.npz"
        output = f"--output={tmp_path / name}"
        return [f"--workdir={trained}", "--mode=score", f"--input={source}", output]

    line = forker.run(*arguments("scores"), largest_file=3_000).only_line(1)
    assert line.startswith(f"failed: '{tmp_path / 'scores/maps/'}")  # maps are the largest
    assert "_map.png': File too large;" in line and REMEDY in line.lower()
    assert not list((tmp_path / "scores/maps").iterdir())
    for name in ("scores", "whole"):
        ended = forker.run(*arguments(name))
        assert ended.code == 0, ended.printed
    for path in (tmp_path / "whole").rglob("*.*"):
        if path.is_file():
            place = path.relative_to(tmp_path / "whole")
            assert (tmp_path / "scores" / place).read_bytes() == path.read_bytes(), place


def test_a_disk_that_is_full_when_data_are_generated(forker, tmp_path):
    root = tmp_path / "data"
    arguments = [
        "--config=pchvae:smoke", "--mode=inspect", f"--workdir={tmp_path / 'w'}",
        f"--config.data.root={root}", "--config.data.num_subjects=(2,1,1,1)",
    ]  # fmt: skip
    # Small JSON files fit, 40 images of 2 kB do not.
    line = forker.run(*arguments, largest_file=20_000).only_line(1)
    assert line.startswith(f"failed: data folder '{root / 'icbm_synth'}")
    assert "cannot take more files (File too large); free disk space, or choose another" in line
    ended = forker.run(*arguments)
    assert ended.code == 0, ended.printed
    assert not list(root.rglob("incomplete.*"))


#: The folder of a run is renamed before its second checkpoint is saved.
RENAME = """
import os
from jaxad.train.outputs import Outputs
real, calls = Outputs.save, []
def save(*arguments):
    calls.append(1)
    if len(calls) == 2:
        os.rename({folder!r}, {folder!r} + ".moved")
    return real(*arguments)
Outputs.save = save
"""


def test_a_run_whose_folder_was_renamed(forker, tiny, trained, tmp_path):
    workdir = tmp_path / "run"
    arguments = [f"--config={tiny / 'tiny.py'}", f"--workdir={workdir}", "--mode=train"]
    line = forker.run(*arguments, setup=RENAME.format(folder=str(workdir))).only_line(1)
    assert "was deleted, moved or renamed while the run was writing" in line
    assert not workdir.exists()
    (tmp_path / "run.moved").rename(workdir)  # the remedy
    ended = forker.run(*arguments)
    assert ended.code == 0, ended.printed
    assert digests(workdir, 12) == digests(trained, 12)


@pytest.mark.parametrize(
    ("mode", "in_the_way"),
    [("train", "checkpoints"), ("train", "tensorboard"), ("evaluate", "eval"), ("export", ".lock")],
)
def test_what_cannot_be_written_is_named(forker, tiny, trained, tmp_path, mode, in_the_way):
    """A file in the place of a folder or vice versa; root may write anywhere."""
    workdir = tmp_path / "run"
    if mode == "train":
        workdir.mkdir()
    else:
        shutil.copytree(trained, workdir)
    place = workdir / in_the_way
    place.unlink(missing_ok=True)
    if in_the_way == ".lock":
        place.mkdir()
    else:
        place.write_text("")
    config = [f"--config={tiny / 'tiny.py'}"] if mode == "train" else []
    ended = forker.run(*config, f"--workdir={workdir}", f"--mode={mode}")
    assert str(place) in ended.only_line(2)


#: Opening files of a folder for writing fails as on a read-only disk, where root cannot write.
READ_ONLY = """
import errno, os
below = {folder!r}

def refusing(real):
    def call(path, *arguments, **options):
        is_change = arguments[0] & (os.O_WRONLY | os.O_RDWR)
        if is_change and os.fsdecode(path).startswith(below):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fsdecode(path))
        return real(path, *arguments, **options)
    return call

os.open = refusing(os.open)
"""


def test_a_read_only_run_scores_and_is_not_evaluated(forker, tiny, trained, tmp_path):
    setup = READ_ONLY.format(folder=str(trained))
    own = f"--workdir={trained}"
    output = f"--output={tmp_path / 'scores'}"
    source = f"--input={tiny / 'test_squares.npz'}"
    ended = forker.run(own, "--mode=score", source, output, setup=setup)
    assert ended.code == 0, ended.printed
    line = forker.run(own, "--mode=evaluate", setup=setup).only_line(2)
    assert f"workdir '{trained}' cannot be written (Read-only file system)" in line
    line = forker.run(own, "--mode=score", source, f"--output={trained / 'x'}", setup=setup)
    assert "cannot be written (Read-only file system)" in line.only_line(2)
    (trained / "x").rmdir()
