"""The records of config fields, and what follows from them."""

import re

import pytest

from jaxad import cli, command
from jaxad import config as config_lib
from jaxad.config.field import Field
from jaxad.config.fields import FIELDS, STUDY_FIELDS, find
from jaxad.config.help import describe, field_lines
from jaxad.config.model import PRECISIONS
from jaxad.data.prepare import cutting
from jaxad.errors import UserError
from jaxad.train.feature_cache import DTYPES


@pytest.mark.parametrize("field", (*FIELDS, *STUDY_FIELDS), ids=lambda field: field.path)
def test_a_record_is_complete(field):
    assert find(field.path) is field  # no path twice
    assert field.help.endswith(".") and "\n" not in field.help and len(field.help) <= 85
    if not field.is_open_group:
        field.check(field.path, field.default)


def test_choices_are_the_implementations():
    assert find("precision").allowed == tuple(PRECISIONS)
    assert find("data.volume.plane").allowed == tuple(cutting._PLANES)
    assert find("train.feature_cache_dtype").allowed == tuple(DTYPES)


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("[0, 1]", (0, 0.5, 1), (-1, 1.1, float("nan"))),
        ("(0, 1)", (0.5,), (0, 1)),
        ("[1, inf)", (1, 10**9), (0, float("inf"))),
    ],
)
def test_intervals(interval, inside, outside):
    field = Field("x", 0.5, "A number.", interval)
    field.check("config.x", inside)  # each item of a tuple
    for value in inside:
        field.check("config.x", value)
    for value in outside:
        with pytest.raises(UserError, match=re.escape(f"config.x: {value} is not in {interval}.")):
            field.check("config.x", value)
        with pytest.raises(UserError, match=re.escape(f"each in {interval}.")):
            field.check("config.x", (*inside, value))


def test_records_are_found_below_networks_experiments_and_open_groups():
    rate = find("optim.learning_rate")
    assert find("config.optim.networks.encoder.learning_rate") is rate
    assert find("config.experiments.pchvae.optim.learning_rate") is rate
    assert find("config.experiments.a.optim.networks.encoder.learning_rate") is rate
    assert find("config.train.updates.critic") is find("train.updates")
    assert find("config.lengths.pchvae") is find("lengths")
    assert find("config.model.widths") is None


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("fanogan", "optim.networks.encoder.b1=2", "encoder.b1: 2.0 is not in [0, 1]."),
        ("studies/pchvae_table1", "num_epochs=0", "config.num_epochs: 0.0 is not in (0, 1e9]."),
        ("studies/pchvae_table1", "lengths.pchvae=-1", "lengths.pchvae: -1.0 is not in (0, inf)."),
        (
            "studies/pchvae_table1",
            "seeds=0,-1",
            "config.seeds: (0, -1); give at least one number",
        ),
        ("ae", "data.in_memory=-1", "config.data.in_memory: -1.0 is not in [0, 1e9]."),
        ("ae", "data.in_memory=nan", "config.data.in_memory: nan is not in [0, 1e9]."),
        (
            "studies/pchvae_table1",
            "data.on_error=no",
            "on_error: unknown 'no'; known: raise",
        ),
        (
            "studies/pchvae_table1",
            "experiments.chvae.optim.name=adm",
            "config.experiments.chvae.optim.name: unknown 'adm'; did you mean 'adam'? known: adam",
        ),
    ],
)
def test_overrides_outside_of_what_is_allowed_are_refused(name, override, message):
    with pytest.raises(UserError, match=re.escape(message)):
        command.parse([f"--config={name}:smoke", f"--config.{override}"])


@pytest.mark.parametrize("name", ["fanogan", "studies/aeflow_ablation"])
def test_help_has_every_field_and_its_record(name):
    config = config_lib.get_config(f"{name}:demo")
    text = "\n".join(field_lines(config, width=10**6))
    for path, value in config_lib.flatten(config).items():
        (found,) = re.findall(rf"^  --{re.escape(f'{path}={value}')}(?:\s+(\w.*))?$", text, re.M)
        field = find(path)
        assert field is None or found == describe(field)


def test_help_wraps_to_the_width():
    lines = field_lines(config_lib.get_config("pchvae"), width=110)
    assert max(map(len, lines)) <= 110
    assert any(line.startswith(" " * 50) for line in lines)


# --- Configs and models of other packages.

OUTSIDE = """
from jaxad.config import base

def get_config(variant=""):
    config = base()
    config.model.name = "my_package.my_module:MyModel"
    config.model.width = 8
    if variant == "large":
        config.model.width = 32
    return config
"""


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A config file of the user's, in the current folder; its model cannot be imported."""
    (tmp_path / "mine.py").write_text(OUTSIDE)
    monkeypatch.chdir(tmp_path)
    return "mine.py"


def test_a_config_of_the_user_names_a_model_of_the_user(outside, capsys):
    config = config_lib.get_config(f"{outside}:large")
    assert (config.model.name, config.model.width) == ("my_package.my_module:MyModel", 32)
    arguments = [f"--config={outside}", "--config.model.width=16", "--config.optim.b1=0.5"]
    config = command.parse(arguments).config
    assert (config.model.width, config.optim.b1) == (16, 0.5)
    assert cli.main([*arguments, "--help"]) == 0
    text = capsys.readouterr().out
    assert "  --config.model.width=16\n" in text
    assert "  --config.model.name=my_package.my_module:MyModel" in text


def test_mistakes_in_overrides_of_the_user_s_config(outside):
    with pytest.raises(UserError, match="no such field; did you mean '--config.model.width'"):
        command.parse([f"--config={outside}", "--config.model.widht=16"])
    with pytest.raises(UserError, match=r"model\.width=a: give a whole number"):
        command.parse([f"--config={outside}", "--config.model.width=a"])


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("optim.lr", "optim.learning_rate"),
        ("lr", "optim.learning_rate"),
        ("train.epochs", "train.num_epochs"),
        ("data.bs", "data.batch_size"),
        ("batch", "data.batch_size"),
        ("optim.wd", "optim.weight_decay"),
        ("data.img_size", "data.image_size"),
        ("model.image_size", "data.image_size"),
        ("optim.learning-rate", "optim.learning_rate"),
        ("evaluate.fpr", "evaluate.false_positive_rate"),
    ],
)
def test_other_names_of_fields_are_translated(written, meant, capsys):
    assert cli.main(["--config=pchvae:smoke", "--workdir=x", f"--config.{written}=1"]) == 2
    line = capsys.readouterr().err
    assert f"--config.{written}: no such field; did you mean '--config.{meant}'?" in line


def test_flags_without_config_are_translated(capsys):
    assert cli.main(["--config=pchvae:smoke", "--workdir=x", "--epochs=1"]) == 2
    assert "--epochs: no such flag; did you mean '--config.train.num_epochs'?" in (
        capsys.readouterr().err
    )


def test_no_two_fields_share_an_alias():
    aliases = [alias for field in (*FIELDS, *STUDY_FIELDS) for alias in field.aliases]
    assert len(set(aliases)) == len(aliases)
    paths = {field.path.rpartition(".")[2] for field in FIELDS}
    assert not paths & set(aliases)
