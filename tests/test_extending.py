"""The worked example of docs/extending.md: its code blocks, run as a user's project."""

import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

PAGE = Path(__file__).parent.parent / "docs" / "extending.md"
BLOCK = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```", re.M | re.S)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with the files of the page, after its script has run there."""
    folder = tmp_path_factory.mktemp("project")
    for name, code in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        with (folder / name).open("a", encoding="utf-8") as file:
            file.write(code)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        runpy.run_path("run.py")
    yield folder
    for path in folder.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.mark.parametrize("run", ["trained", "fitted"])
def test_detector_finds_the_squares_and_metric_is_reported(project, run):
    workdir = project / "runs" / run
    metrics = json.loads((workdir / "eval/test_squares/metrics.json").read_text())
    assert metrics["auroc"]["value"] > 0.75  # the square is four standard deviations bright
    rows = np.genfromtxt(
        workdir / "eval/test_squares/scores.csv", delimiter=",", names=True, usecols=(3, 4)
    )
    normal, anomalous = (rows["score"][rows["label"] == label] for label in (0, 1))
    expected = np.mean(anomalous > np.quantile(normal, 0.9))
    metric = metrics["sensitivity_at_90"]
    assert metric["value"] == pytest.approx(expected)
    assert metric["low"] <= metric["value"] <= metric["high"]
    assert "Sensitivity at 90" in (workdir / "report.html").read_text(encoding="utf-8")
