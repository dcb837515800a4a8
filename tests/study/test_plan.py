"""Plans of shipped studies, and invalid studies."""

from pathlib import Path

import pytest

from jaxad import command
from jaxad import config as config_lib
from jaxad.data import settings
from jaxad.errors import UserError
from jaxad.storage.workdir import Workdir
from jaxad.study.plan import plan, sizes


def test_shipped_studies_share_their_data_and_name_their_reference():
    config = config_lib.get_config("studies/pchvae_table1:demo")
    assert config_lib.is_study(config)
    assert set(config.experiments) == {"pchvae", "chvae", "highvae", "lowvae", "vqvae2"}
    assert config.seeds == (0, 1, 2, 3, 4)
    # Baselines have slightly more parameters (at most 5 %) and the same number of latents.
    found = sizes(plan(config, Workdir("unused")))
    for name, size in found.items():
        assert 1 <= size.parameters / found["pchvae"].parameters < 1.05, name
        # 16 x 4 x 4 and 1 x 16 x 16; VQ-VAE-2 has a code for each place, 16 x 16 and 8 x 8.
        assert size.latents == (320 if name == "vqvae2" else 512)


@pytest.mark.parametrize("variant", ["demo", "smoke"])
@pytest.mark.parametrize(
    "name", sorted(path.stem for path in Path("configs/studies").glob("[!_]*.py"))
)
def test_every_study_runs_on_the_embedded_data(name, variant):
    config = config_lib.get_config(f"studies/{name}:{variant}")
    for seeds in plan(config, Workdir("unused")).values():
        settings.check(seeds[0].config.data)


def test_one_field_names_the_weights_of_aeflow_s_experiments():
    arguments = ["--config=studies/aeflow_ablation:paper", "--config.weights=wide.pth"]
    _, config, *_ = command.parse(arguments)
    weights = {name: config_lib.study_run(config, name, 0).model.weights for name in config.lengths}
    assert weights.pop("random_encoder") == "random"
    assert set(weights.values()) == {"wide.pth"}


def test_one_experiment_s_weights_are_its_own():
    own = "--config.experiments.conv_mse.model.weights=narrow.pth"
    _, config, *_ = command.parse(["--config=studies/aeflow_ablation:paper", own])
    found = {name: config_lib.study_run(config, name, 0).model.weights for name in config.lengths}
    assert found.pop("conv_mse") == "narrow.pth" and found.pop("random_encoder") == "random"
    assert set(found.values()) == {""}


def test_experiments_that_do_not_share_their_data_are_refused():
    one, two = config_lib.get_config("pchvae:smoke"), config_lib.get_config("highvae:smoke")
    two.data.image_size = 128
    with pytest.raises(UserError, match="experiment 'b' has different data"):
        config_lib.study({"a": one, "b": two}, seeds=(0,))
