"""The script behind continuous integration, `.ci/run`."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / ".ci" / "run"


@pytest.fixture(autouse=True)
def skip_without_script():
    if not SCRIPT.is_file():
        pytest.skip("a source distribution has no .ci")


def test_script_is_valid_bash():
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)


def test_script_runs_the_test_command_of_the_readme():
    script = SCRIPT.read_text(encoding="utf-8")
    assert "pip install -e '.[test]' && pytest" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "pip install --quiet -e '.[test]'\npytest\n" in script
