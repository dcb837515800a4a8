"""Configs: every way to name them, studies, and configs as text."""

from pathlib import Path

import pytest

import jaxad
from jaxad import config as config_lib
from jaxad.errors import UserError

ROOT = Path(__file__).parent.parent.parent
FILES = sorted((ROOT / "configs").glob("*.py"))
STUDIES = sorted((ROOT / "configs" / "studies").glob("*.py"))
SHIPPED = [path.stem for path in FILES]
VARIANTS = ("", ":demo", ":smoke", ":paper")

#: Training as in the papers.
PCHVAE_PAPER = {
    "config.data.name": "hcp",
    "config.data.image_size": 64,
    "config.optim.name": "adam",
    "config.optim.learning_rate": 1e-4,
    "config.optim.b1": 0.9,
    "config.optim.b2": 0.999,
    "config.optim.schedule": "constant",
    "config.optim.warmup_steps": 0,
    "config.optim.clip_norm": 0.0,
    "config.optim.weight_decay": 0.0,
    "config.data.batch_size": 64,
    "config.data.augment.mirror": False,
    "config.train.num_epochs": 10.0,
    "config.precision": "float32",
}
PAPER = dict.fromkeys(("pchvae", "chvae", "highvae", "lowvae"), PCHVAE_PAPER)
#: Sizes of github.com/rosinality/vq-vae-2-pytorch, which the pchVAE paper names.
PAPER["vqvae2"] = PCHVAE_PAPER | {
    "config.model.channels": 128,
    "config.model.residual_blocks": 2,
    "config.model.residual_channels": 32,
    "config.model.num_codes": 512,
    "config.model.code_dimension": 64,
    "config.model.decay": 0.99,
    "config.model.commitment": 0.25,
}
PAPER["aeflow"] = {
    "config.model.backbone": "wide_resnet50_2",
    "config.model.num_blocks": 8,
    "config.model.alpha": 0.5,
    "config.model.beta": 0.9,
    "config.data.name": "oct2017",
    "config.data.image_size": 256,
    "config.data.batch_size": 64,
    "config.train.num_epochs": 100.0,
    "config.optim.name": "adam",
    "config.optim.b1": 0.9,
    "config.optim.learning_rate": 2e-4,
    "config.optim.weight_decay": 1e-5,
    "config.data.augment.mirror": False,
    "config.data.preprocess.square": "stretch",
    "config.model.strides": (16,),
    "config.model.whitening": "none",
    "config.model.flow_score": "exp_mean",
}
#: AE-FLOW, Section 3.2, for the images of all systems; the rest is from the paper of each system.
TABLE1 = {
    "config.data.image_size": 256,
    "config.data.batch_size": 64,
    "config.data.preprocess.square": "stretch",
}
PAPER["ae"] = TABLE1
PAPER["fanogan"] = TABLE1 | {
    # Gulrajani et al. 2017, Algorithm 1, and Schlegl et al. 2019.
    "config.model.gradient_penalty": 10.0,
    "config.model.kappa": 1.0,
    "config.model.latents": 128,
    "config.optim.learning_rate": 1e-4,
    "config.optim.b1": 0.0,
    "config.optim.b2": 0.9,
    "config.optim.networks.encoder.learning_rate": 5e-5,
    "config.train.updates.generator": (0.0, 0.7, 5),
    # Its authors' code: a tanh ends the encoder; layer norm in the critic, as in Gulrajani et al.
    "config.model.bounded_code": True,
    "config.model.critic_norm": "layer",
}
PAPER["ganomaly"] = TABLE1 | {
    # Akcay et al. 2018, Section 4.
    "config.model.adversarial": 1.0,
    "config.model.contextual": 50.0,
    "config.model.encoding": 1.0,
    "config.model.latents": 100,
    "config.optim.learning_rate": 2e-4,
    "config.optim.b1": 0.5,
    "config.optim.b2": 0.999,
    "config.train.num_epochs": 15.0,
    # Its authors' code: 64 channels that double down to 4 x 4.
    "config.model.widths": (64, 128, 256, 512, 1024, 2048),
    "config.model.depth": 0,
    "config.model.code_distance": "absolute",
}
PAPER["differnet"] = TABLE1 | {
    # Rudolph et al. 2021, Section 4.2: batches of 96, 192 epochs, 64 views of each test image, 8
    # blocks. Its authors' code: the batch is 24 images with 4 views each; Adam (.8, .8), epsilon
    # 1e-4; three hidden layers of 2048.
    "config.data.batch_size": 24,
    "config.model.update_views": 4,
    "config.model.hidden_widths": (2048, 2048, 2048),
    "config.optim.b1": 0.8,
    "config.optim.b2": 0.8,
    "config.optim.epsilon": 1e-4,
    "config.model.views": 64,
    "config.model.num_blocks": 8,
    "config.model.scales": (1, 2, 4),
    "config.optim.learning_rate": 2e-4,
    "config.train.num_epochs": 192.0,
}
PAPER["fastflow"] = TABLE1 | {
    # Yu et al. 2021, Section 4.2: 8 steps of flow, Adam, batches of 32, 500 epochs.
    "config.data.batch_size": 32,
    "config.model.backbone": "wide_resnet50_2",
    "config.model.num_blocks": 8,
    "config.optim.learning_rate": 1e-3,
    "config.optim.weight_decay": 1e-5,
    "config.train.num_epochs": 500.0,
}
PAPER["patchcore"] = TABLE1 | {
    # Roth et al. 2022, Section 4.1: the second and third level of WideResNet50; memories of 1 to
    # 25 % of some hundred thousand patches.
    "config.model.backbone": "wide_resnet50_2",
    "config.model.strides": (8, 16),
    "config.model.memory_size": 16_384,
}
PAPER["padim"] = TABLE1 | {
    # Defard et al. 2021, Section IV: the first three levels of WideResNet50, 550 random channels.
    "config.model.backbone": "wide_resnet50_2",
    "config.model.strides": (4, 8, 16),
    "config.model.num_channels": 550,
}


def _types(config):
    return {path: type(value) for path, value in config_lib.flatten(config).items()}


# --- Naming.


def test_every_config_has_its_paper_in_the_table():
    assert set(SHIPPED) == set(PAPER)
    known = tuple(variant.removeprefix(":") for variant in VARIANTS)
    assert known == config_lib.VARIANTS


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", SHIPPED)
def test_every_way_of_naming_gives_the_same_config(name, variant, tmp_path, monkeypatch):
    named = config_lib.get_config(f"{name}{variant}")
    spellings = [f"configs/{name}.py", str(ROOT / "configs" / f"{name}.py"), f"{name}.py", name]
    for folder in (ROOT, tmp_path):
        monkeypatch.chdir(folder)
        for spelling in spellings:
            other = config_lib.get_config(f"{spelling}{variant}")
            assert other.to_dict() == named.to_dict(), f"{spelling} from {folder}"
    assert jaxad.get_config(f"{name}{variant}").to_dict() == named.to_dict()
    assert named.model.name == name


@pytest.mark.parametrize("name", SHIPPED)
def test_an_empty_variant_is_the_recommended_setting(name):
    assert config_lib.get_config(f"{name}:").to_dict() == config_lib.get_config(name).to_dict()


@pytest.mark.parametrize("name", SHIPPED)
def test_variants_differ_from_the_recommended_setting(name):
    recommended = config_lib.get_config(name)
    for variant in VARIANTS[1:]:
        assert config_lib.difference(config_lib.get_config(f"{name}{variant}"), recommended)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", SHIPPED)
def test_variants_have_the_fields_and_types_of_the_recommended_setting(name, variant):
    """An override that one variant accepts is accepted by all."""
    ours = _types(config_lib.get_config(f"{name}{variant}"))
    assert ours == _types(config_lib.get_config(name))
    assert (
        ours.items()
        >= {
            path: kind for path, kind in _types(config_lib.base()).items() if path != "config.model"
        }.items()
    )


@pytest.mark.parametrize("name", PAPER)
def test_paper_variant_has_the_papers_numbers(name):
    config = config_lib.flatten(config_lib.get_config(f"{name}:paper"))
    assert {path: config[path] for path in PAPER[name]} == PAPER[name]


def test_ae_flow_on_chest_x_rays_is_the_papers():
    # Section 3.2 (optimiser) and Table 3 (subnet and loss of its best figure).
    paper = config_lib.get_config("aeflow:paper")
    assert config_lib.difference(config_lib.get_config("aeflow:chest"), paper) == [
        "config.data.name: 'oct2017' -> 'chestxray'",
        "config.model.reconstruction_loss: 'mse' -> 'ssim'",
        "config.model.subnet: 'resnet' -> 'conv'",
        "config.optim.learning_rate: 0.0002 -> 0.001",
        "config.optim.weight_decay: 1e-05 -> 0.0",
    ]


@pytest.mark.parametrize("path", FILES, ids=SHIPPED)
def test_config_files_stay_short(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 40, "what is shared belongs into jaxad/config/protocols.py"


def test_two_calls_share_nothing():
    first = config_lib.get_config("pchvae")
    first.optim.learning_rate = 7.0
    assert config_lib.get_config("pchvae").optim.learning_rate != 7.0


# --- Config files of the user.

USER_FILE = """
from jaxad.config import base

def get_config(variant=""):
    config = base()
    config.model.name = "mine" + variant
    return config
"""


@pytest.mark.parametrize("absolute", [True, False], ids=["absolute", "relative"])
def test_a_file_of_the_user(tmp_path, monkeypatch, absolute):
    (tmp_path / "sub").mkdir()
    own = tmp_path / "sub" / "my-study.py"
    own.write_text(USER_FILE)
    monkeypatch.chdir(tmp_path)
    name = str(own) if absolute else "sub/my-study.py"
    config = config_lib.get_config(f"{name}:big")
    assert config.model.name == "minebig"
    with pytest.raises(AttributeError):
        config.new_field = 1


def test_the_user_s_file_comes_before_a_shipped_one(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "pchvae.py").write_text(USER_FILE)
    monkeypatch.chdir(tmp_path)
    assert config_lib.get_config("configs/pchvae.py").model.name == "mine"
    assert config_lib.get_config("pchvae").model.name == "pchvae"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pchva", r"config 'pchva': no such config; did you mean 'pchvae'\? known: .*pchvae"),
        ("zzz:demo", r"config 'zzz': no such config; known: .*pchvae"),
        ("configs/zzz.py", r"config 'configs/zzz\.py': no such file; known: .*pchvae"),
        ("/nowhere/zzz.py:demo", r"config '/nowhere/zzz\.py': no such file; known: "),
        (":demo", r"config ':demo': no name before the colon; known: .*pchvae"),
        ("", r"config '': no name before the colon; known: .*pchvae"),
        (
            "pchvae:dem",
            r"'pchvae:dem': no such variant; known: 'pchvae', 'pchvae:demo', 'pchvae:smoke', "
            r"'pchvae:paper'\.",
        ),
        ("configs/pchvae.py:demo:2", r"'pchvae:demo:2': no such variant; known: 'pchvae'"),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(name, expected):
    with pytest.raises(UserError, match=expected) as raised:
        config_lib.get_config(name)
    assert "\n" not in str(raised.value)


def test_a_file_without_get_config_is_refused(tmp_path):
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(UserError, match=r"empty\.py': defines no get_config\(variant\)"):
        config_lib.get_config(str(tmp_path / "empty.py"))


# --- Studies.


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_studies_resolve_by_every_name_and_survive_json(path, variant, tmp_path, monkeypatch):
    named = config_lib.get_config(f"studies/{path.stem}{variant}")
    assert config_lib.is_study(named)
    monkeypatch.chdir(tmp_path)
    other = config_lib.get_config(f"configs/studies/{path.stem}.py{variant}")
    assert config_lib.to_json(other) == config_lib.to_json(named)
    assert not config_lib.is_study(config_lib.get_config("pchvae"))
    assert len(path.read_text().splitlines()) <= 50  # a study lists what it varies
    assert config_lib.from_json(config_lib.to_json(named)).seeds == named.seeds


def test_a_study_s_data_are_those_of_every_experiment():
    one, two = config_lib.get_config("pchvae:smoke"), config_lib.get_config("highvae:smoke")
    config = config_lib.study({"a": one, "b": two}, seeds=(0,))
    config.data.root, config.num_epochs = "/elsewhere", 3.0
    for name, original in {"a": one, "b": two}.items():
        run = config_lib.study_run(config, name, 7)
        assert config_lib.difference(run, original) == [
            f"config.seed: {original.seed} -> 7",
            f"config.train.num_epochs: {original.train.num_epochs} -> 3.0",
        ]
        assert run.data.root == "/elsewhere"
        # Shared fields are stored once: no experiment can get another value by mistake.
        assert "root" not in config.experiments[name].data
    assert one.data.root == ""  # copies


# --- Fields.


def test_fields_can_be_changed_but_neither_added_nor_given_another_type():
    config = config_lib.get_config("pchvae")
    config.optim.learning_rate = 0.5
    assert config.optim.learning_rate == 0.5
    with pytest.raises(AttributeError):
        config.optim.learning_rat = 0.5
    with pytest.raises(TypeError):
        config.optim.learning_rate = "fast"


def test_flatten_names_fields_as_the_command_line_does():
    flat = config_lib.flatten(config_lib.get_config("pchvae"))
    assert flat["config.seed"] == 0
    assert flat["config.data.augment.mirror"] is True
    assert flat["config.data.num_subjects"] == (240, 120, 60, 60)
    assert "config.data" not in flat


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", SHIPPED)
def test_json_round_trip_keeps_values_types_and_the_lock(name, variant):
    config = config_lib.get_config(f"{name}{variant}")
    text = config_lib.to_json(config)
    back = config_lib.from_json(text)
    assert back.to_dict() == config.to_dict()
    assert _types(back) == _types(config)  # tuples, and 40.0 is no 40
    assert config_lib.to_json(back) == text
    assert config_lib.difference(back, config) == []
    with pytest.raises(AttributeError):
        back.new_field = 1


def test_nested_tuples_survive_json():
    config = config_lib.base()
    config.data.num_subjects = ((1, 2), (3,))
    assert config_lib.from_json(config_lib.to_json(config)).data.num_subjects == ((1, 2), (3,))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null"])
def test_text_that_is_not_a_json_object_is_a_value_error(text):
    with pytest.raises(ValueError):
        config_lib.from_json(text)


def test_files_that_leave_the_machine_have_neither_its_paths_nor_its_permissions():
    """An exported detector must not read what the run's own table was allowed to name."""
    config = config_lib.get_config("aeflow")
    config.data.root = config.data.test.root = "/home/ann"
    config.model.weights = "/home/ann/weights.pth"
    config.data.allow_outside_root = True
    config.data.check_sizes = True
    shared = config_lib.without_paths(config)
    assert "/home/ann" not in config_lib.to_json(shared)
    assert shared.data.allow_outside_root is False and shared.data.check_sizes is True
    assert config.data.allow_outside_root is True


def test_difference_lists_the_changed_fields_and_no_others():
    ours, theirs = config_lib.get_config("pchvae"), config_lib.get_config("pchvae")
    assert config_lib.difference(ours, theirs) == []
    ours.optim.learning_rate = 0.5
    theirs.data.num_subjects = (1, 2, 3, 4)
    theirs.data.root = "/other"
    assert config_lib.difference(ours, theirs) == [
        "config.data.num_subjects: (1, 2, 3, 4) -> (240, 120, 60, 60)",
        "config.optim.learning_rate: 0.005 -> 0.5",
    ]  # the root is a path of this machine and does not count


def test_difference_lists_fields_that_only_one_config_has():
    """The folder holds a run of another system."""
    ours, theirs = config_lib.base(), config_lib.base()
    ours.model.widths = (1,)
    theirs.model.depth = 3
    assert config_lib.difference(ours, theirs) == [
        "config.model.depth: 3 -> '(absent)'",
        "config.model.widths: '(absent)' -> (1,)",
    ]
