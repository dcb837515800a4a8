"""`--mode=profile`: its results in both parallel modes and every phase, and its files."""

import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxad import run
from jaxad.config import get_config, run_config
from jaxad.errors import UserError
from jaxad.profile import profiling, table
from jaxad.storage.workdir import Workdir

SIZE, COUNT, BATCH = 16, 32, 16


@pytest.fixture(scope="module")
def npz_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("npz")
    rng = np.random.default_rng(0)
    for name in ("train", "val"):
        images = rng.uniform(size=(COUNT, SIZE, SIZE)).astype("float32")
        np.savez(root / f"{name}.npz", image=images)
    return root


@pytest.fixture
def make_config(npz_root):
    def make(name):
        config = get_config(name).unlock()
        config.data.name, config.data.root, config.data.image_size = "npz", str(npz_root), SIZE
        config.data.batch_size = BATCH
        return config

    return make


@pytest.fixture(autouse=True)
def small_matrices(monkeypatch):
    monkeypatch.setattr(profiling, "_LONG_ENOUGH", 0.0)


def profiled(config, folder, capsys):
    """Returns the content of `profile.json` and the output."""
    run.profile(config, folder, steps=4)
    found = json.loads((folder / "profile" / "profile.json").read_text())
    printed = capsys.readouterr().out
    assert (folder / "profile" / "profile.txt").read_text() in printed
    return found, printed


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_a_profile_of_both_modes(make_config, tmp_path, capsys, mode):
    config = make_config("ae:smoke")
    config.model.widths, config.model.depth, config.parallel = (8, 8), 0, mode
    found, printed = profiled(config, tmp_path, capsys)
    assert found["about"]["devices"] == 8
    assert found["about"]["parallel"] == mode
    (phase,) = found["phases"]
    assert phase["networks"] == ["model"]
    for name in ("step", "input_wait", "host_to_device"):
        times = phase[name]
        assert 0 < times["min"] <= times["median"] <= times["max"], name
    costs = phase["costs"]
    assert costs["flops"] > 0 and costs["bytes_accessed"] > 0 and costs["peak_memory"] > 0
    # Every parameter's gradient crosses the devices, and little else.
    assert 4 * found["parameters"] <= sum(costs["all_reduces"]) <= 4 * found["parameters"] + 64
    flops = costs["flops"] * 8 / phase["step"]["median"]
    assert phase["achieved"] == pytest.approx(flops)
    assert phase["fraction_of_peak"] == pytest.approx(flops / found["peak"]["flops_per_second"])
    for shares in (phase["kinds"], phase["layers"]):
        assert math.isclose(sum(shares.values()), 1.0)
    assert "dot_general" in phase["kinds"]
    assert found["images_per_second"] == pytest.approx(phase["images_per_second"])
    assert "of the measured peak" in printed and table.UNKNOWN not in printed
    # A trace that TensorBoard and Perfetto open, and a folder that is still no run's.
    traces = sorted(
        path.suffix for path in (tmp_path / "profile/model").rglob("*.*") if path.is_file()
    )
    assert traces == [".gz", ".pb"]
    assert {path.name for path in tmp_path.iterdir()} == {"profile", ".lock"}


@pytest.mark.long
def test_profiles_of_several_updates_in_a_dispatch_and_batches_in_parts_are_of_one_update(
    make_config, tmp_path, capsys
):
    config = make_config("ae:smoke")
    config.model.widths, config.model.depth = (8,), 0
    config.train.num_epochs = 4 * BATCH / COUNT
    config.train.log_every_steps = config.train.checkpoint_every_steps = 4
    plain, _ = profiled(config, tmp_path, capsys)
    config.train.steps_per_dispatch = config.train.accumulate_steps = 2
    found, printed = profiled(config, tmp_path, capsys)
    (one,), (several,) = plain["phases"], found["phases"]
    assert (one["at_once"], several["at_once"]) == (1, 2)
    assert (one["updates"], several["updates"]) == (4, 4)
    assert "(4 of 4, 2 at once)" in printed
    for name in ("flops", "all_reduces"):
        assert several["costs"][name] == one["costs"][name], name
    assert several["costs"]["peak_memory"] != one["costs"]["peak_memory"]


def test_every_phase_is_profiled_separately(make_config, tmp_path, capsys):
    config = make_config("ganomaly:smoke")
    config.model.widths, config.model.depth = (8,), 0
    config.train.updates.discriminator = (0.0, 1.0, 2)
    config.train.num_epochs = 5 * BATCH / COUNT
    found, _ = profiled(config, tmp_path, capsys)
    updates = {tuple(phase["networks"]): phase["updates"] for phase in found["phases"]}
    assert updates == {("generator",): 3, ("generator", "discriminator"): 2}
    alone, both = found["phases"]
    assert both["costs"]["flops"] > alone["costs"]["flops"]
    assert sum(both["costs"]["all_reduces"]) > sum(alone["costs"]["all_reduces"])
    seconds = sum(phase["updates"] / phase["images_per_second"] for phase in found["phases"])
    assert found["images_per_second"] * seconds == pytest.approx(5)
    assert {path.name for path in (tmp_path / "profile").iterdir()} == {
        "generator", "generator+discriminator", "profile.json", "profile.txt"
    }  # fmt: skip


def test_only_a_complete_profile_replaces_an_earlier_one(make_config, tmp_path, monkeypatch):
    config = make_config("ae:smoke")
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "earlier").touch()

    def interrupted(config, split, folder, steps):
        (folder / "half").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(profiling, "profile_training", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.profile(config, tmp_path)
    assert [path.name for path in (tmp_path / "profile").iterdir()] == ["earlier"]
    assert {path.name for path in tmp_path.iterdir()} == {"profile", ".lock"}
    with Workdir(tmp_path).replaced(tmp_path / "profile") as folder:
        (folder / "later").touch()
    assert [path.name for path in (tmp_path / "profile").iterdir()] == ["later"]


@pytest.mark.parametrize("steps", ["0", "-3", "1.5", "many"])
def test_a_wrong_number_of_steps_is_an_error(make_config, tmp_path, steps):
    with pytest.raises(UserError, match=f"--steps={steps}: not a"):
        run.profile(make_config("ae:smoke"), tmp_path / "run", steps=steps)
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_config_is_not_profiled_over(make_config, tmp_path):
    config = make_config("ae:smoke")
    run_config.write(Workdir(tmp_path), config)
    config.optim.b1 = 0.5
    with pytest.raises(UserError, match=r"holds a run of another config.*config\.optim\.b1"):
        run.profile(config, tmp_path)


def test_values_that_the_backend_does_not_report(make_config):
    costs = profiling.ProgramCosts(None, None, None, None, (), 0, 0)
    once = profiling.Times(1e-3, 1e-3, 1e-3)
    phase = profiling.PhaseProfile(
        ("model",), 1, 1, 1.0, once, once, once, 16.0, costs, None, None, {}, {}
    )
    about = {
        "model": "ae", "image_shape": [16, 16, 1], "batch_size": 16, "devices": 1, "device": "x",
        "platform": "y", "parallel": "jit", "precision": "float32", "jax": jax.__version__,
        "updates": 1,
    }  # fmt: skip
    profile = profiling.Profile(about, 10, profiling.Peak(1e9, 512), (phase,), 16.0)
    text = table.format_profile(profile)
    unknown = [line.split("  ")[0] for line in text if line.endswith(table.UNKNOWN)]
    assert unknown == [
        "FLOPs, each device", "bytes accessed, each device", "memory, each device", "achieved",
        "of the measured peak", "time by kind", "time by layer",
    ]  # fmt: skip
    json.dumps(profile.as_json(), allow_nan=False)
