"""The command that repeats a run gives the config of the run."""

import shlex

import pytest

from jaxad.command import parse
from jaxad.config import base, get_config, to_json
from jaxad.config.repeat import repeat_command


@pytest.mark.parametrize("name", ["pchvae:smoke", "fanogan:demo", "padim", "aeflow:paper"])
def test_the_command_gives_the_config(name):
    config = get_config(name)
    config.seed = 7
    config.data.normal_classes = ("no tumor", "it's good")
    config.data.preprocess.percentiles = (0.5, 99.25)
    config.data.allow_outside_root = True
    config.optim.learning_rate = 1 / 3
    command = repeat_command(config, "a folder")
    program, script, *flags = shlex.split(command)
    assert (program, script, flags[0]) == ("python", "launch.py", f"--config={name}")
    arguments = parse(flags)
    assert arguments.workdir == "a folder" and arguments.mode == "fit"
    assert to_json(arguments.config) == to_json(config)


def test_paths_are_left_out():
    config = get_config("pchvae:smoke")
    config.data.root, config.init_from = "/home/Mrs. Miller/data", "/home/Mrs. Miller/runs/a"
    command = repeat_command(config, "a")
    assert "Miller" not in command
    assert "--config.data.root=PATH" in command and "--config.init_from=PATH" in command


def test_a_model_without_a_shipped_config_has_no_command():
    config = base()
    config.model.name = "my_package.models:Mine"
    assert repeat_command(config, "a") == ""
