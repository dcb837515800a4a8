"""Checkpoints of a run. The only importer of Orbax.

A checkpoint has two items: `variables` (all that scoring needs) and `training` (step, seed and
optimiser state). Orbax writes into a temporary folder and renames it when it is complete, so that
a run killed inside a save finds the checkpoint before it.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from jaxad.errors import RunError, UserError
from jaxad.types import Tree

#: The metric by which the best checkpoint is kept: lower is better.
VALIDATION_LOSS = "validation_loss"


def _as_template(tree: Tree) -> Tree:
    """NumPy arrays of the tree's shapes and types: tells Orbax to restore to the host."""
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), tree)


class Checkpoints:
    """The checkpoints in one folder: the last few and the best by validation loss.

    A context manager; leaving it waits for saves under way.
    """

    def __init__(self, folder: Path, *, keep_last: int = 1, read_only: bool = False):
        """Opens a folder.

        Args:
            folder: where the checkpoints are.
            keep_last: how many of the newest to keep beside the best.
            read_only: for scoring; never creates, cleans or deletes anything.
        """
        # Orbax tells of every phase of every save at INFO and of defaults at WARNING.
        logging.getLogger("absl").setLevel(logging.ERROR)
        policies = checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(keep_last),
                checkpoint_managers.BestN(get_metric_fn=_validation_loss, reverse=True, n=1),
            ]
        )
        self._folder = folder
        if not read_only:
            folder.mkdir(parents=True, exist_ok=True)
        try:
            self._manager = ocp.CheckpointManager(
                folder.absolute(),
                item_names=("variables", "training"),
                options=ocp.CheckpointManagerOptions(
                    create=False,
                    read_only=read_only,
                    cleanup_tmp_directories=not read_only,
                    preservation_policy=None if read_only else policies,
                    best_fn=_validation_loss,
                    best_mode="min",
                    enable_async_checkpointing=not read_only,
                    multiprocessing_options=_this_process_alone(),
                ),
            )
        except (ValueError, KeyError) as error:
            raise UserError(
                f"checkpoints in '{folder}' cannot be read ({error}); one of them is damaged: move "
                "its folder away."
            ) from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._manager.close()

    @property
    def last_step(self) -> int | None:
        """The newest complete checkpoint; None where there is none."""
        return self._manager.latest_step()

    @property
    def steps(self) -> list[int]:
        """Every complete checkpoint, oldest first."""
        return sorted(self._manager.all_steps())

    @property
    def best_step(self) -> int | None:
        """The checkpoint of least validation loss among those kept; None where there is none."""
        return self._manager.best_step()

    def save(
        self, step: int, variables: Tree, training: Tree, metrics: Mapping[str, float]
    ) -> None:
        """Starts to save; returns once the arrays are copied, so that they may be donated.

        Without metrics (a run told to stop does not validate first) it is no candidate for best.
        """
        saved = self._manager.save(
            step,
            args=ocp.args.Composite(
                variables=ocp.args.StandardSave(variables),
                training=ocp.args.StandardSave(training),
            ),
            metrics=dict(metrics) or None,
        )
        if not saved:  # Orbax does not save a step before its newest one.
            raise RunError(
                f"checkpoint {step} was not saved in '{self._folder}', which holds step "
                f"{self.last_step}."
            )

    def wait(self) -> None:
        """Until every save is complete on disk."""
        self._manager.wait_until_finished()

    def restore_variables(self, step: int, like: Tree) -> Tree:
        """The variables of a step as NumPy arrays; `like` gives their shapes and types."""
        return self._restore(step, {"variables": like})["variables"]

    def restore(self, step: int, variables: Tree, training: Tree) -> tuple[Tree, Tree]:
        """Variables and training state of a step as NumPy arrays, shaped like the arguments."""
        restored = self._restore(step, {"variables": variables, "training": training})
        return restored["variables"], restored["training"]

    def _restore(self, step: int, likes: Mapping[str, Tree]) -> Mapping[str, Any]:
        arguments = {
            name: ocp.args.StandardRestore(_as_template(like)) for name, like in likes.items()
        }
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**arguments))
        except (ValueError, KeyError, OSError) as error:
            first_line = str(error).strip().splitlines()[0]
            raise UserError(
                f"checkpoint '{self._folder / str(step)}' does not fit its config or is damaged "
                f"({first_line}); move this one folder away to fall back to an older checkpoint."
            ) from error


def _this_process_alone() -> ocp.options.MultiprocessingOptions:
    """Every process has the whole state: the first one saves, each reads by itself."""
    mine = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=mine, active_processes={mine}, barrier_sync_key_prefix=f"process-{mine}"
    )


def _validation_loss(metrics: Mapping[str, float]) -> float:
    return metrics[VALIDATION_LOSS]
