"""Names that a library could misread: a run works, or is refused before it begins."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

UNDECODABLE = os.fsdecode(b"x\xff")
ROOT = Path(__file__).parent.parent.parent


#: Names that are treated like `a*`.
_MORE_NAMES = ("a**b", "{a,b} 100%#")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder that the runs of this module share: a pattern might match another run's name."""
    return tmp_path_factory.mktemp("runs")


@pytest.mark.parametrize(
    "name", ["lr=[0.1]", "a*", *(pytest.param(n, marks=pytest.mark.long) for n in _MORE_NAMES)]
)
def test_a_run_in_a_folder_that_looks_like_a_pattern(forker, tiny, runs, trained, name):
    workdir = runs / name
    ended = forker.run(f"--config={tiny / 'tiny.py'}", f"--workdir={workdir}", "--mode=train")
    assert ended.code == 0, ended.printed
    place = "checkpoints/12/digests/metadata"
    assert (workdir / place).read_bytes() == (trained / place).read_bytes()
    source, output = tiny / "test_squares.npz", f"--output={workdir / 'scores'}"
    ended = forker.run(f"--workdir={workdir}", "--mode=score", f"--input={source}", output)
    assert ended.code == 0 and "damaged" not in ended.printed, ended.printed


@pytest.mark.parametrize(
    ("name", "reason"), [("a\\b", "has a backslash"), (UNDECODABLE, "its name is not UTF-8")]
)
@pytest.mark.parametrize("mode", ["train", "study"])
def test_a_run_in_a_folder_that_cannot_be_written_to(forker, tiny, tmp_path, name, reason, mode):
    config = "study.py" if mode == "study" else "tiny.py"
    workdir = tmp_path / name / "run"
    ended = forker.run(f"--config={tiny / config}", f"--workdir={workdir}", f"--mode={mode}")
    assert reason in ended.only_line(2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "by"),
    [("lr=[0.1]", "root"), ("a**b", "variable"), ("a*", "root"), ("b\\c", "variable")],
)
def test_data_are_generated_once_in_a_folder_that_looks_like_a_pattern(forker, tmp_path, name, by):
    data = tmp_path / name
    root = [f"--config.data.root={data}"] if by == "root" else []
    environment = {} if by == "root" else {"TFDS_DATA_DIR": str(data)}
    arguments = [
        "--config=pchvae:smoke", "--mode=inspect", f"--workdir={tmp_path / 'w'}",
        "--config.data.num_subjects=(1,1,1,1)", *root,
    ]  # fmt: skip

    def written():
        ended = forker.run(*arguments, **environment)
        assert ended.code == 0, ended.printed
        files = (data / "icbm_synth").rglob("*.array_record*")
        return {path: path.stat().st_mtime_ns for path in files}

    first = written()
    assert first and written() == first


@pytest.mark.parametrize("name", ["[in] a**b", f"b\\c{UNDECODABLE}"])
def test_inputs_and_outputs_of_score(forker, tiny, trained, tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    source = shutil.copy(tiny / "test_squares.npz", folder / "x[1].npz")
    output = folder / "out"
    ended = forker.run(
        f"--workdir={trained}", "--mode=score", f"--input={source}", f"--output={output}"
    )
    assert ended.code == 0, ended.printed
    assert len((output / "scores.csv").read_text().splitlines()) == 25


def test_home_folders_of_unknown_users(forker, tiny, trained, tmp_path):
    nobody = "~nosuchuser/x"
    config, own = f"--config={tiny / 'tiny.py'}", f"--workdir={trained}"
    new = f"--workdir={tmp_path / 'w'}"
    for flag, arguments in {
        "--workdir": [config, f"--workdir={nobody}"],
        "config.data.root": [config, new, f"--config.data.root={nobody}"],
        "config.data.test.root": [
            config, new, "--config.data.test.name=npz", f"--config.data.test.root={nobody}",
        ],
        "--input": [own, "--mode=score", f"--input={nobody}", f"--output={tmp_path}"],
        "--output": [own, "--mode=score", f"--input={tiny}", f"--output={nobody}"],
        "--normals": [own, "--mode=calibrate", f"--normals={nobody}"],
        "--compare": [own, "--mode=report", f"--compare={nobody}"],
        "config.model.weights": ["--config=aeflow:smoke", new, f"--config.model.weights={nobody}"],
    }.items():  # fmt: skip
        line = forker.run(*arguments).only_line(2)
        assert line.startswith(f"error: {flag}: '{nobody}': there is no user '~nosuchuser';"), line


# --- Names in data.


def images(root: Path, names: dict[str, list[str]]) -> Path:
    """Writes images of noise below a folder."""
    generator = np.random.default_rng(0)
    for folder, files in names.items():
        for name in files:
            path = root / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                pixels = generator.integers(0, 255, (16, 16), dtype=np.uint8)
                Image.fromarray(pixels).save(file, "PNG")
    return root


def arguments(workdir: Path, root: Path) -> list[str]:
    return [
        "--config=lowvae:smoke", f"--workdir={workdir}", "--config.data.name=folder",
        f"--config.data.root={root}", "--config.data.image_size=16", "--config.data.batch_size=8",
        "--config.train.num_epochs=1", "--config.evaluate.bootstrap_resamples=5",
    ]  # fmt: skip


def numbered(prefix: str, count: int = 6) -> list[str]:
    return [f"{prefix}{number}.png" for number in range(count)]


def test_files_whose_names_are_not_utf_8(forker, tmp_path):
    """Bytes that are not UTF-8 are written as text such as `\\xff` in every file of the run."""
    u = UNDECODABLE
    names = {
        "train/good": [*numbered("a", 20), f"{u}/1.png"],
        "test/good": [*numbered("g"), f"{u}.png"],
        "test/bad": [*numbered("b"), f"{u}/1.png", f"{u}.png"],
    }
    root, workdir = images(tmp_path / f"data{u}", names), tmp_path / "run"
    ended = forker.run(*arguments(workdir, root))
    assert ended.code == 0, ended.printed
    with (workdir / "eval/test/scores.csv").open(encoding="utf-8") as file:
        ids = [row["id"] for row in csv.DictReader(file)]
    assert {rf"test/bad/x\xff{end}" for end in (".png", "/1.png")} < set(ids)
    assert len(set(ids)) == len(ids) == 15
    assert r"test/bad/x\xff.png" in (workdir / "report.html").read_text(encoding="utf-8")
    json.loads((workdir / "splits.json").read_text(encoding="utf-8"))
    # A bad one is named, and left out where that is asked for.
    bad = root / "test/bad" / f"{u}.png"
    bad.write_bytes(b"no image")
    output = tmp_path / "out"
    ended = forker.run(
        f"--workdir={workdir}", "--mode=score", f"--input={root / 'test'}", f"--output={output}"
    )
    assert ended.code == 0, ended.printed
    assert r"bad/x\xff.png" in (output / "errors.csv").read_text(encoding="utf-8")
    line = forker.run(*arguments(tmp_path / "b", root)).only_line(2)
    assert "bad/x\\udcff.png: not a readable image" in line
    ended = forker.run(*arguments(tmp_path / "b", root), "--config.data.on_error=skip")
    assert ended.code == 0, ended.printed


def test_a_split_whose_name_is_not_utf_8(forker, tiny, tmp_path):
    root = shutil.copytree(tiny, tmp_path / "data")
    shutil.move(root / "test_squares.npz", root / f"test_{UNDECODABLE}.npz")
    line = forker.run(
        f"--config={tiny / 'tiny.py'}", f"--workdir={tmp_path / 'w'}", f"--config.data.root={root}"
    ).only_line(2)
    assert r"the name of split 'test_x\xff' is not UTF-8; rename it" in line


@pytest.mark.parametrize(
    ("variables", "workdir"),
    [
        pytest.param({"PYTHONIOENCODING": "ascii"}, "wörk", marks=pytest.mark.long),
        ({"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}, "work"),
    ],
)
def test_a_terminal_that_cannot_show_umlauts(launch_environment, tmp_path, variables, workdir):
    """It shows escapes; files are UTF-8 as usual."""
    root = images(tmp_path / "dätä", {
        "train/good": numbered("ä", 20), "test/good": numbered("gö"), "test/bad": ["µ/ß.png"],
    })  # fmt: skip
    ended = subprocess.run(
        [sys.executable, ROOT / "launch.py", *arguments(tmp_path / workdir, root)],
        capture_output=True, env=launch_environment | variables, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert b"report: " in ended.stdout and ended.stdout.isascii()
    table = (tmp_path / workdir / "eval/test/scores.csv").read_text(encoding="utf-8")
    assert "test/bad/µ/ß.png" in table


def test_a_folder_that_python_cannot_name(launch_environment, tmp_path):
    """The remedy in the message works."""
    command = [sys.executable, ROOT / "launch.py", f"--workdir={tmp_path}/wörk"]
    command += ["--config=lowvae:smoke", "--config.model.widths=(0,8)"]  # refused after the imports

    def run(**variables: str) -> str:
        environment = launch_environment | {"LC_ALL": "C"} | variables
        return subprocess.run(
            command, capture_output=True, env=environment, check=False, text=True
        ).stderr

    assert "set PYTHONUTF8=1, or choose another" in run(PYTHONUTF8="0")
    assert "(0, 8)" in run(PYTHONUTF8="1")


def test_a_run_with_a_comma_in_its_name_is_one_run(forker, trained, tmp_path):
    """A comma separates runs only if no folder has the whole name."""
    run = shutil.copytree(trained, tmp_path / "run")
    other = shutil.copytree(trained, tmp_path / "a,b")
    ended = forker.run(f"--workdir={run}", "--mode=evaluate")
    assert ended.code == 0, ended.printed
    line = forker.run(f"--workdir={run}", "--mode=report", f"--compare={other}").only_line(2)
    assert f"'{other}'" in line and "has no scores" in line
    line = forker.run(f"--workdir={run}", "--mode=report", f"--compare={other},x").only_line(2)
    assert f"workdir '{tmp_path / 'a'}': no such folder or file" in line
