"""Overrides of config fields on the command line reach the config as values of its types."""

import pytest

from jaxad import command
from jaxad import config as config_lib

# --- Overrides.

SMOKE = "--config=pchvae:smoke"


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("config.seed", "7", 7),
        ("config.data.volume.slices", "(20, -20)", (20, -20)),
        ("config.optim.learning_rate", "3e-4", 3e-4),
        ("config.optim.learning_rate", "1", 1.0),
        ("config.data.name", "some where/else", "some where/else"),
        ("config.data.num_subjects", "(1, 2, 3, 4)", (1, 2, 3, 4)),
        ("config.data.num_subjects", "1,2,3,4", (1, 2, 3, 4)),
        ("config.optim.frozen", "('stem/.*', 'trunk')", ("stem/.*", "trunk")),
        ("config.optim.frozen", "stem/.*", ("stem/.*",)),
        ("config.model.widths", "(4,4,4,4)", (4, 4, 4, 4)),
        ("config.model.weights", "(1, 1, 0, 1, 1)", (1, 1, 0, 1, 1)),
    ],
)
@pytest.mark.parametrize("form", ["{flag}={text}", "{flag} {text}"], ids=["equals", "space"])
def test_override_reaches_the_config(field, text, value, form):
    flag = f"--{field}"
    arguments = [flag, text] if " " in form.format(flag="", text="") else [f"{flag}={text}"]
    # Other flags before and behind: the value belongs to its flag.
    _, config, workdir, *_ = command.parse(
        [SMOKE, *arguments, "--workdir", "w", "--config.train.keep_last=9"]
    )
    assert workdir == "w"
    flat = config_lib.flatten(config)
    assert flat[field] == value
    assert type(flat[field]) is type(value)
    changes = config_lib.difference(config, config_lib.get_config("pchvae:smoke"))
    assert {change.split(":")[0] for change in changes} == {field, "config.train.keep_last"}


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("--config.data.augment.mirror=false", False),
        ("--config.data.augment.mirror=0", False),
        ("--noconfig.data.augment.mirror", False),
        ("--config.data.augment.mirror=true", True),
        ("--config.data.augment.mirror", True),
    ],
)
def test_override_of_a_bool(argument, value):
    config = command.parse([SMOKE, argument])[1]
    assert config.data.augment.mirror is value


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ("fit", None, False)),
        (["--mode=train", "--workdir=w"], ("train", "w", False)),
        (["--workdir", "w", "--mode", "evaluate", "--help"], ("evaluate", "w", True)),
    ],
)
def test_own_flags(arguments, expected):
    mode, config, workdir, wants_help, _ = command.parse(arguments)
    assert (mode, workdir, wants_help) == expected
    assert config is None


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config.data.normal_classes=good,no_tumor"],
        ["--config.data.normal_classes", "good,no_tumor"],
        ["--config.data.normal_classes=('good', 'no_tumor')"],
    ],
)
def test_names_need_no_brackets(arguments):
    config = command.parse([SMOKE, *arguments, "--config.seed=1"])[1]
    assert config.data.normal_classes == ("good", "no_tumor") and config.seed == 1


def test_the_last_of_several_overrides_counts():
    config = command.parse([SMOKE, "--config.seed=1", "--config.seed=2"])[1]
    assert config.seed == 2


def test_config_may_stand_behind_its_overrides():
    config = command.parse(["--config.seed=1", "--config", "pchvae:smoke"])[1]
    assert config.seed == 1
    assert config.model.name == "pchvae"
