"""What stays on disk, and that a run does not depend on it."""

import json
import re
import shutil

import pytest
from stored_examples import COUNTS, SIZE, Patterns, make_config

from jaxad.data.tfds.splits import open_builder
from jaxad.data.tfds.stored_pixels import StoredPixels

#: Bytes of the images, and of the masks of the test split.
IMAGES = sum(COUNTS.values()) * SIZE * SIZE * 3 * 2
MASKS = COUNTS["test_a"] * SIZE * SIZE
ON_DISK = "--config.data.in_memory=1e-6"


@pytest.mark.parametrize(("more", "on_disk"), [(0, False), (-1, True)])
def test_all_splits_stay_on_disk_if_together_they_exceed_the_budget(
    tmp_path, capsys, more, on_disk
):
    config = make_config(dtype="uint16", channels=3)
    readers = open_builder(Patterns, config, str(tmp_path), budget=float(IMAGES + MASKS + more))
    splits = {name: read() for name, read in readers.items()}
    pixels = [splits["train"].images, splits["test_a"].images, splits["test_a"].masks]
    assert [isinstance(array, StoredPixels) for array in pixels] == 3 * [on_disk]
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("data:")]
    size = f"{(IMAGES + MASKS) / 2**30:.3g}"
    told = f"data: patterns: {size} GiB of pixels are read from disk when they are needed, because"
    assert [line.startswith(told) for line in printed] == on_disk * [True]


def results(workdir):
    """The files of a run that do not hold times, and the report without times and the config."""
    files = sorted(path for path in workdir.glob("eval/*/*") if path.is_file())
    assert len(files) >= 6
    found = {str(path.relative_to(workdir)): path.read_bytes() for path in files}
    step = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    found["digests"] = (workdir / f"checkpoints/{step}/digests/metadata").read_bytes()
    found["calibration"] = (workdir / "calibration.json").read_bytes()
    report = (workdir / "report.html").read_text()
    for pattern in (
        r"<code>[^<]*</code> · seed", r"a median of [\d,]+ images", r"took \d+ s",
        r"<td>\d{4}-\d\d-\d\d [^<]*",
        r"--workdir=\S+", r" --config\.data\.in_memory=\S+", r"&#34;in_memory&#34;: [^,]*",
    ):  # fmt: skip
        report = re.sub(pattern, "", report)
    return found | {"report": report}


@pytest.mark.long
def test_a_run_on_disk_gives_the_files_of_one_in_memory(launch, smoke_run, data_root, tmp_path):
    root = f"--config.data.root={data_root}"
    ended = launch("--config=pchvae:smoke", f"--workdir={tmp_path / 'run'}", root, ON_DISK)
    assert ended.returncode == 0, ended.stderr
    assert "data: icbm_synth: 0.00153 GiB of pixels are read from disk" in ended.stdout
    assert "warning: test_lesions: metrics of pixels take about 0.0427 GiB" in ended.stderr
    expected, found = results(smoke_run), results(tmp_path / "run")
    assert expected.keys() == found.keys()
    for name in expected:
        assert found[name] == expected[name], name


@pytest.mark.long
def test_a_run_that_began_in_memory_continues_on_disk(launch, smoke_run, data_root, tmp_path):
    """It ends in the same files."""
    resumed, expected = tmp_path / "resumed", results(smoke_run)
    shutil.copytree(smoke_run, resumed)
    last, before = sorted(
        (path for path in (resumed / "checkpoints").iterdir()), key=lambda path: -int(path.name)
    )
    assert (last.name, before.name) == ("10", "5")
    for path in (last, resumed / "eval"):
        shutil.rmtree(path)
    root = f"--config.data.root={data_root}"
    ended = launch("--config=pchvae:smoke", f"--workdir={resumed}", root, ON_DISK)
    assert ended.returncode == 0, ended.stderr
    assert "resumed from step 5 of 10" in ended.stdout
    found = results(resumed)
    for name in expected:
        if name != "report":  # which tells of the resumption
            assert found[name] == expected[name], name
    assert json.loads((resumed / "config.json").read_text())["data"]["in_memory"] == 0


@pytest.mark.long
def test_inspection_on_disk_is_that_in_memory(launch, data_root, tmp_path):
    for name, more in (("memory", ()), ("disk", (ON_DISK,))):
        ended = launch(
            "--mode=inspect", "--config=pchvae:smoke", f"--workdir={tmp_path / name}",
            f"--config.data.root={data_root}", *more,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
    for file in ("inspect.json", "inspect.png", "duplicates.csv"):
        assert (tmp_path / "disk" / file).read_bytes() == (tmp_path / "memory" / file).read_bytes()
