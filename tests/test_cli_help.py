"""The help of the command line."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jaxad import cli, command
from jaxad import config as config_lib

ROOT = Path(__file__).parent.parent
SMOKE = "--config=pchvae:smoke"


def test_help_of_a_long_flag_begins_on_its_own_line(capsys):
    assert cli.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    place = lines.index("  --group_pattern")
    assert lines[place + 1].startswith("              score, calibrate: ")


def test_help_tells_the_modes_and_with_a_config_its_fields(capsys):
    assert cli.main(["--help"]) == 0
    plain = capsys.readouterr()
    assert plain.err == ""
    for word in ("--config", "--workdir", "--mode", *command.MODES, *config_lib.VARIANTS):
        assert word in plain.out
    assert "--config.seed=" not in plain.out
    assert cli.main([SMOKE, "--help", "--config.seed=9"]) == 0
    with_config = capsys.readouterr().out
    for field in config_lib.flatten(config_lib.get_config("pchvae:smoke")):
        assert f"--{field}=" in with_config
    assert re.search(r"--config\.seed=9 +Seed of initial", with_config)
    assert re.search(r"--config\.optim\.name=adam +Optimiser\. One of adam, adamw", with_config)


def _imported(*arguments, code):
    """Top-level packages that a fresh interpreter imports while it runs the arguments."""
    result = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == code, result.stderr
    lines = re.findall(r"^import time: .*\| +(\S+)$", result.stderr, re.MULTILINE)
    return {line.split(".")[0] for line in lines}, result


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["launch.py", "--help"], 0, "python launch.py --config=CONFIG"),
        (["launch.py", SMOKE, "--help"], 0, "--config.optim.learning_rate="),
        (["launch.py", SMOKE, "--workdir=x", "--config.seeed=1"], 2, "config.seed"),
        (["launch.py", "--zzz"], 2, "no such flag"),
        (["-c", "import jaxad; print(jaxad.get_config('pchvae').model.name)"], 0, "pchvae"),
    ],
    ids=["help", "help-of-config", "bad-override", "bad-flag", "import-jaxad"],
)
def test_what_is_told_at_once_imports_nothing_heavy(arguments, code, says):
    heavy = {"tensorflow", "distrax", "jax", "flax", "orbax", "sklearn", "matplotlib"}
    for package in heavy:
        assert importlib.util.find_spec(package), f"{package} is not there to be imported"
    imported, result = _imported(*arguments, code=code)
    assert says in result.stdout + result.stderr
    assert "jaxad" in imported
    assert not imported & heavy
