"""Fixtures of the tests of `jaxad.data`: a folder of images, and `--mode=inspect`."""

import pytest
from user_files import write_image, write_mask

from jaxad import cli


@pytest.fixture
def mvtec(tmp_path):
    """The MVTec layout: ten normal images, four to test, two of which are marked."""
    for number in range(10):
        write_image(tmp_path / f"train/good/{number:02d}.png", 100 + number)
    for number in range(2):
        write_image(tmp_path / f"test/good/{number}.png", 130 + number)
        write_image(tmp_path / f"test/crack/{number}.png", 140 + number)
        write_mask(tmp_path / f"ground_truth/crack/{number}_mask.png")
    return tmp_path


@pytest.fixture
def look(tmp_path_factory, capsys):
    """Inspects a folder; returns exit code, stdout, stderr and the workdir."""

    def run(root, *more, name="folder"):
        workdir = tmp_path_factory.mktemp("inspect")
        code = cli.main(
            [
                "--mode=inspect", "--config=pchvae:smoke", f"--workdir={workdir}",
                f"--config.data.name={name}", f"--config.data.root={root}",
                "--config.data.image_size=32", *more,
            ]
        )  # fmt: skip
        captured = capsys.readouterr()
        return code, captured.out, captured.err, workdir

    return run
