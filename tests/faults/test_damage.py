"""A damaged newest checkpoint, from the command line: the one before it is used, with a warning."""

import json
import shutil
from pathlib import Path

import pytest


def flip_arrays(step_folder: Path) -> None:
    """Flips a bit in every file of the variables' arrays."""
    for path in (step_folder / "variables").rglob("d/*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


def steps(workdir: Path) -> list[str]:
    return sorted(path.name for path in (workdir / "checkpoints").iterdir())


@pytest.fixture
def workdir(trained, tmp_path) -> Path:
    """A copy of the trained run's folder."""
    return shutil.copytree(trained, tmp_path / "run")


def test_training_resumes_from_the_one_before_to_the_same_parameters(
    forker, tiny, trained, workdir
):
    flip_arrays(workdir / "checkpoints/12")
    arguments = [f"--config={tiny / 'tiny.py'}", f"--workdir={workdir}", "--mode=train"]
    ended = forker.run(*arguments)
    assert ended.code == 0, ended.printed
    line = next(line for line in ended.printed.splitlines() if line.startswith("warning: check"))
    assert f"checkpoint '{workdir / 'checkpoints/12'}' is damaged (" in line
    assert line.endswith("and set aside as '12.damaged'; step 9 is used instead.")
    assert "12.damaged" in steps(workdir)
    place = "checkpoints/12/digests/metadata"
    assert (workdir / place).read_bytes() == (trained / place).read_bytes()
    rows = (workdir / "metrics.jsonl").read_text().splitlines()
    validated = [json.loads(row)["step"] for row in rows if "validation_loss" in row]
    assert validated == [3, 6, 9, 12]


def test_evaluation_uses_the_one_before_and_changes_no_checkpoint(forker, workdir):
    flip_arrays(workdir / "checkpoints/12")
    before = steps(workdir)
    ended = forker.run(f"--workdir={workdir}", "--mode=evaluate")
    assert ended.code == 0, ended.printed
    assert "step 9 is used instead." in ended.printed
    found = json.loads((workdir / "eval/test_squares/metrics.json").read_text())
    assert found["checkpoint_step"] == 9
    assert steps(workdir) == before


def test_if_all_are_damaged_one_line_says_so_and_nothing_is_changed(forker, tiny, workdir):
    before = steps(workdir)
    for step in before:
        flip_arrays(workdir / "checkpoints" / step)
    ended = forker.run(f"--config={tiny / 'tiny.py'}", f"--workdir={workdir}", "--mode=train")
    line = ended.only_line(2)
    assert f"every checkpoint in '{workdir / 'checkpoints'}' is damaged (step 12: " in line
    assert line.endswith("put a copy back, or move the folder away to begin again.")
    assert steps(workdir) == before
