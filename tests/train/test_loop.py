"""The training loop: resumes where it stopped, stops at a loss that is not finite, logs once."""

import os
import re
import shutil
import signal
from contextlib import ExitStack
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_run import EVERY, STEPS, run, variables

from jaxad import run as launched
from jaxad.config import get_config, run_config
from jaxad.config.model import make_model
from jaxad.data.pipeline import batching
from jaxad.data.sources import DataSet
from jaxad.detector.restored import restore
from jaxad.errors import RunError, UserError
from jaxad.storage import history
from jaxad.storage.checkpoint import Checkpoints
from jaxad.storage.workdir import Workdir
from jaxad.train import loop
from jaxad.train import metrics as metrics_module
from jaxad.train import progress as progress_module
from jaxad.train.loop import train_seeds
from jaxad.train.outputs import Outputs
from jaxad.train.program import make_program, num_train_steps
from jaxad.train.state import TrainState, initial_variables
from jaxad.train.writer import MetricsWriter, read_metrics


def stopped_and_resumed(config, whole, parts, monkeypatch, stop_at):
    """Trains in `whole`, and in `parts` with a SIGTERM; returns the step at which it stopped."""
    assert run(config, whole)  # returns at once if it is trained already
    write = MetricsWriter.write

    def write_and_terminate(self, step, metrics):
        write(self, step, metrics)
        if step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(MetricsWriter, "write", write_and_terminate)
    assert not run(config, parts)
    with Checkpoints(parts / "checkpoints", read_only=True) as checkpoints:
        stopped = checkpoints.last_step
    monkeypatch.setattr(MetricsWriter, "write", write)
    assert run(config, parts)
    (whole_step, expected), (parts_step, found) = variables(whole), variables(parts)
    assert whole_step == parts_step
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    return stopped


@pytest.mark.parametrize("stop_at", [EVERY, 4])  # at a checkpoint, and between two
def test_a_run_stopped_by_sigterm_resumes_bit_for_bit(
    config, wholes, tmp_path, monkeypatch, stop_at
):
    assert num_train_steps(config, 32) == STEPS
    whole, parts = wholes / "pchvae", tmp_path
    stopped = stopped_and_resumed(config, whole, parts, monkeypatch, stop_at)
    assert stopped is not None and stop_at <= stopped < STEPS
    assert restore(parts).step == STEPS
    validation = [
        {
            row["step"]: row["validation_loss"]
            for row in read_metrics(folder / "metrics.jsonl")
            if "validation_loss" in row
        }
        for folder in (whole, parts)
    ]
    for step in validation[0].keys() & validation[1].keys():
        assert validation[0][step] == validation[1][step]
    assert STEPS in validation[0].keys() & validation[1].keys()
    entries = history.read(Workdir(parts))["training"]
    assert [entry["steps"] for entry in entries] == [stopped, STEPS - stopped]


def test_a_signal_does_not_wait_for_a_validation(config, wholes, tmp_path, monkeypatch):
    validated = []

    def eval_batches(*arguments, **options):
        for batch in batching.eval_batches(*arguments, **options):
            validated.append(len(validated))
            os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    fake = SimpleNamespace(eval_batches=eval_batches)
    monkeypatch.setattr(metrics_module, "batching", fake)
    assert not run(config, tmp_path)
    monkeypatch.setattr(metrics_module, "batching", batching)
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.last_step == EVERY  # where the first validation is due
        assert checkpoints.best_step is None
    assert "validation_loss" not in (tmp_path / "metrics.jsonl").read_text()
    assert run(config, tmp_path) and run(config, wholes / "pchvae")
    (_, found), (_, expected) = variables(tmp_path), variables(wholes / "pchvae")
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


# Alternating, before the border, behind it.
@pytest.mark.parametrize("stop_at", [*(pytest.param(n, marks=pytest.mark.long) for n in (3, 5)), 7])
def test_a_run_of_stages_resumes_in_the_right_one(npz_root, wholes, tmp_path, monkeypatch, stop_at):
    """Critic and, every second time, generator train first, then the encoder."""
    config = get_config("fanogan:smoke").unlock()
    config.data.name, config.data.root, config.data.image_size = "npz", str(npz_root), 16
    config.model.widths, config.model.depth, config.cpu_devices = (8, 8), 0, 8
    config.train.updates.critic = (0.0, 0.6, 1)
    config.train.updates.generator = (0.0, 0.6, 2)
    config.train.updates.encoder = (0.6, 1.0, 1)
    config.train.num_epochs = 10 * config.data.batch_size / 32
    config.train.log_every_steps, config.train.checkpoint_every_steps = 1, 4
    whole, parts = wholes / "fanogan", tmp_path
    stopped = stopped_and_resumed(config, whole, parts, monkeypatch, stop_at)
    assert stopped in (stop_at, stop_at + 1)
    # The best checkpoint is of the encoder's stage: before, its loss is of an untrained one.
    compared = [
        row["step"] for row in read_metrics(whole / "metrics.jsonl") if "validation_loss" in row
    ]
    assert compared == [8, 10] and restore(whole, "best").step in compared
    networks = {
        row["step"]: sorted(name[11:] for name in row if name.startswith("train/loss/"))
        for row in read_metrics(parts / "metrics.jsonl")
        if "train/grad_norm" in row
    }
    expected = {step: ["critic"] if step % 2 else ["critic", "generator"] for step in range(1, 7)}
    assert networks == expected | dict.fromkeys(range(7, 11), ["encoder"])


def test_a_finished_run_is_left_alone(config, tmp_path):
    assert run(config, tmp_path)
    before = (tmp_path / "metrics.jsonl").read_text()
    assert run(config, tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == before
    steps = [
        row["step"] for row in read_metrics(tmp_path / "metrics.jsonl") if "train/grad_norm" in row
    ]
    assert steps == sorted(set(steps))
    assert steps[-1] == STEPS


def test_a_run_can_be_made_longer(config, tmp_path, monkeypatch, capsys):
    """With a constant rate it is then, bit for bit, a run that had this length from the start."""
    config.optim.schedule = "constant"
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(config, whole)
    length = config.train.num_epochs
    config.train.num_epochs = length / 2
    assert run(config, parts)
    assert variables(parts)[0] == STEPS // 2
    config.train.num_epochs = length
    with monkeypatch.context() as patch:  # killed before its first new checkpoint
        patch.setattr(loop, "train_batches", lambda *_: iter([]))
        with pytest.raises(ValueError, match="shorter"):
            launched.train(config, parts)
    assert run_config.read(Workdir(parts)).train.num_epochs == length
    assert variables(parts)[0] == STEPS // 2
    capsys.readouterr()
    launched.train(config, parts)
    out, err = capsys.readouterr()
    assert f"resumed from step {STEPS // 2} of {STEPS}.\n" in out
    assert "learning rate" not in err
    (step, found), (_, expected) = variables(parts), variables(whole)
    assert step == STEPS
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    config.train.num_epochs = length / 2
    with pytest.raises(UserError, match=r"undo the difference: config\.train\.num_epochs"):
        launched.train(config, parts)


def test_a_longer_run_warns_that_its_learning_rate_jumps(config, tmp_path, capsys):
    assert config.optim.schedule == "cosine"
    config.optim.warmup_steps = 0
    assert run(config, tmp_path)
    config.train.num_epochs *= 2
    assert run(config, tmp_path)
    # Half of the cosine is done: the rate is half of the largest.
    rate = f"from 0 to {config.optim.learning_rate / 2:.3g};"
    assert rate in capsys.readouterr().err
    assert variables(tmp_path)[0] == 2 * STEPS


def test_stages_cannot_be_made_longer(tmp_path):
    config = get_config("fanogan:smoke")
    run_config.write(Workdir(tmp_path), config)
    config.train.num_epochs *= 2
    with pytest.raises(UserError, match=r"updates\.critic is a stage .*--config\.init_from="):
        run_config.check(Workdir(tmp_path), config, trains=True)


def test_the_log_has_plain_lines(config, tmp_path, capsys):
    assert run(config, tmp_path)
    out, err = capsys.readouterr()
    assert "\r" not in out + err
    first, *lines = out.splitlines()
    assert re.search(rf"train pchvae on \S+: {STEPS} steps on 8 CPU, jaxad \d.*, jax \d", first)
    trained = re.compile(r"step 8 of 8, epoch 4\.00: loss \S+ \(\w+ .*\), \S+ images/s, 0 s left$")
    assert trained.search(lines[-2])
    saved = re.compile(r" step (\d): validation loss \S+ \(.*\); checkpoint saved$")
    steps = [int(match[1]) for line in lines if (match := saved.search(line))]
    assert steps == [EVERY, 2 * EVERY, STEPS]


def test_the_time_left_does_not_count_compilation(config, tmp_path, monkeypatch, capsys):
    """The first update takes 600 s, each other one 2 s; a line for each."""
    seconds = iter([600.0, *(600.0 + 2 * step for step in range(1, STEPS))])
    monkeypatch.setattr(progress_module, "LINE_SECONDS", 0)
    monkeypatch.setattr(progress_module, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    progress = progress_module.TrainingProgress(make_program(config, [0], 32), "ae", 0, 8, 32)
    rows = [{"train/loss/model": 1.0, "train/images_per_second": 1.0}]
    for step in range(1, STEPS + 1):
        progress.update(step, rows)
    lines = capsys.readouterr().out.splitlines()[1:]
    left = [re.search(r"1 images/s(, (\d+) s left)?$", line)[2] for line in lines]
    assert left == [None, *(str(2 * (STEPS - step)) for step in range(2, STEPS + 1))]


def test_a_batch_larger_than_an_epoch_is_a_warning(config, tmp_path, capsys):
    config.data.batch_size, config.train.num_epochs = 80, 2.5  # one update
    assert run(config, tmp_path)
    assert capsys.readouterr().err.strip() == (
        "warning: config.data.batch_size=80: there are 32 training images, so an update uses "
        "images more than once (each update covers 2.5 epochs)."
    )


def test_a_short_run_is_validated_after_every_epoch(config, tmp_path):
    config.train.checkpoint_every_steps = 100
    assert run(config, tmp_path)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    per_epoch = 32 // config.data.batch_size
    validated = [row["step"] for row in rows if "validation_loss" in row]
    assert validated == list(range(per_epoch, STEPS + 1, per_epoch))
    # A data set smaller than a batch: 200 epochs of one update have 50 validations.
    config.train.checkpoint_every_steps, config.train.num_epochs = 250, 200.0
    config.data.batch_size = 32
    assert make_program(config, [0], 32).save_every == 4


def test_several_updates_in_a_dispatch_are_the_same_updates(config, wholes, tmp_path):
    """Eight updates in dispatches of up to three: 1 to 3, 4 to 6, 7, 8."""
    config.train.log_every_steps = EVERY
    whole = wholes / "pchvae of one update a dispatch"
    assert run(config, whole)
    config.train.steps_per_dispatch = 3
    assert run(config, tmp_path)
    losses = [
        {row["step"]: row["train/loss/model"] for row in read_metrics(folder / "metrics.jsonl")
         if "train/loss/model" in row}
        for folder in (whole, tmp_path)
    ]  # fmt: skip
    assert list(losses[1]) == [3, 6, STEPS] == list(losses[0])
    np.testing.assert_allclose(list(losses[1].values()), list(losses[0].values()), rtol=1e-5)
    (_, expected), (_, found) = variables(whole), variables(tmp_path)
    for ours, theirs in zip(found, expected, strict=True):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * scale)


def test_both_parallel_modes_log_the_same_losses(config, tmp_path):
    losses = []
    for mode in ("jit", "pmap"):
        config.parallel = mode
        assert run(config, tmp_path / mode)
        rows = read_metrics(tmp_path / mode / "metrics.jsonl")
        losses.append([row["train/loss/model"] for row in rows if "train/loss/model" in row])
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_everything(config, tmp_path):
    """With plain gradient descent and a rate of 1e20 the second loss overflows."""
    config.optim.name, config.optim.schedule = "sgd", "constant"
    config.optim.clip_norm, config.optim.warmup_steps = 0.0, 0
    config.optim.learning_rate = 1e20
    with pytest.raises(RunError, match=r"step 2: term/\w+ is (nan|inf).*no checkpoint yet"):
        run(config, tmp_path)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.last_step is None


def test_the_last_good_checkpoint_is_named(config, tmp_path, monkeypatch):
    """A rate that jumps after the first checkpoint: the message names that checkpoint."""

    def rate(step):
        return jnp.where(step < EVERY, 1e-4, 1e20)

    monkeypatch.setattr("jaxad.train.optim.learning_rate_schedule", lambda settings, steps: rate)
    config.optim.name, config.optim.b1 = "sgd", 0.0
    with pytest.raises(RunError, match=rf"the last good checkpoint is step {EVERY}\."):
        run(config, tmp_path)
    assert variables(tmp_path)[0] == EVERY


def test_last_and_best_checkpoint_are_kept_and_loaded(config, tmp_path):
    config.train.keep_last = 1
    assert run(config, tmp_path)
    rows = [r for r in read_metrics(tmp_path / "metrics.jsonl") if "validation_loss" in r]
    best = min(rows, key=lambda row: row["validation_loss"])["step"]
    assert variables(tmp_path)[0] == STEPS
    assert variables(tmp_path, "best")[0] == best
    with pytest.raises(UserError, match="no checkpoint 999; choose 'last', 'best' or one of"):
        restore(tmp_path, 999)


def test_a_wrong_config_leaves_no_run_behind(config, tmp_path):
    config.data.batch_size = 12  # 8 devices
    with pytest.raises(UserError, match=r"config.data.batch_size: 12 .* multiple of 8"):
        launched.train(config, tmp_path)
    assert not (tmp_path / "config.json").exists()


@pytest.mark.long
def test_seeds_trained_as_one_program_are_the_seeds_trained_alone(config, tmp_path):
    """Equal parameters and losses; refused if one run is ahead of the other."""
    config.optim.warmup_steps = 0  # so that eight steps move the parameters far
    seeds = (0, 5)
    configs = [config.copy_and_resolve_references() for _ in seeds]
    for seed, one in zip(seeds, configs, strict=True):
        one.seed = seed
        assert run(one, tmp_path / "alone" / str(seed))
    together = [tmp_path / "together" / str(seed) for seed in seeds]
    folders = [Workdir(path) for path in together]
    assert train_seeds(configs, folders, DataSet(config.data))

    for seed, path in zip(seeds, together, strict=True):
        assert restore(path).config.seed == seed
        (step, found), (_, expected) = variables(path), variables(tmp_path / "alone" / str(seed))
        assert step == STEPS
        start = jax.tree.leaves(initial_variables(make_model(config), seed))
        moved = max(np.abs(a - b).max() for a, b in zip(start, expected, strict=True))
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=0.02 * moved)  # sums in another order
        rows = read_metrics(path / "metrics.jsonl")
        alone = read_metrics(tmp_path / "alone" / str(seed) / "metrics.jsonl")
        losses, expected = (
            [row["train/loss/model"] for row in table if "train/loss/model" in row]
            for table in (rows, alone)
        )
        np.testing.assert_allclose(losses, expected, rtol=1e-4)
    shutil.rmtree(together[1] / "checkpoints" / str(STEPS))  # killed between their saves
    with pytest.raises(UserError, match="are at different steps; train them one by one"):
        train_seeds(configs, folders, DataSet(config.data))


def test_seeds_of_one_program_that_resume_from_different_steps_after_damage(tmp_path):
    """A RunError: a study then trains its seeds one by one."""

    class Restored(Checkpoints):
        last_step = 9

        def __init__(self, step):
            self.step = step

        def restore_newest(self, variables, training):
            return self.step, variables, training

    def outputs(*steps):
        return Outputs([Workdir(tmp_path)] * 2, list(map(Restored, steps)), ExitStack())

    state = TrainState(step=0, seed=0, params={}, mutable={}, opt_state={})
    assert outputs(9, 9).restore([state, state])[0] == 9
    with pytest.raises(RunError, match=r"damage .* steps, \[6, 9\]; train them one by one"):
        outputs(9, 6).restore([state, state])
