"""Every mode, killed between two file changes, finishes with the same command.

A process ends without notice just before its n-th change (a file opened to write, renamed, removed;
a folder made) of those that it makes in its folder. `test_kill.py` kills at any moment.
"""

import shutil
from pathlib import Path

import pytest

#: Files that tell times and rates.
UNEQUAL = (
    "metrics.jsonl", "history.json", "report.html", "detector.jaxad", "table.md", "table.csv"
)  # fmt: skip
#: The digests of all arrays of a checkpoint.
DIGESTS = "digests/metadata"


def contents(folder: Path) -> dict[str, bytes]:
    """Returns the files that every run has, with their content if it is the same in all runs."""
    found = {}
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder).as_posix()
        parts = path.relative_to(folder).parts
        # Orbax and TensorBoard draw the names of their files.
        drawn = "tensorboard" in parts or ("checkpoints" in parts and not place.endswith(DIGESTS))
        if path.is_file() and not drawn:
            found[place] = b"" if path.name in UNEQUAL else path.read_bytes()
    return found


def modes(tiny: Path, trained: Path, tmp_path: Path):
    """Returns for each mode its arguments, the folder that it changes, and its initial content."""
    workdir = tmp_path / "run"
    own, saved = f"--workdir={workdir}", [f"--workdir={trained}"]
    config = f"--config={tiny / 'tiny.py'}"
    output = tmp_path / "scores"
    return {
        "train": ([config, own, "--mode=train"], workdir, None),
        "evaluate": ([own, "--mode=evaluate"], workdir, trained),
        "export": ([own, "--mode=export"], workdir, trained),
        "score": (
            [*saved, "--mode=score", f"--input={tiny / 'test_squares.npz'}", f"--output={output}"],
            output,
            None,
        ),
        "study": ([f"--config={tiny / 'study.py'}", own, "--mode=study"], workdir, None),
    }


@pytest.mark.parametrize(
    ("mode", "shares"),
    [
        *((mode, (0.3, 0.6)) for mode in ("train", "export", "score")),
        *(
            pytest.param(mode, (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8), marks=pytest.mark.long)
            for mode in ("train", "evaluate", "export", "score", "study")
        ),
    ],
)
def test_a_killed_command_finishes_with_the_same_files(
    mode, shares, forker, tiny, trained, tmp_path
):
    arguments, folder, before = modes(tiny, trained, tmp_path)[mode]

    def prepare():
        shutil.rmtree(folder, ignore_errors=True)
        if before is not None:
            shutil.copytree(before, folder)

    prepare()
    child = forker.start(*arguments, below=folder)
    ended = forker.finish(child)
    assert ended.code == 0, ended.printed
    expected, changes = contents(folder), len(child.changes)
    assert changes > 2
    prepare()
    killed = []
    for share in shares:  # of the changes of the whole; each has less to do than the one before
        child = forker.start(*arguments, below=folder, kill_at=max(1, round(changes * share)))
        ended = forker.finish(child)
        if ended.code == 0:
            break
        assert ended.code == -9, ended.printed
        killed.append(child.changes[-1])
    assert killed
    ended = forker.run(*arguments)
    assert ended.code == 0, ended.printed
    found = contents(folder)
    assert found.keys() == expected.keys()
    assert found == expected
