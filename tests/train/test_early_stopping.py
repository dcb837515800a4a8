"""Early stopping: a function of the validation losses, the same after a resumption."""

import json
import os
import signal

import pytest
from small_run import EVERY, STEPS, run, variables

from jaxad.config import get_config
from jaxad.data.sources import DataSet
from jaxad.errors import UserError
from jaxad.storage.workdir import Workdir
from jaxad.train import metrics as metrics_module
from jaxad.train.early_stopping import EarlyStopping, read
from jaxad.train.loop import train_seeds
from jaxad.train.writer import read_metrics


def test_training_stops_after_validations_without_a_lower_loss():
    stopping = EarlyStopping(patience=2)
    due = []
    for step, loss in enumerate([3.0, 2.0, 2.0, 1.5, 1.6, 1.5], 1):
        stopping.add(step, loss)
        due.append(stopping.is_due)
    assert due == [False, False, False, False, False, True]  # an equal loss is not lower
    never = EarlyStopping(patience=0)
    for step in range(1, 9):
        never.add(step, 1.0)
    assert not never.is_due


def test_the_state_comes_from_the_metrics_up_to_a_step(tmp_path):
    rows = [{"step": n, "validation_loss": loss} for n, loss in ((2, 0.1), (4, 0.3), (6, 0.2))]
    rows.insert(1, {"step": 3, "train/loss/model": 0.0})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = get_config("pchvae:smoke")
    config.train.early_stopping = 2
    found = read(config, Workdir(tmp_path), 4)
    assert (found.waited, found.last_step, found.is_due) == (1, 4, False)
    found = read(config, Workdir(tmp_path), 6)
    assert found.best == pytest.approx(0.1) and found.is_due


@pytest.mark.long
def test_a_resumed_run_stops_where_an_uninterrupted_one_does(config, tmp_path, monkeypatch, capsys):
    """The rate is 0, so that no validation loss is lower than the first one."""
    config.optim.learning_rate, config.train.early_stopping = 0.0, 1
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(config, whole)
    assert f"stopped early at step {2 * EVERY} of " in capsys.readouterr().out
    assert variables(whole)[0] == 2 * EVERY
    assert run(config, whole)
    assert (
        f"trained already: it stopped early at step {2 * EVERY} of {STEPS}."
        in capsys.readouterr().out
    )
    config.train.num_epochs *= 3
    assert run(config, whole)
    assert (
        f"stopped early at step {2 * EVERY} of {STEPS}; a larger config.train.num_epochs has no "
        f"effect on a run that stopped early: to train further, start another run from it with "
        f"--config.init_from={whole} and another --workdir."
    ) in capsys.readouterr().out
    config.train.num_epochs /= 3
    original = metrics_module.batching.eval_batches

    def eval_batches(*arguments, **options):  # the signal arrives in the first validation
        os.kill(os.getpid(), signal.SIGTERM)
        yield from original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(metrics_module.batching, "eval_batches", eval_batches)
        assert not run(config, parts)
    assert variables(parts)[0] == EVERY
    assert run(config, parts)
    assert variables(parts)[0] == 2 * EVERY
    losses = [
        [row["validation_loss"] for row in read_metrics(folder / "metrics.jsonl")
         if "validation_loss" in row]
        for folder in (whole, parts)
    ]  # fmt: skip
    assert len(losses[0]) == 2 and losses[0] == losses[1]


def test_too_few_validations_to_stop_are_a_warning(config, tmp_path, capsys):
    """Validations at steps 3, 6 and 8: the earliest stop with a patience of 2 is the last step."""
    warning = (
        "warning: the run has 3 validations, so early_stopping=2 cannot stop it; lower "
        "config.train.checkpoint_every_steps."
    )
    for patience, expected in ((1, ""), (2, warning)):
        config.train.early_stopping = patience
        assert run(config, tmp_path / str(patience))
        assert capsys.readouterr().err.strip() == expected


def test_seeds_of_one_program_do_not_stop_early(config, tmp_path):
    config.train.early_stopping = 1
    folders = [Workdir(tmp_path / str(seed)) for seed in (0, 1)]
    with pytest.raises(UserError, match=r"early_stopping: seeds .*seeds_per_program=1"):
        train_seeds([config, config], folders, DataSet(config.data))
